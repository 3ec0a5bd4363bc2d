# SPDX-License-Identifier: Apache-2.0
"""
Turn the bytes of HTTP/2 connections into calls of gRPC and back.

* `factory` accepts the connections of a listener, and ends them.
* `connection` is one connection, from its socket to the ways in which it ends; `lifetime` has its timers, `strangers`
  recognizes what is no HTTP/2.
* `call` is one call, from the door to its status; `incoming` is the client's side of it, `outgoing` the server's, and
  `trailers` how a call ends.
* `session` applies the rules of HTTP/2 to what `reading` has split into frames, `heads` decodes header blocks, and
  `wire` encodes what is sent.
* `grants` bounds what large messages may arrive at a time, `guards` counts frames that only make work, `fields` counts
  the fields of a message.
* `limits` are the limits, `interfaces` is what calls need of their connection.

`session` and what it uses know neither sockets nor timers.
"""

from twisted_serve.rpc.engine.factory import GrpcFactory
from twisted_serve.rpc.engine.limits import RpcLimits

__all__ = ["GrpcFactory", "RpcLimits"]
