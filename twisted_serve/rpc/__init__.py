# SPDX-License-Identifier: Apache-2.0
"""
Serve gRPC: TorchServe's services, the Open Inference Protocol, health and reflection.

* `listeners` builds the factory of each listener from the services, `door` authorizes calls at their headers.
* `services` maps messages to the use cases of `planes` and back.
* `endings` records calls that are over.
* `methods` is the only list of methods: the operation of each, and hence its key.
* `engine` turns the bytes of a connection into calls and back.
* `contracts` defines what these share, `statuses` how errors are sent.
* `frames`, `metadata` and `messages` encode and decode values; `descriptors` describes services and messages.

Only this package uses ``hpack`` and ``google.protobuf``, which the extra ``grpc`` installs, besides the client of
`twisted_serve.testing.rpc`, which uses ``h2``.
"""
