# SPDX-License-Identifier: Apache-2.0
"""Answers that come before the request has been read, and what becomes of the rest of it."""

from __future__ import annotations

from tests.web.http.channel_case import ChannelTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryConnection, MemoryServer, Role
from twisted_serve.web.http.early_responses import LINGER_BYTES, LINGER_SECONDS
from twisted_serve.web.http.request import PUBLIC_BODY


class EarlyAnswerTests(ChannelTestCase):
    """Tests for what is decided when the headers are in."""

    options = {"max_request_size": 1000}

    def test_bad_key_before_the_body(self) -> None:
        """Who announces five gigabytes with a bad key is answered at once, and nothing is kept."""
        for method in (b"POST", b"PUT", b"GET"):
            connection = self.server.connect()
            connection.send(
                method + b" /predictions/m HTTP/1.1\r\nHost: h\r\n"
                b"Authorization: Bearer wrong\r\nContent-Length: 5000000000\r\n\r\n"
            )
            self.assertEqual(self.statuses(connection), [400])
            self.assertIn(b"InvalidKeyException", connection.received)
            self.assertIn(b"Connection: close", connection.received)

    def test_no_continue_for_a_bad_key(self) -> None:
        """A client which waits for permission to send its body gets the refusal instead."""
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 10\r\n%s\r\n"
        self.connection.send(head % b"")
        self.assertEqual(self.statuses(), [400])

    def test_no_continue_without_a_body(self) -> None:
        """Nor is a client with a bad key told to go on if it announces no body at all."""
        for more in (b"", b"Content-Length: 0\r\n"):
            connection = self.server.connect()
            connection.send(b"GET /ping HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n" + more + b"\r\n")
            connection.send(self.predict(b"smuggled"))
            self.assertEqual(self.statuses(connection), [400])

    def test_continue(self) -> None:
        """A client which may send its body is told to go on."""
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n%s\r\n"
        self.connection.send(head % self.bearer())
        self.assertEqual(self.statuses(), [100])
        self.connection.send(b"hello")
        self.assertEqual(self.statuses(), [100, 200])

    def test_other_expectations(self) -> None:
        """Any other expectation cannot be met."""
        self.connection.send(self.predict(b"x", b"Expect: miracles\r\n"))
        self.assertEqual(self.statuses(), [417])

    def test_too_large(self) -> None:
        """A body over the limit is refused by its length, with JSON that says so; one at the limit is not."""
        self.connection.send(self.predict(b"x" * 1000))
        self.assertEqual(self.statuses(), [200])
        self.connection.send(self.predict(b"x" * 1001)[:300])
        self.assertEqual(self.statuses(), [200, 413])
        self.assertIn(b"1000 bytes", self.connection.received)
        self.assertIn(b'"code": 413', self.connection.received)

    def test_too_large_on_every_listener(self) -> None:
        """The limit holds for management and metrics, too."""
        for role, path, kind in (
            (Role.MANAGEMENT, b"/models", TokenKind.MANAGEMENT),
            (Role.METRICS, b"/metrics", TokenKind.API),
        ):
            connection = self.server.connect(role)
            connection.send(
                b"POST " + path + b" HTTP/1.1\r\nHost: h\r\n" + self.bearer(kind) + b"Content-Length: 1001\r\n\r\n"
            )
            self.assertEqual(self.statuses(connection), [413])

    def test_chunks_past_the_limit(self) -> None:
        """A chunked body is refused when it passes the limit; what follows is dropped."""
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n%s\r\n" % self.bearer()
        self.connection.send(head)
        for _ in range(30):
            self.connection.send(b"32\r\n" + b"x" * 50 + b"\r\n")
        self.connection.send(b"0\r\n\r\n")
        self.assertEqual(self.statuses(), [413])
        self.assertEqual(self.server.provider.workers[0].batches, [])

    def test_chunks_past_the_limit_at_once(self) -> None:
        """The same if all of it comes at once."""
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n%s\r\n" % self.bearer()
        self.connection.send(head + b"32\r\n%s\r\n" % (b"x" * 50) * 30 + b"0\r\n\r\n" + self.predict(b"smuggled"))
        self.assertEqual(self.statuses(), [413])

    def test_chunks(self) -> None:
        """A chunked body within the limit is the body."""
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n%s\r\n" % self.bearer()
        self.connection.send(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        self.assertEqual((self.statuses(), self.body()), ([200], b"abcde"))

    def test_what_follows_is_dropped(self) -> None:
        """Nothing that comes after an early answer is taken for a request."""
        refused = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n"
        self.connection.send(refused + self.predict(b"smuggled"))
        self.connection.send(self.predict(b"smuggled"))
        self.assertEqual(self.statuses(), [400])
        self.assertEqual(self.server.provider.workers[0].batches, [])

    def test_endless_body(self) -> None:
        """A client which goes on sending after the answer is read from no more, and cut off after a while."""
        self.connection.send(b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n")
        piece = b"x" * 65536
        for _ in range(LINGER_BYTES // len(piece)):
            self.connection.send(piece)
        self.assertEqual(self.connection.unread, 0)
        self.connection.send(piece * 2)
        self.connection.send(piece)
        self.assertEqual(self.connection.unread, len(piece))
        # Being cut off now, it might lose the answer that it has not read.
        self.server.advance(LINGER_SECONDS - 0.1)
        self.assertTrue(self.connection.open)
        self.server.advance(0.1)
        self.assertFalse(self.connection.open)

    def test_silent_after_refusal(self) -> None:
        """A client which stays after the answer without closing is cut off after a while."""
        self.connection.send(b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        self.server.advance(LINGER_SECONDS)
        self.assertFalse(self.connection.open)


class PublicBodyTests(ChannelTestCase):
    """Tests for bodies from clients which have no token."""

    def post(self, path: bytes, body: bytes, chunked: bool = False, role: Role = Role.INFERENCE) -> MemoryConnection:
        connection = self.server.connect(role)
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
        data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
        connection.send(b"POST " + path + b" HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n" + data)
        return connection

    def test_large(self) -> None:
        """Nobody without a token can make the server keep more than a little, however it is sent."""
        for role, path in ((Role.INFERENCE, b"/livez"), (Role.MANAGEMENT, b"/api-description"), (Role.METRICS, b"/x")):
            for chunked in (False, True):
                connection = self.post(path, b"x" * (PUBLIC_BODY + 1), chunked, role)
                self.assertEqual(self.statuses(connection), [413])
                self.assertIn(b"an open path takes, which is 8192 bytes", connection.received)

    def test_small(self) -> None:
        """A little does no harm."""
        for chunked in (False, True):
            self.assertEqual(self.statuses(self.post(b"/api-description", b"x" * PUBLIC_BODY, chunked)), [200])

    def test_without_tokens(self) -> None:
        """Where no tokens are needed at all, bodies may be as large as configured."""
        self.server = MemoryServer({"disable_token_authorization": True}, models={"m": {}})
        self.addCleanup(self.server.close)
        self.assertEqual(self.statuses(self.post(b"/predictions/m", b"x" * 100_000)), [200])
