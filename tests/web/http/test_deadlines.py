# SPDX-License-Identifier: Apache-2.0
"""Connections of clients that take their time, or leave; byte by byte, against the whole server in memory."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent

from tests.web.http.channel_case import ChannelTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import Role


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
        self.drip(b"GET /ping HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 1000, 1)
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
