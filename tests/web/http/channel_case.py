# SPDX-License-Identifier: Apache-2.0
"""What the tests of connections share: a server with an echoing model, and a connection to it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryConnection, MemoryServer


class ChannelTestCase(SynchronousTestCase):
    """A server with an echoing model."""

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.server = MemoryServer(self.options, models={"m": {}})
        self.addCleanup(self.server.close)
        self.connection = self.server.connect()

    def bearer(self, kind: TokenKind = TokenKind.INFERENCE) -> bytes:
        return b"Authorization: Bearer " + self.server.key(kind).encode() + b"\r\n"

    def predict(self, body: bytes, more: bytes = b"") -> bytes:
        return b"POST /predictions/m HTTP/1.1\r\nHost: h\r\n%s%sContent-Length: %d\r\n\r\n%s" % (
            self.bearer(),
            more,
            len(body),
            body,
        )

    def statuses(self, connection: MemoryConnection | None = None) -> list[int]:
        received = (connection or self.connection).received
        return [int(piece.split(b" ", 1)[0]) for piece in received.split(b"HTTP/1.1 ")[1:]]

    def body(self) -> bytes:
        return self.connection.received.rpartition(b"\r\n\r\n")[2]
