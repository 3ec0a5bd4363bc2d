# SPDX-License-Identifier: Apache-2.0
"""
The Open Inference Protocol's bodies, without a transport: values in, values out, and errors which name the field.

``datatypes``   the types of a tensor's elements: their ranges, and their bytes
``tensors``     a tensor in JSON and in binary: its shape against its data
``requests``    a request's body as JSON for a handler, and which outputs are wanted in binary
``answers``     a handler's JSON as the body of an answer
"""
