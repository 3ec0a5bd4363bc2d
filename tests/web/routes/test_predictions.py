# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.web.routes.predictions`: response heads that are rendered beforehand are no different."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import PropertyMock, patch

from hypothesis import given
from hypothesis.strategies import binary, dictionaries, sampled_from, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.routes import predictions
from twisted_serve.wire.messages import Item, Job

_VARIES = re.compile(rb"(?m)^(X-Request-Id|Date): .*$")

NAMES = ("content-type", "Content-Type", "X-A", "x-a", "ETag", "Set-Cookie", "Connection", "date", "Content-Length")


class UsualTests(SynchronousTestCase):
    """A handler's answers, with heads made ready and not."""

    def serve(self, **options: Any) -> None:
        self.headers: dict[str, str] = {}
        self.status, self.phrase = 200, ""
        self.body = b"ok"
        self.server = MemoryServer(options, respond=self.respond, models={"m": {}})
        self.addCleanup(self.server.close)

    def respond(self, asked: list[Job]) -> list[Item]:
        return [Item(job.request_id, self.status, self.phrase, self.headers, self.body) for job in asked]

    def exchange(self, method: str = "GET", version: str = "1.1", *more: str) -> bytes:
        """Send a request on a connection of its own, and return all that comes, without what always varies."""
        connection = self.server.connect()
        lines = [f"{method} /predictions/m HTTP/{version}", "Host: h", *more]
        lines += [f"Authorization: Bearer {self.server.key(TokenKind.INFERENCE)}", "", ""]
        received = _VARIES.sub(rb"\1", connection.send("\r\n".join(lines).encode()))
        return received + (b"" if connection.open else b"<closed>")

    def assert_no_difference(self, *request: str) -> bytes:
        """Compare with what is answered when nothing is usual; give that."""
        ready = self.exchange(*request)
        with patch.object(ServeRequest, "is_usual", PropertyMock(return_value=False)):
            made = self.exchange(*request)
        self.assertEqual(made, ready)
        return ready

    def test_taken(self) -> None:
        """The usual answer is the one whose head is made ready."""
        self.serve()
        self.headers = {"content-type": "text/plain"}
        predictions._lines_of.cache_clear()
        for _ in range(3):
            self.assertTrue(self.exchange().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual((1, 2), (predictions._lines_of.cache_info().misses, predictions._lines_of.cache_info().hits))

    def test_unusual(self) -> None:
        """HTTP/1.0, HEAD, the last request of a connection."""
        self.serve()
        for method in ("GET", "HEAD", "POST"):
            for version in ("1.0", "1.1"):
                for more in ((), ("Connection: close",), ("Connection: keep-alive",)):
                    self.assert_no_difference(method, version, *more)

    def test_phrases(self) -> None:
        """A reason phrase is sent as well as it can be, and ends no line."""
        self.serve()
        for phrase, sent in (("\u4e2d\u6587", b"??"), ("a\r\nX-Forged: b", b"a  X-Forged: b"), ("\xe9", b"\xe9")):
            self.phrase = phrase
            self.assertTrue(self.exchange().startswith(b"HTTP/1.1 200 " + sent + b"\r\n"))

    def test_no_content(self) -> None:
        """An answer whose status has no content has none, whatever the handler gives, and the connection goes on."""
        self.serve()
        for self.status in (204, 205, 304):
            received = self.exchange()
            self.assertTrue(received.endswith(b"\r\n\r\n"), received)
            self.assertNotIn(b"Transfer-Encoding", received)
            self.assertEqual(b"Content-Length: 0" in received, self.status == 205)

    def test_other_headers(self) -> None:
        """What the server adds to all answers is in these, too."""
        self.serve(cors_allowed_origin="https://here", server_timing=True)
        received = self.assert_no_difference()
        self.assertIn(b"\r\nAccess-Control-Allow-Origin: https://here\r\n", received)
        self.assertIn(b"\r\nServer-Timing: ", received)

    def test_long_headers_are_not_remembered(self) -> None:
        """A handler cannot fill the memory with headers."""
        self.serve()
        self.headers = {"x-long": "a" * 2000}
        predictions._lines_of.cache_clear()
        self.assertIn(b"\r\nX-Long: aaa", self.assert_no_difference())
        self.assertEqual(0, predictions._lines_of.cache_info().currsize)

    def test_impossible_headers(self) -> None:
        """What a header cannot say is sent as well as it can be, and ends no line."""
        self.serve()
        self.headers = {"x-a": "filename=\u4e2d\u6587", "content-type": "text/plain; title=\u20ac"}
        received = self.assert_no_difference()
        self.assertTrue(received.startswith(b"HTTP/1.1 200 OK\r\n"), received)
        self.assertIn(b"\r\nX-A: filename=??\r\n", received)
        self.assertIn(b"\r\nContent-Type: text/plain; title=?\r\n", received)
        self.headers = {"content-disposition": "attachment; filename=\u4e2d"}
        self.assertIn(b"; filename=?; filename*=UTF-8''%E4%B8%AD\r\n", self.assert_no_difference())
        self.headers = {"x-split": "a\r\nX-Forged: b"}
        self.assertNotIn(b"\r\nX-Forged", self.assert_no_difference())

    @given(dictionaries(sampled_from(NAMES), text("aB; =\t\xe4\u20ac\r\n", max_size=9)), binary(max_size=9))
    def test_no_difference(self, headers: dict[str, str], body: bytes) -> None:
        """Whatever the handler says, the bytes are the same."""
        if not hasattr(self, "server"):
            self.serve()
        self.headers, self.body = headers, body
        self.assert_no_difference()
