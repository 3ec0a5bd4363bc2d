# SPDX-License-Identifier: Apache-2.0
"""
Write responses to a connection, the head together with the first bytes of the body.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from twisted_serve.eventloop.writing import write_now
from twisted_serve.web.http.contracts import ChannelSite
from twisted_serve.web.http.rendering import lines_of

# In bytes. A longer body is written separately, since joining it with its head would copy it.
_JOINED = 1 << 16

# In every response (``docs/torchserve/rest_api.md`` §2.4); the single semicolon is TorchServe's.
NO_CACHE: Final = (
    (b"Pragma", b"no-cache"),
    (b"Cache-Control", b"no-cache; no-store, must-revalidate, private"),
    (b"Expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
)
_NO_CACHE: Final = b"".join(b"%s: %s\r\n" % header for header in NO_CACHE)


class WritingChannel(HTTPChannel):
    """The part of a connection that writes."""

    site: ChannelSite
    transport: Any
    _head = b""

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """
        Buffer the head of a response until the first bytes of its body.

        The head includes the headers of every response (``docs/torchserve/rest_api.md`` §2.4).
        """
        self._head = self._head_of(version, code, reason, self.requests[0].answer_id, lines_of(headers))

    def write_whole(self, answer_id: str, lines: bytes, body: bytes) -> None:
        """Send a complete response with status 200: its id, its headers, each with its line end, and its body."""
        lines = b"%sContent-Length: %d\r\n" % (lines, len(body))
        self._head = self._head_of(b"HTTP/1.1", b"200", b"OK", answer_id, lines)
        self.write(body)

    def _head_of(self, version: bytes, code: bytes, reason: bytes, answer_id: str, lines: bytes) -> bytes:
        date = self.site.date()
        return b"%s %s %s\r\nDate: %s\r\nX-Request-Id: %s\r\n%s%s\r\n" % (
            version,
            code,
            reason,
            date,
            answer_id.encode("ascii"),
            _NO_CACHE,
            lines,
        )

    def write(self, data: bytes) -> None:
        """Send a part of a response, preceded by its head if not yet sent."""
        head, self._head = self._head, b""
        if len(data) > _JOINED:
            self.transport.write(head)
            write_now(self.transport, data)
        else:
            write_now(self.transport, head + data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send a part of a response."""
        self.write(b"".join(iovec))

    def send_head(self) -> None:
        """Send the head alone, unless already sent."""
        if self._head:
            self.write(b"")
