# SPDX-License-Identifier: Apache-2.0
"""Streams to clients that read slowly, or not at all, against the whole server in memory."""

from __future__ import annotations

from tests.web.routes.inference_case import HeldTestCase
from twisted_serve.assembly.server import UNSENT_CHUNKS
from twisted_serve.wire.messages import Item


class SlowReaderTests(HeldTestCase):
    """Streams whose client does not read."""

    options = {"body_timeout": 20, "max_response_size": 1000}

    def setUp(self) -> None:
        super().setUp()
        self.connection, self.worker, job = self.held("HTTP/1.1")
        self.request_id = job.request_id
        self.chunk(b"one ")

    def chunk(self, body: bytes) -> None:
        self.worker.chunk(Item(self.request_id, 200, "", {}, body))

    def test_pause(self) -> None:
        """While a client does not read its handler is held up; when it reads again, all comes."""
        self.connection.stop_reading()
        self.assertEqual(self.worker.paused, {self.request_id})
        # What was under way arrives.
        self.chunk(b"two ")
        self.server.advance(19.9)
        self.connection.read_on()
        self.assertEqual(self.worker.paused, set())
        self.server.advance(100)
        self.connection.stop_reading()
        self.server.advance(19.9)
        self.connection.read_on()
        self.chunk(b"three ")
        self.worker.answer([Item(self.request_id, 200, "", {}, b"end")])
        self.assertTrue(self.connection.received.endswith(b"4\r\ntwo \r\n6\r\nthree \r\n3\r\nend\r\n0\r\n\r\n"))
        self.assertTrue(self.connection.open)

    def test_stuck_client(self) -> None:
        """A client which never reads on is cut after the limit, and its handler told."""
        self.connection.stop_reading()
        self.server.advance(19.9)
        self.assertTrue(self.connection.open)
        self.server.advance(0.2)
        self.assertFalse(self.connection.open)
        self.assertEqual(self.worker.cancelled, [self.request_id])

    def test_deaf_handler(self) -> None:
        """A worker which sends on and on, whatever it is told, does not fill the server's memory."""
        self.connection.stop_reading()
        before = len(self.connection.received)
        sent = 0
        while self.connection.open:
            self.chunk(bytes(1000))
            sent += 1000
            self.assertLess(sent, UNSENT_CHUNKS + 10_000)
        self.assertLess(len(self.connection.received) - before, UNSENT_CHUNKS + 50_000)
        self.assertEqual(self.worker.cancelled, [self.request_id])

    def test_last_answer(self) -> None:
        """The end of a stream is kept for a client that still has to read, for as long as any answer."""
        self.connection.stop_reading()
        self.worker.answer([Item(self.request_id, 200, "", {}, b"end")])
        self.connection.read_on()
        self.assertTrue(self.connection.received.endswith(b"3\r\nend\r\n0\r\n\r\n"))
        self.assertTrue(self.connection.open)
        self.assertEqual(self.connection.get("/livez"), 200)

    def test_client_leaves(self) -> None:
        """A client which leaves instead of reading on is forgotten."""
        self.connection.stop_reading()
        self.connection.leave()
        self.assertEqual(self.worker.cancelled, [self.request_id])
