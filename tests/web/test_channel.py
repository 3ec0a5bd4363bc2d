# SPDX-License-Identifier: Apache-2.0
"""
Connections: limits, deadlines, early answers, order; byte by byte, against the whole server in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from unittest.mock import patch
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.assembly import LAST_ANSWERS
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.logs import ACCESS_LOG
from twisted_serve.testing.server import MemoryConnection, MemoryServer, Role
from twisted_serve.web.channel import LINGER_BYTES, LINGER_SECONDS
from twisted_serve.web.request import PUBLIC_BODY


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


class KeepAliveTests(ChannelTestCase):
    """Tests for connections which go on."""

    def test_one_after_the_other(self) -> None:
        """A connection takes one request after the other."""
        for i in range(3):
            self.connection.send(self.predict(b"body %d" % i))
            self.assertEqual(self.body(), b"body %d" % i)
        self.assertEqual(self.statuses(), [200, 200, 200])
        self.assertIn(b"Connection: keep-alive", self.connection.received)
        self.assertTrue(self.connection.open)

    def test_pipelining(self) -> None:
        """Requests which are sent at once are answered in their order, each with its own id."""
        self.connection.send(b"".join(self.predict(b"<%d>" % i) for i in range(5)))
        received = self.connection.received
        self.assertEqual(self.statuses(), [200] * 5)
        positions = [received.index(b"<%d>" % i) for i in range(5)]
        self.assertEqual(positions, sorted(positions))
        ids = [line for line in received.split(b"\r\n") if line.lower().startswith(b"x-request-id")]
        self.assertEqual(len(set(ids)), 5)

    def test_pipelining_with_slow_workers(self) -> None:
        """A request behind one whose worker is slow waits for its turn."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        self.connection.send(self.predict(b"<0>") + self.predict(b"<1>"))
        self.assertEqual(self.statuses(), [])
        worker.answer()
        self.assertEqual(self.statuses(), [200])
        worker.answer()
        self.assertEqual(self.statuses(), [200, 200])
        self.assertLess(self.connection.received.index(b"<0>"), self.connection.received.index(b"<1>"))

    def test_errors_close(self) -> None:
        """After an error the connection is closed, and says so."""
        self.connection.send(b"GET /nowhere HTTP/1.1\r\nHost: h\r\n" + self.bearer() + b"\r\n")
        self.assertEqual(self.statuses(), [404])
        self.assertIn(b"Connection: close", self.connection.received)
        self.assertFalse(self.connection.open)

    def test_close_is_honoured(self) -> None:
        """A client which asks for the connection to be closed gets that."""
        self.connection.send(self.predict(b"x", b"Connection: close\r\n"))
        self.assertEqual(self.statuses(), [200])
        self.assertIn(b"Connection: close", self.connection.received)
        self.assertFalse(self.connection.open)

    def test_http_1_0(self) -> None:
        """An HTTP/1.0 client gets a closed connection, or an open one if it asks."""
        request = self.predict(b"x").replace(b"HTTP/1.1", b"HTTP/1.0")
        self.connection.send(request)
        self.assertFalse(self.connection.open)
        other = self.server.connect()
        for _ in range(2):
            other.send(request.replace(b"Host: h", b"Connection: Keep-Alive"))
        self.assertTrue(other.open)
        self.assertEqual(other.received.count(b" 200 "), 2)
        self.assertIn(b"Connection: keep-alive", other.received)

    def test_head(self) -> None:
        """HEAD has the head of the answer and no body."""
        self.connection.send(b"HEAD /ping HTTP/1.1\r\nHost: h\r\n" + self.bearer() + b"\r\n")
        self.assertTrue(self.connection.received.endswith(b"\r\n\r\n"))
        self.assertEqual(self.statuses(), [200])

    @given(st.lists(st.integers(1, 60), max_size=12))
    def test_any_cutting(self, sizes: list[int]) -> None:
        """However the bytes of a request are cut on their way, it is the same request."""
        data = self.predict(b"hello")
        connection = self.server.connect()
        for size in sizes:
            connection.send(data[:size])
            data = data[size:]
        if data:
            connection.send(data)
        self.assertEqual(self.statuses(connection), [200])
        self.assertTrue(connection.received.endswith(b"hello"))


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


class MalformedTests(ChannelTestCase):
    """Tests for what is not HTTP."""

    def test_malformed(self) -> None:
        """What cannot be read as HTTP is answered with 400 and closed; nothing after it is read."""
        for data in (
            b"nonsense\r\n\r\n",
            b"GET /ping\r\n\r\n",
            b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET /ping HTTP/1.1\r\nBad Name: x\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
            b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
            b"GET /ping HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
            b"GET /ping HTTP/1.1\r\n" + b"X-Header: aaaaaaaaaaaaaaaa\r\n" * 1000 + b"\r\n",
            b"GET /ping HTTP/1.1\r\n" + b"X: a\r\n" * 501 + b"\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 9000,
        ):
            connection = self.server.connect()
            connection.send(data)
            connection.send(self.predict(b"smuggled"))
            self.assertEqual(self.statuses(connection), [400], data[:80])
            self.assertIn(b"Invalid HTTP message.", connection.received, data[:80])
        self.assertEqual(self.server.provider.workers[0].batches, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_malformed_is_recorded(self) -> None:
        """What is no HTTP has an id in its answer, a line in the access log, and its place in the counter."""
        with capturedLogs() as events:
            self.connection.send(b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n")
        [line] = [event["line"] for event in events if event.get("logger_name") == ACCESS_LOG]
        self.assertTrue(line.endswith(' "- - -" 400 0'), line)
        head = self.connection.received.partition(b"\r\n\r\n")[0].lower()
        UUID(re.findall(rb"x-request-id: (\S+)", head)[0].decode())
        counted = self.server.request("GET", "/metrics").body
        self.assertIn(b'ts_answers_total{code_class="4xx",} 1.0', counted)

    def test_too_much_is_recorded(self) -> None:
        """So has a body that is too large, and an expectation that cannot be met."""
        for more, status in ((b"Content-Length: 99999999\r\n", 413), (b"Expect: x\r\nContent-Length: 1\r\n", 417)):
            connection = self.server.connect()
            with capturedLogs() as events:
                connection.send(b"POST /predictions/m HTTP/1.1\r\nHost: h\r\n" + self.bearer() + more + b"\r\n")
            [line] = [event["line"] for event in events if event.get("logger_name") == ACCESS_LOG]
            self.assertIn(f'"POST /predictions/m HTTP/1.1" {status} ', line)
            head, _, body = connection.received.partition(b"\r\n\r\n")
            UUID(re.findall(rb"x-request-id: (\S+)", head.lower())[0].decode())
            self.assertEqual(json.loads(body)["code"], status)
        self.assertIn(b'ts_answers_total{code_class="4xx",} 2.0', self.server.request("GET", "/metrics").body)

    def test_bad_chunks(self) -> None:
        """A chunked body which is malformed is answered with 400."""
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n%s\r\n" % self.bearer()
        self.connection.send(head + b"zz\r\nabc\r\n")
        self.assertEqual(self.statuses(), [400])

    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        """No bytes make the server stumble."""
        connection = self.server.connect()
        connection.send(data)
        connection.send(b"\r\n\r\n")
        connection.leave()
        self.assertEqual(self.flushLoggedErrors(), [])


class DeadlineTests(ChannelTestCase):
    """Tests for slow clients."""

    options = {"header_timeout": 10, "body_timeout": 20, "keepalive_timeout": 40}

    def drip(self, data: bytes, seconds: float) -> None:
        for i in range(len(data)):
            if not self.connection.open:
                return
            self.connection.send(data[i : i + 1])
            self.server.advance(seconds)

    def test_slow_head(self) -> None:
        """A head that comes byte by byte is cut off when its time is over."""
        self.drip(b"GET /ping HTTP/1.1\r\n" + b"X: " + b"a" * 1000, 1)
        self.assertFalse(self.connection.open)
        self.assertLess(self.server.clock.seconds(), 15)

    def test_slow_body(self) -> None:
        """A body that comes byte by byte is answered with 408 when its time is over."""
        self.connection.send(self.predict(b"x" * 1000)[:-1000])
        self.drip(b"x" * 1000, 1)
        self.assertEqual(self.statuses(), [408])
        self.assertLess(self.server.clock.seconds(), 30)

    def test_silent_connection(self) -> None:
        """A connection on which nothing is ever sent is closed."""
        self.server.advance(40)
        self.assertFalse(self.connection.open)

    def test_idle_after_a_request(self) -> None:
        """A connection may be silent for a while between requests, and not longer."""
        self.connection.send(self.predict(b"x"))
        self.server.advance(39)
        self.connection.send(self.predict(b"x"))
        self.assertEqual(self.statuses(), [200, 200])
        self.server.advance(40)
        self.assertFalse(self.connection.open)

    def test_slow_worker(self) -> None:
        """No deadline of the client's runs while a worker has the request."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        self.connection.send(self.predict(b"x"))
        self.server.advance(100)
        worker.answer()
        self.assertEqual(self.statuses(), [200])

    def test_no_timer_left(self) -> None:
        """When a client leaves, nothing of it stays behind."""
        timers = len(self.server.clock.getDelayedCalls())
        for data in (b"", b"GET /ping HT", self.predict(b"abc")[:-1], self.predict(b"abc"), b"nonsense\r\n\r\n"):
            connection = self.server.connect()
            connection.send(data)
            connection.leave()
        self.connection.leave()
        self.assertLessEqual(len(self.server.clock.getDelayedCalls()), timers)
        self.assertEqual(self.server.server.site_of(Role.INFERENCE).channels, set())


class LeavingTests(ChannelTestCase):
    """Tests for clients which leave."""

    def test_while_waiting(self) -> None:
        """A request whose client leaves while it waits never reaches a worker."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        self.connection.send(self.predict(b"first"))
        other = self.server.connect()
        other.send(self.predict(b"second"))
        other.leave()
        worker.answer()
        self.assertEqual(len(worker.batches), 1)
        self.assertEqual(self.statuses(), [200])

    def test_at_the_worker(self) -> None:
        """The worker is told of a client which leaves while it works, and its answer is dropped."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        self.connection.send(self.predict(b"x"))
        self.connection.leave()
        self.assertEqual(len(worker.cancelled), 1)
        worker.answer()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_change_goes_on(self) -> None:
        """A registration whose client leaves is finished all the same."""
        self.server.add_model("n", {})
        self.server.provider.load_delay = 5
        connection = self.server.connect(Role.MANAGEMENT)
        connection.send(
            b"POST /models?url=n&initial_workers=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
            + self.bearer(TokenKind.MANAGEMENT)
            + b"\r\n"
        )
        connection.leave()
        self.server.advance(5)
        answer = self.server.request("GET", "/models/n", self.server.key(TokenKind.MANAGEMENT))
        self.assertEqual([worker["status"] for worker in answer.json[0]["workers"]], ["READY"])

    def test_failed_change(self) -> None:
        """A registration whose client has left and which fails is in the log."""
        self.server.add_model("n", {})
        self.server.provider.load_delay = None
        connection = self.server.connect(Role.MANAGEMENT)
        head = b"POST /models?url=n&initial_workers=1 HTTP/1.1\r\nHost: h\r\n%s\r\n"
        connection.send(head % self.bearer(TokenKind.MANAGEMENT))
        connection.leave()
        with capturedLogs() as events:
            self.server.provider.workers[-1].fail_to_load(WorkerFailed(500, "No luck."))
        self.assertIn("A change whose client had left failed", " ".join(str(formatEvent(event)) for event in events))


class DefectTests(ChannelTestCase):
    """Tests for defects in what answers."""

    def render(self, render: Callable[[Any], bytes]) -> None:
        with patch.object(self.server.server.site_of(Role.INFERENCE).resource, "render", render):
            self.connection.send(b"GET /livez HTTP/1.1\r\n\r\n")

    def test_before_the_answer(self) -> None:
        """A client whose request meets a defect is told so, and no more; the log has the rest."""

        def render(request: Any) -> bytes:
            raise ZeroDivisionError("a secret")

        self.render(render)
        self.assertEqual(self.statuses(), [500])
        self.assertNotIn(b"secret", self.connection.received)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_within_the_answer(self) -> None:
        """An answer that has begun is broken off, and not ended as if it were whole."""

        def render(request: Any) -> bytes:
            request.write(b"half")
            raise ZeroDivisionError

        self.render(render)
        self.assertTrue(self.connection.received.endswith(b"half\r\n"))
        self.assertFalse(self.connection.open)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ShutdownTests(ChannelTestCase):
    """Tests for connections when the server stops."""

    def test_answered_before_the_end(self) -> None:
        """What is being answered is finished before the server stops; idle connections are closed at once."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        idle = self.server.connect()
        self.connection.send(self.predict(b"x"))
        stopped = self.server.server.stopService()
        self.assertNoResult(stopped)
        self.assertFalse(idle.open)
        self.assertFalse(self.server.key_file.exists())
        worker.answer()
        self.assertEqual(self.statuses(), [200])
        self.server.advance(10)
        self.successResultOf(stopped)
        self.assertFalse(self.connection.open)
        self.assertEqual(list(self.server.directory.glob("twisted_serve-*")), [])
        self.assertIn(b"Connection: close\r\n", self.connection.received)

    def test_half_a_request(self) -> None:
        """Who is in the middle of sending a request may send the rest, and is told; not for long, though."""
        whole = self.predict(b"x" * 10)
        in_head, in_body, slow = (self.server.connect() for _ in range(3))
        in_head.send(whole[:3])
        in_body.send(whole[:-5])
        slow.send(whole[:-5])
        stopped = self.server.server.stopService()
        self.assertNoResult(stopped)
        for connection, rest in ((in_head, whole[3:]), (in_body, whole[-5:])):
            connection.send(rest)
            self.assertEqual(self.statuses(connection), [503])
            self.assertIn(b"Connection: close\r\n", connection.received)
            self.assertFalse(connection.open)
        self.assertNoResult(stopped)
        self.server.advance(LAST_ANSWERS)
        self.successResultOf(stopped)
        self.assertFalse(slow.open)
        self.assertEqual(slow.received, b"")


class ShutdownDelayTests(ChannelTestCase):
    """Tests for a server that is unready for a while before it stops."""

    options = {"shutdown_delay": 10}

    def setUp(self) -> None:
        super().setUp()
        self.site = self.server.server.site_of(Role.INFERENCE)
        self.request = self.predict(b"x")
        self.stopped = self.server.server.stopService()

    def assertServing(self) -> None:
        """New connections are taken, predictions answered, and whoever asks is told to go elsewhere."""
        self.assertEqual(MemoryConnection(self.site).get("/readyz"), 503)
        self.assertEqual(MemoryConnection(self.site).get("/livez"), 200)
        connection = MemoryConnection(self.site)
        connection.send(self.request)
        self.assertEqual(self.statuses(connection), [200])
        self.assertTrue(connection.open)
        self.assertTrue(self.server.key_file.exists())

    def test_unready_and_serving(self) -> None:
        """It serves until the time is over; then it stops as ever."""
        self.assertServing()
        self.server.advance(9.9)
        self.assertServing()
        self.assertNoResult(self.stopped)
        self.server.advance(0.1)
        self.assertFalse(self.server.key_file.exists())
        self.server.advance(LAST_ANSWERS)
        self.successResultOf(self.stopped)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_hurry(self) -> None:
        """Who is in a hurry does not wait for that."""
        self.assertServing()
        self.server.server.hurry()
        self.successResultOf(self.stopped)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])


class HostTests(ChannelTestCase):
    """Tests for what clients call us."""

    def test_any_name(self) -> None:
        """No ``Host`` makes a difference, or a line in the log: none at all, one which is no name, or several."""
        for host in (
            b"",
            b"Host: \xff\r\n",
            b"Host: a..b\r\n",
            b"Host: " + b"a" * 70 + b"\r\n",
            b"Host: [::\r\n",
            b"Host:\r\n",
        ):
            for method in (b"GET", b"POST"):
                connection = self.server.connect()
                connection.send(method + b" /ping HTTP/1.1\r\n" + host + self.bearer() + b"Content-Length: 1\r\n\r\nx")
                self.assertEqual(self.statuses(connection), [200], host)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unix(self) -> None:
        """A client on a UNIX socket need not send one, not even in HTTP/1.1."""
        transport = StringTransport(hostAddress=UNIXAddress("/s"), peerAddress=UNIXAddress(None))
        channel = self.server.server.site_of(Role.INFERENCE).buildProtocol(UNIXAddress(None))
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /livez HTTP/1.1\r\n\r\n")
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 OK\r\n"))
        channel.connectionLost()


class PersistenceTests(ChannelTestCase):
    """Tests for which connections go on, and that they say so."""

    def test_close_in_a_list(self) -> None:
        """A client which says close, in whatever list of options, gets one answer, and is told that it is the last."""
        for options in (
            b"close",
            b"Close",
            b"close, TE",
            b"TE,close",
            b"keep-alive, close",
            b"TE\r\nConnection: close",
        ):
            connection = self.server.connect()
            connection.send(b"GET /livez HTTP/1.1\r\nConnection: " + options + b"\r\n\r\nGET /livez HTTP/1.1\r\n\r\n")
            self.assertEqual(self.statuses(connection), [200], options)
            self.assertIn(b"Connection: close\r\n", connection.received)
            self.assertNotIn(b"keep-alive", connection.received)

    def test_old_client(self) -> None:
        """An HTTP/1.0 client that has not asked is told that the connection ends."""
        self.connection.send(b"GET /livez HTTP/1.0\r\n\r\n")
        self.assertIn(b"Connection: close\r\n", self.connection.received)
        self.assertNotIn(b"keep-alive", self.connection.received)

    def test_old_client_with_chunks(self) -> None:
        """After chunks in HTTP/1.0, whose end somebody on the way may see elsewhere, nothing is taken for a request."""
        head = b"POST /predictions/m HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n%s\r\n"
        self.connection.send(head % self.bearer() + b"1\r\nx\r\n0\r\n\r\n" + self.predict(b"smuggled"))
        self.assertEqual(self.connection.received.count(b"HTTP/1."), 1)
        self.assertIn(b" 200 OK", self.connection.received)
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


class UnreadAnswersTests(ChannelTestCase):
    """Tests for clients which send, and do not read."""

    options = {"keepalive_timeout": 40, "body_timeout": 100}

    def test_no_more_is_answered(self) -> None:
        """As long as a client leaves its answers, no request of it is answered, whether it has come already or not."""
        request = b"GET /livez HTTP/1.1\r\n\r\n"
        self.connection.stop_reading()
        self.connection.send(request * 1000)
        self.connection.send(request * 1000)
        self.assertLess(len(self.statuses()), 3)
        self.connection.read_on()
        self.assertEqual(self.statuses(), [200] * 2000)

    def test_after_a_slow_worker(self) -> None:
        """The same for what comes while a worker has the request."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        self.connection.send(self.predict(b"x") + b"GET /livez HTTP/1.1\r\n\r\n" * 10)
        self.connection.stop_reading()
        worker.answer()
        self.assertEqual(self.statuses(), [200])
        self.connection.read_on()
        self.assertEqual(self.statuses(), [200] * 11)

    def test_slow_reader(self) -> None:
        """A client which is still taking an answer is not silent: it has as long as for a body."""
        self.connection.send(b"GET /livez HTTP/1.1\r\n\r\n")
        self.connection.stop_reading()
        self.server.advance(40)
        self.server.advance(99)
        self.assertTrue(self.connection.open)
        self.server.advance(1)
        self.assertFalse(self.connection.open)

    def test_reads_on(self) -> None:
        """A client which has taken its answer at last can go on."""
        self.connection.send(b"GET /livez HTTP/1.1\r\n\r\n")
        self.connection.stop_reading()
        self.server.advance(100)
        self.connection.read_on()
        self.connection.send(b"GET /livez HTTP/1.1\r\n\r\n")
        self.assertEqual(self.statuses(), [200, 200])

    def test_never_reads_the_last(self) -> None:
        """Neither can a client hold a connection open for ever by leaving its last answer."""
        transport = StringTransport()
        channel = self.server.server.site_of(Role.INFERENCE).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(transport.producer)
        with patch.object(transport, "abortConnection") as abort:
            self.server.advance(99)
            abort.assert_not_called()
            self.server.advance(1)
            abort.assert_called_once()
        channel.connectionLost()

    def test_at_the_end(self) -> None:
        """When the server stops, nothing keeps what is still to be sent from being sent."""
        transport = StringTransport()
        channel = self.server.server.site_of(Role.INFERENCE).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /livez HTTP/1.1\r\n\r\n")
        stopped = self.server.server.stopService()
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(transport.producer)
        self.assertNoResult(stopped)
        channel.connectionLost()
        self.successResultOf(stopped)
