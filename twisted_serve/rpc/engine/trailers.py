# SPDX-License-Identifier: Apache-2.0
"""
Encode the headers and trailers of calls, and the answer to what is no call.
"""

from __future__ import annotations

from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.metadata import encoded_text
from twisted_serve.rpc.statuses import OK, Status

_HEADERS = wire.STATUS_200 + wire.field(b"content-type", b"application/grpc")
_OK = wire.field(b"grpc-status", b"0")
_TEXT = wire.field(b"content-type", b"text/plain; charset=utf-8")

#: The texts for what is no call, by HTTP status.
HTTP_TEXTS = {
    405: b"A call of gRPC is a POST.\n",
    415: b"A call of gRPC has the content-type application/grpc.\n",
}


def headers(request_id: str) -> bytes:
    """Return the block before the messages of a call."""
    return _HEADERS + wire.field(b"x-request-id", request_id.encode("ascii"))


def trailers(status: Status) -> bytes:
    """Return the block after the messages of a call."""
    if status is OK:
        return _OK
    block = wire.field(b"grpc-status", b"%d" % status.code)
    if status.message:
        block += wire.field(b"grpc-message", encoded_text(status.message))
    return block + wire.fields(status.metadata)


def http_headers(status: int) -> bytes:
    """Return the block before a text of `HTTP_TEXTS`."""
    return wire.status_field(status) + _TEXT
