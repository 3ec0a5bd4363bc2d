# SPDX-License-Identifier: Apache-2.0
"""
Write responses to a connection, the head together with the first bytes of the body.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from twisted_serve.eventloop.writing import write_joined
from twisted_serve.web.http.contracts import ChannelSite
from twisted_serve.web.http.heads import head_of, whole_head
from twisted_serve.web.http.rendering import lines_of


class WritingChannel(HTTPChannel):
    """The part of a connection that writes."""

    site: ChannelSite
    transport: Any
    _head = b""

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Buffer the head of a response until the first bytes of its body."""
        answer_id = self.requests[0].answer_id
        self._head = head_of(version, code, reason, self.site.date(), answer_id, lines_of(headers))

    def write_whole(self, answer_id: str, lines: bytes, body: bytes) -> None:
        """Send a complete response with status 200: its id, its headers, each with its line end, and its body."""
        write_joined(self.transport, whole_head(self.site.date(), answer_id, lines, len(body)), body)

    def write(self, data: bytes) -> None:
        """Send a part of a response, preceded by its head if not yet sent."""
        head, self._head = self._head, b""
        write_joined(self.transport, head, data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send a part of a response."""
        self.write(b"".join(iovec))

    def send_head(self) -> None:
        """Send the head alone, unless already sent."""
        if self._head:
            self.write(b"")
