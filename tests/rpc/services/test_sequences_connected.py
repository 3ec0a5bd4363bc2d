# SPDX-License-Identifier: Apache-2.0
"""Tests for calls of StreamPredictions2 from the wire to the workers of a server in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.rpc.messages import PredictionResponse, PredictionsRequest
from twisted_serve.rpc.methods import INFERENCE
from twisted_serve.testing.fakes import FakeWorker
from twisted_serve.testing.server import MemoryServer
from twisted_serve.wire.messages import Item, Job

CONFIG = """
minWorkers: 1
maxWorkers: 1
sequenceBatching: true
maxNumSequence: 4
maxSequenceJobQueueSize: 2
"""


def asked(data: bytes, sequence: str = "s") -> PredictionsRequest:
    return PredictionsRequest(model_name="m", input={"data": data}, sequence_id=sequence)


class ConnectedTestCase(SynchronousTestCase):
    """A call to a stateful model whose worker answers when the test says so."""

    options: Mapping[str, Any] = {}

    def setUp(self) -> None:
        options = {"disable_token_authorization": True, **self.options}
        self.server = MemoryServer(options, models={"m": {"model-config.yaml": CONFIG}})
        self.addCleanup(self.server.close)
        self.worker.holding = True
        self.connection = self.server.grpc()
        self.begin()

    def begin(self, **how: Any) -> None:
        self.call = self.connection.begin(f"/{INFERENCE}/StreamPredictions2", **how)

    @property
    def worker(self) -> FakeWorker:
        return self.server.provider.workers[-1]

    @property
    def jobs(self) -> list[Job]:
        return [job for batch in self.server.provider.batches for job in batch]

    def answer(self) -> None:
        """Let the worker answer a batch, and the client get it."""
        self.worker.answer()
        self.turn()

    def turn(self) -> None:
        self.server.advance(0)
        self.connection.pump()

    def sent(self) -> list[tuple[str, bytes]]:
        return [(each.sequence_id, each.prediction) for each in self.call.parsed(PredictionResponse)]


class ConversationTests(ConnectedTestCase):
    """Messages and answers."""

    def test_one_by_one(self) -> None:
        """A client that waits for each answer gets each, and the end after its own."""
        for data in (b"1", b"2", b"3"):
            self.call.send(asked(data))
            self.answer()
        self.assertEqual(self.sent(), [("s", b"1"), ("s", b"2"), ("s", b"3")])
        self.assertIsNone(self.call.code)
        self.call.half_close()
        self.turn()
        self.assertEqual(self.call.code, 0)

    def test_all_at_once(self) -> None:
        """A client that sends everything and closes its side gets all answers, in order, and then the end."""
        for number in range(100):
            self.call.send(asked(b"%d" % number), end=number == 99)
        self.turn()
        for _ in range(100):
            self.assertIsNone(self.call.code)
            self.answer()
        self.assertEqual([data for _, data in self.sent()], [b"%d" % number for number in range(100)])
        self.assertEqual(self.call.code, 0)

    def test_held_back(self) -> None:
        """A client that sends more than its sequence takes has to keep it: the server's window is closed."""
        message = asked(b"x" * 10_000)
        for _ in range(50):
            self.call.send(message)
        self.turn()
        self.assertGreater(len(self.call.unsent), 300_000)
        self.assertEqual(len(self.jobs), 1)
        other = self.connection.call(f"/{INFERENCE}/Ping", b"")
        self.assertEqual(other.code, 0)

    def test_reading_stops(self) -> None:
        """A client that does not read holds the handler back, and its own messages; then it gets everything."""
        self.connection.reading = False
        self.call.send(asked(b"1"))
        [job] = self.jobs
        for _ in range(4):
            self.worker.chunk(Item(job.request_id, 200, "", {}, b"x" * 50_000))
        self.turn()
        self.assertEqual(self.worker.paused, {job.request_id})
        self.call.send(asked(b"2", "t"))
        self.turn()
        self.assertEqual(len(self.jobs), 1)
        self.connection.reading = True
        for _ in range(8):
            self.call.read()
            self.turn()
        self.assertEqual(self.worker.paused, set())
        self.answer()
        self.answer()
        self.assertEqual([len(data) for _, data in self.sent()], [50_000] * 4 + [1, 1])

    def test_errors_without_reading(self) -> None:
        """A client that causes errors and reads none has to stop, too: they are not collected."""
        self.connection.reading = False
        message = PredictionsRequest(model_name="n" * 1000, input={"data": b"x" * 1000}, sequence_id="s")
        for _ in range(200):
            self.call.send(message)
            self.turn()
        self.assertGreater(len(self.call.unsent), 20_000)
        self.connection.reading = True
        for _ in range(50):
            self.call.read()
            self.turn()
        self.assertEqual(len(self.call.messages), 200)
        self.assertEqual(self.call.unsent, b"")


class EndTests(ConnectedTestCase):
    """Calls that end before everything is answered."""

    def pending(self) -> int:
        [described] = self.server.request("GET", "/models/m").json
        return int(described["jobQueueStatus"]["pendingRequests"])

    def use(self) -> str:
        """Send messages of which one is at the worker and others are queued or held; return the job at the worker."""
        for number in range(4):
            self.call.send(asked(b"%d" % number))
        self.turn()
        [job] = self.jobs
        self.assertEqual(self.pending(), 1)
        return job.request_id

    def assertFree(self, job: str) -> None:
        self.assertEqual((self.worker.cancelled, self.pending()), ([job], 0))
        self.worker.answer()
        self.turn()
        self.assertEqual((len(self.jobs), self.call.messages), (1, []))

    def test_reset(self) -> None:
        """A client that cancels the call frees worker and queue."""
        job = self.use()
        self.call.cancel()
        self.turn()
        self.assertFree(job)

    def test_disconnected(self) -> None:
        """A client that is gone frees worker and queue."""
        job = self.use()
        self.connection.leave()
        self.turn()
        self.assertFree(job)

    def test_deadline(self) -> None:
        """A call whose deadline passes ends with its code, and frees worker and queue."""
        self.begin(timeout=5)
        job = self.use()
        self.server.advance(5.1)
        self.turn()
        self.assertEqual(self.call.code, 4)
        self.assertFree(job)

    def test_other_calls(self) -> None:
        """A call that is cancelled does not disturb a call of another sequence on its connection."""
        first = self.call
        self.use()
        self.begin()
        self.call.send(asked(b"other", "t"))
        first.cancel()
        self.answer()
        self.answer()
        self.assertEqual(self.sent(), [("t", b"other")])


class TokenTests(ConnectedTestCase):
    """A server with keys."""

    options = {"disable_token_authorization": False}

    def test_refused(self) -> None:
        """A call without a key ends at its headers: no message of it comes to a worker."""
        self.assertEqual(self.call.code, 7)
        self.assertTrue(self.call.text.startswith("Token Authorization failed"))
        self.assertEqual(self.jobs, [])
