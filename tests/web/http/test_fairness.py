# SPDX-License-Identifier: Apache-2.0
"""Tests that one client's bytes do not hold up another's: how much of a read is handled in one turn of the reactor."""

from __future__ import annotations

import tracemalloc
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.web.http.channel_case import ChannelTestCase
from tests.web.routes.management_case import ManagementTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryConnection, MemoryServer
from twisted_serve.web.http.channel import MOST_CHUNKED_AT_ONCE, MOST_REQUESTS_AT_ONCE, ServeChannel

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"


def deliver(connection: MemoryConnection, data: bytes) -> None:
    """Deliver bytes to a connection, and let no turn pass."""
    channel: Any = connection._channel
    channel.dataReceived(data)


class FairnessTestCase(ChannelTestCase):
    """A server whose connections tell when they go on in the next turn of the reactor."""

    def setUp(self) -> None:
        super().setUp()
        self.turns: list[int] = []
        go_on = ServeChannel._resume_reading

        def next_turn(channel: ServeChannel) -> None:
            go_on(channel)
            self.turns.append(len(self.statuses()))

        patched = patch.object(ServeChannel, "_resume_reading", next_turn)
        patched.start()
        self.addCleanup(patched.stop)


class PipelineTests(FairnessTestCase):
    """Tests for many requests in one read."""

    def test_turns(self) -> None:
        """So many are answered in a turn, and the others in the next ones; another client comes in between."""
        other = self.server.connect()
        deliver(self.connection, LIVEZ * (3 * MOST_REQUESTS_AT_ONCE + 1))
        self.turns.append(len(self.statuses()))
        self.assertEqual(other.send(LIVEZ).count(b"HTTP/1.1 200"), 1)
        self.server.advance(0)
        self.assertEqual(self.statuses(), [200] * (3 * MOST_REQUESTS_AT_ONCE + 1))
        self.assertGreaterEqual(len(self.turns), 3)
        for before, after in zip([0, *self.turns], self.turns, strict=False):
            self.assertLessEqual(after - before, MOST_REQUESTS_AT_ONCE + 1)

    def test_not_read_meanwhile(self) -> None:
        """While requests wait for their turn the client's next bytes are left where they are, and are not lost."""
        transport: Any = self.connection._transport
        deliver(self.connection, LIVEZ * (2 * MOST_REQUESTS_AT_ONCE))
        self.assertEqual(transport.producerState, "paused")
        deliver(self.connection, LIVEZ)
        self.assertEqual(transport.producerState, "paused")
        self.server.advance(0)
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(self.statuses(), [200] * (2 * MOST_REQUESTS_AT_ONCE + 1))

    def test_client_leaves(self) -> None:
        """Nothing is left of a client that goes while its requests wait for their turn."""
        deliver(self.connection, LIVEZ * 100)
        calls = len(self.server.clock.getDelayedCalls())
        self.connection.leave()
        self.assertLess(len(self.server.clock.getDelayedCalls()), calls)
        self.server.advance(0)

    def test_stop(self) -> None:
        """A server that stops finishes what it is at, and is not held up by requests that wait."""
        deliver(self.connection, LIVEZ * 100)
        stopped = self.server.server.stopService()
        for _ in range(20):
            self.server.advance(1)
        self.assertTrue(stopped.called)
        self.assertFalse(self.connection.open)

    def test_slow_workers(self) -> None:
        """Predictions are answered one after the other, however many came at once."""
        [worker] = self.server.provider.workers
        worker.holding = True
        self.connection.send(b"".join(self.predict(b"%d" % i) for i in range(40)))
        for i in range(40):
            self.assertEqual(len(self.statuses()), i)
            worker.answer()
            self.server.advance(0)
        self.assertEqual(self.statuses(), [200] * 40)


class ChunkTests(FairnessTestCase):
    """Tests for bodies in chunks."""

    def chunked(self, body: bytes, size: int) -> bytes:
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\n%sTransfer-Encoding: chunked\r\n\r\n" % self.bearer()
        return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    def test_turns(self) -> None:
        """A body of tiny chunks is read in several turns, and is whole; what follows is answered, too."""
        body = bytes(range(256)) * 40
        sent = self.chunked(body, 1)
        deliver(self.connection, sent + LIVEZ)
        self.assertEqual(self.statuses(), [])
        self.server.advance(0)
        self.assertGreaterEqual(len(self.turns), len(sent) // MOST_CHUNKED_AT_ONCE)
        self.assertIn(b"\r\n\r\n" + body, self.connection.received)
        self.assertEqual(self.statuses(), [200, 200])

    def test_large_chunks(self) -> None:
        """What is in one large chunk is taken at once."""
        body = b"a" * (4 * MOST_CHUNKED_AT_ONCE)
        sent = self.chunked(body, len(body))
        deliver(self.connection, sent[:1000])
        deliver(self.connection, sent[1000:-20])
        self.assertFalse(self.connection._channel.has_postponed_read)
        deliver(self.connection, sent[-20:])
        self.assertEqual(self.body(), body)

    def test_memory(self) -> None:
        """A body that comes in many small pieces takes hardly more memory than its bytes."""
        size = 100_000
        channel = self.connection._channel
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n" % (self.bearer(), size)
        channel.dataReceived(head)
        # Two bytes as an object take 35, and 8 in a list.
        pieces = [bytes((number % 256, 1)) for number in range(size // 2 - 1)]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(size // 2 - 1):
            channel.dataReceived(bytes((number % 256, 1)))
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 2 * size)
        tracemalloc.stop()
        channel.dataReceived(b"ab")
        self.assertEqual(self.body(), b"".join(pieces) + b"ab")

    @given(st.integers(1, 40000), st.integers(1, 30000), st.integers(1, 70000))
    def test_any_sizes(self, length: int, size: int, read: int) -> None:
        """However long the body, its chunks and what comes at a time are, the body is whole."""
        body = (b"0123456789" * 4000)[:length]
        connection = self.server.connect()
        sent = self.chunked(body, max(size, length // 2000)) + LIVEZ
        for i in range(0, len(sent), max(read, len(sent) // 50)):
            connection.send(sent[i : i + max(read, len(sent) // 50)])
        self.assertEqual(connection.received.count(b"HTTP/1.1 200"), 2)
        self.assertIn(b"\r\n\r\n" + body, connection.received)

    def test_bad_chunk_after_some(self) -> None:
        """What is no chunk is refused when its turn comes, and nothing after it is answered."""
        sent = self.chunked(b"a" * 20000, 1)
        self.connection.send(sent[: len(sent) // 2] + b"zz\r\n" + LIVEZ)
        self.assertEqual(self.statuses(), [400])
        self.server.advance(60)
        self.assertFalse(self.connection.open)

    def test_too_large(self) -> None:
        """A body of tiny chunks that is too large is refused."""
        self.server.close()
        self.server = MemoryServer({"max_request_size": 5000}, models={"m": {}})
        self.connection = self.server.connect()
        self.connection.send(self.chunked(b"a" * 20000, 1))
        self.assertEqual(self.statuses(), [413])


class LargeFormTests(SynchronousTestCase):
    """Tests for forms that are read in a thread."""

    def setUp(self) -> None:
        self.server = MemoryServer(models={"m": {}})
        self.addCleanup(self.server.close)

    def test_all_routes(self) -> None:
        """A large form reaches the handler on each route as a small one does; an unknown model is 404."""
        key = self.server.key(TokenKind.INFERENCE)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for body in (b"a=%41" + b"b" * 200000, b"a=%41bbb"):
            for path in ("/predictions/m", "/models/m/invoke", "/m/predict", "/invocations", "/v1/models/m:predict"):
                answer = self.server.request("POST", path, key, form, body)
                self.assertEqual((answer.status, answer.body), (200, b"A" + body[5:]), path)
            for path in ("/predictions/none", "/models/none/invoke", "/none/predict", "/wfpredict/none"):
                self.assertEqual(self.server.request("POST", path, key, form, body).status, 404, path)

    def test_bad(self) -> None:
        """A large form that cannot be read is 400."""
        key = self.server.key(TokenKind.INFERENCE)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.server.request("POST", "/predictions/m", key, form, b"a=1&" * 100000)
        self.assertEqual(answer.status, 400)
        self.assertIn("more than 1000 fields", answer.json["message"])


class LargeParametersTests(ManagementTestCase):
    """Tests for the JSON of management calls."""

    def test_too_long(self) -> None:
        """A JSON body that is longer than any parameters is 400, and says how long it may be."""
        body = b'{"url": "m.mar", "x": "' + b"a" * 100000 + b'"}'
        key = self.server.key(TokenKind.MANAGEMENT)
        answer = self.server.request("POST", "/models", key, {"Content-Type": "application/json"}, body)
        self.assertEqual(answer.status, 400)
        self.assertIn("65536", answer.json["message"])
