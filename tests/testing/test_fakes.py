# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.testing.fakes`."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.specs import worker_spec
from twisted_serve.errors import WorkerDied, WorkerFailed
from twisted_serve.interfaces import IWorker, IWorkerProvider, Placement
from twisted_serve.testing.fakes import FakeProvider, FakeWorker, echo
from twisted_serve.wire.messages import Item, Job, Part, StreamChunk

SPEC = worker_spec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 10.0)
JOBS = [Job("a", {}, [Part("body", "", b"hi")]), Job("b", {}, [])]


def ignore(chunk: StreamChunk) -> None:
    """Ignore a part of a response."""


class FakeProviderTests(SynchronousTestCase):
    """Tests for fake workers in virtual time."""

    def start(self, provider: FakeProvider) -> FakeWorker:
        """Start a worker."""
        worker = provider.start(SPEC, Placement("9000"))
        assert isinstance(worker, FakeWorker)
        return worker

    def test_contract(self) -> None:
        """Fakes fulfil the contracts of what they stand for."""
        provider = FakeProvider(Clock())
        verifyObject(IWorkerProvider, provider)
        verifyObject(IWorker, self.start(provider))

    def test_at_once(self) -> None:
        """Without delays a worker loads and answers immediately."""
        provider = FakeProvider(Clock())
        worker = self.start(provider)
        self.successResultOf(worker.loaded)
        answer = self.successResultOf(worker.run(3, JOBS, ignore))
        self.assertEqual((3, [b"hi", b""]), (answer.batch_id, [item.body for item in answer.items]))
        self.assertEqual([JOBS], provider.batches)
        self.assertFalse(worker.busy)

    def test_delays(self) -> None:
        """With delays a worker takes the given time."""
        clock = Clock()
        provider = FakeProvider(clock, load_delay=2.0, answer_delay=3.0)
        worker = self.start(provider)
        self.assertNoResult(worker.loaded)
        clock.advance(2.0)
        self.successResultOf(worker.loaded)
        answer = worker.run(1, JOBS, ignore)
        self.assertNoResult(answer)
        clock.advance(3.0)
        self.successResultOf(answer)

    def test_holding(self) -> None:
        """A held worker answers when told, with the given response."""
        provider = FakeProvider(Clock())
        worker = self.start(provider)
        worker.holding = True
        chunks: list[StreamChunk] = []
        answer = worker.run(5, JOBS, chunks.append)
        worker.chunk(Item("a", 200, "", {}, b"part"))
        self.assertTrue(worker.busy)
        worker.answer(echo(JOBS))
        worker.answer()
        self.assertEqual(echo(JOBS), self.successResultOf(answer).items)
        self.assertEqual([StreamChunk(5, Item("a", 200, "", {}, b"part"))], chunks)

    def test_errors(self) -> None:
        """It can raise, and fail to load."""
        provider = FakeProvider(Clock(), respond=lambda jobs: WorkerFailed(503, "no"))
        self.failureResultOf(self.start(provider).run(1, JOBS, ignore), WorkerFailed)
        provider.load_error = WorkerFailed(500, "SyntaxError")
        broken = self.start(provider)
        self.failureResultOf(broken.loaded, WorkerFailed)
        self.successResultOf(broken.lost)
        self.assertEqual(1, len(provider.alive))

    def test_death(self) -> None:
        """Dying fails the batches in flight, and a later batch fails immediately."""
        worker = self.start(FakeProvider(Clock(), answer_delay=1.0))
        answer = worker.run(1, JOBS, ignore)
        worker.kill(killed=True)
        worker.kill()
        worker.load()
        self.assertEqual(507, self.failureResultOf(answer, WorkerDied).value.status)
        self.assertEqual("killed", self.successResultOf(worker.lost))
        self.assertRaises(WorkerDied, worker.run, 2, JOBS, ignore)

    def test_stop(self) -> None:
        """Stopped, it finishes its batch within the grace; after that it fails it."""
        clock = Clock()
        for grace, answered in ((5.0, True), (0.5, False), (0.0, False)):
            provider = FakeProvider(clock, answer_delay=1.0)
            worker = self.start(provider)
            outcome = worker.run(1, JOBS, ignore).addErrback(lambda failure: None)
            stopped = worker.stop(grace)
            self.assertRaises(WorkerDied, worker.run, 2, JOBS, ignore)
            clock.advance(1.0)
            self.assertEqual(answered, self.successResultOf(outcome) is not None)
            self.successResultOf(stopped)
            self.successResultOf(worker.stop(1.0))
            self.successResultOf(provider.stop())
            self.assertEqual([], clock.getDelayedCalls())

    def test_stop_provider(self) -> None:
        """A provider that is stopped has no workers."""
        provider = FakeProvider(Clock(), load_delay=None)
        worker = self.start(provider)
        self.successResultOf(provider.stop())
        self.assertEqual([], provider.alive)
        self.failureResultOf(worker.loaded, WorkerFailed)

    def test_misuse(self) -> None:
        """Sending a batch to a worker that is not ready is an error of the caller."""
        worker = self.start(FakeProvider(Clock(), load_delay=None))
        self.assertRaises(AssertionError, worker.run, 1, JOBS, ignore)
        worker.load()
        worker.holding = True
        worker.run(1, JOBS, ignore)
        self.assertRaises(AssertionError, worker.run, 2, JOBS, ignore)
