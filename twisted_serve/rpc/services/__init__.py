# SPDX-License-Identifier: Apache-2.0
"""
Answer the methods of each service with the use cases of `planes`.

* `inference` and `sequences` serve TorchServe's inference API, `management` its management API.
* `open_inference`, `infer_streams` and `repository` serve the Open Inference Protocol for clients of TorchServe, KServe
  and Triton; `infer_requests` and `infer_answers` convert its tensors.
* `health` tells whether the server and its models are ready, by the names in `health_states`.
* `reflection` describes the services of a listener.
* `jobs` makes jobs of messages, and selects the metadata that handlers see.
* `torchserve` names errors as TorchServe does.
"""
