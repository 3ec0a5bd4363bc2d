# SPDX-License-Identifier: Apache-2.0
"""
Recognize connections that do not speak HTTP/2.
"""

from __future__ import annotations

import re

from attrs import frozen

from twisted_serve.rpc.engine.wire import PREFACE

_TEXT = b"This port serves gRPC over HTTP/2.\n"
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)

# The beginning of a request of HTTP/1: a method.
_METHOD = re.compile(rb"[A-Z]")

# The first byte of TLS is the type of a record, a handshake.
_TLS = b"\x16"


@frozen
class Stranger:
    """
    A client that does not speak HTTP/2.

    :ivar answer: What the client is sent before the connection is closed.
    :ivar protocol: What the client seems to speak, for the log.
    """

    answer: bytes
    protocol: str


def stranger(data: bytes) -> Stranger | None:
    """Return what the client seems to speak; ``None`` if ``data`` is a preface of HTTP/2 or the beginning of one."""
    if PREFACE.startswith(data[: len(PREFACE)]):
        return None
    if data.startswith(_TLS):
        # Nothing that is sent in plain text would be understood.
        return Stranger(b"", "TLS")
    if _METHOD.match(data):
        return Stranger(_ANSWER, "HTTP/1")
    return Stranger(b"", "another protocol")
