# SPDX-License-Identifier: Apache-2.0
"""
The Open Inference Protocol's bodies, independent of the transport: JSON and binary tensors in and out.

- `datatypes`: the types of tensor elements: their ranges and binary encodings
- `tensors`: one tensor in JSON and binary, its data checked against its shape
- `requests`: convert a request body to JSON for a handler, and read which outputs are wanted as binary
- `rendering`: the JSON of a request, with the data of its tensors in pieces
- `answers`: convert a handler's JSON to a response body
- `outputs`: the outputs of a handler's answer, with their numbers as text until they are encoded
- `server`: the names of the server and of its extensions
- `pieces`: parse and scan large JSON in short steps, so that other threads can run
"""
