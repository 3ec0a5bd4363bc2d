# SPDX-License-Identifier: Apache-2.0
"""Tests for pools of stateful models: the worker and the time of each request of a sequence, in virtual time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from twisted_serve.batching.sequences import SequenceLimits
from twisted_serve.errors import ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.pool import Pool
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.wire.messages import Item, Job, Part

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)

ADVICE = "Please use scale workers API to add workers. If this is a sequence inference, please check"


class SequenceHeadersTests(SynchronousTestCase):
    """The headers that name a request's sequence."""

    def test_named(self) -> None:
        """A request that names its sequence, in any case, is not changed."""
        headers = SequenceHeaders()
        for name in ("ts_request_sequence_id", "Ts_Request_Sequence_ID"):
            job = Job("r", {name: "a", "x": "y"}, [])
            self.assertIs(headers.named(job), job)
            self.assertEqual(headers.sequence_of(job), "a")

    def test_nameless(self) -> None:
        """A request without a name begins a new sequence; both headers are set for its handler."""
        headers = SequenceHeaders("x-sequence", "x-start")
        jobs = [headers.named(Job("r", given, [])) for given in ({}, {"x-sequence": ""}, {"x": "y"})]
        for job in jobs:
            self.assertRegex(job.headers["x-sequence"], "^ts-seq-[0-9a-f-]{36}$")
            self.assertEqual(job.headers["x-start"], "true")
        self.assertEqual(jobs[2].headers["x"], "y")
        self.assertEqual(len({headers.sequence_of(job) for job in jobs}), 3)


class SequencePoolTests(SynchronousTestCase):
    """A pool with fake workers that hold their batches until told otherwise."""

    def make(self, workers: int = 2, limits: SequenceLimits | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.provider = FakeProvider(self.clock)
        self.provider.holding = True
        ids, self.ids = count(9000), count(1)
        sequences = limits or SequenceLimits(sequences=4, waiting=2, idle=10.0, life=100.0)
        self.pool = Pool(
            worker_spec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 120.0),
            ModelSettings(**{"min_workers": workers, "max_workers": workers, "sequences": sequences, **settings}),
            self.provider,
            self.clock,
            lambda: EPOCH + timedelta(seconds=self.clock.seconds()),
            worker_ids=lambda: str(next(ids)),
        )
        self.successResultOf(self.pool.start())
        self.addCleanup(self.pool.retire, 0.0)

    def submit(self, sequence: str) -> Deferred[Item]:
        headers = {"ts_request_sequence_id": sequence}
        return self.pool.submit(Job(f"{sequence}{next(self.ids)}", headers, [Part("body", "", b"")]))

    def running(self) -> list[list[str]]:
        """The requests at each worker."""
        return [[job.request_id for job in worker.batches[-1]] if worker.busy else [] for worker in self.provider.alive]

    def test_sticks(self) -> None:
        """The requests of a sequence go to one worker, one at a time and in order, while others go elsewhere."""
        self.make()
        answers = [self.submit(name) for name in ("a", "a", "b", "a")[:3]]
        self.assertEqual(sorted(self.running()), [["a1"], ["b3"]])
        [home] = [worker for worker in self.provider.workers if worker.batches[0][0].request_id == "a1"]
        home.answer()
        self.assertEqual([job.request_id for job in home.batches[-1]], ["a2"])
        home.answer()
        answers.append(self.submit("a"))
        self.assertEqual([job.request_id for job in home.batches[-1]], ["a4"])
        for worker in self.provider.workers:
            worker.answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_batches(self) -> None:
        """A batch has requests of several sequences, one of each."""
        self.make(workers=1, batch_size=3)
        [worker] = self.provider.workers
        answers = [self.submit(name) for name in ("x", "a", "a", "b", "c")]
        worker.answer()
        self.assertEqual(self.running(), [["a2", "b4", "c5"]])
        worker.answer()
        self.assertEqual(self.running(), [["a3"]])
        worker.answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_refused(self) -> None:
        """One sequence, or one queued request of a sequence, too many is refused with TorchServe's text."""
        self.make(workers=1, limits=SequenceLimits(sequences=1, waiting=1))
        [worker] = self.provider.workers
        answers = [self.submit("a"), self.submit("a")]
        for name, why in (
            ("a", "The queue of its sequence is full (1 waiting)."),
            ("b", "as many sequences as there may be (1)"),
        ):
            error = self.failureResultOf(self.submit(name), ServiceUnavailable).value
            self.assertTrue(
                error.message.startswith('Model "m" has no worker to serve inference request. '), error.message
            )
            self.assertIn(why, error.message)
            self.assertIn(ADVICE, error.message)
        worker.answer()
        worker.answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_idle(self) -> None:
        """An idle sequence makes room for another."""
        self.make(workers=1, limits=SequenceLimits(sequences=1, waiting=1, idle=10.0))
        [worker] = self.provider.workers
        first = self.submit("a")
        worker.answer()
        self.successResultOf(first)
        self.clock.advance(9.9)
        self.failureResultOf(self.submit("b"), ServiceUnavailable)
        self.clock.advance(0.1)
        second = self.submit("b")
        worker.answer()
        self.successResultOf(second)

    def test_worker_dies(self) -> None:
        """When a worker is lost its sequences end and queued requests fail; later requests begin anew elsewhere."""
        self.make()
        running, waiting, other = self.submit("a"), self.submit("a"), self.submit("b")
        [home] = [worker for worker in self.provider.workers if worker.batches[0][0].request_id == "a1"]
        home.kill()
        self.failureResultOf(running, WorkerDied)
        self.failureResultOf(waiting, ServiceUnavailable)
        [survivor] = self.provider.alive
        survivor.answer()
        self.successResultOf(other)
        again = self.submit("a")
        self.assertEqual(self.running(), [["a4"]])
        survivor.answer()
        self.successResultOf(again)
        self.clock.advance(10.0)
        self.assertEqual(len(self.provider.alive), 2)
        more = [self.submit(name) for name in ("a", "c")]
        self.assertEqual(sorted(self.running()), [["a5"], ["c6"]])
        for worker in self.provider.alive:
            worker.answer()
        for answer in more:
            self.successResultOf(answer)

    def test_failure(self) -> None:
        """A request whose handler raised is not retried, which would be a second step; the sequence continues."""
        self.make(workers=1, batch_size=2)
        [worker] = self.provider.workers
        answers = [self.submit(name) for name in ("x", "a", "b")]
        worker.answer()
        worker.answer(WorkerFailed(503, "Prediction failed"))
        self.assertEqual(len(worker.batches), 2)
        for answer in answers[1:]:
            self.failureResultOf(answer, WorkerFailed)
        self.successResultOf(answers[0])
        again = self.submit("a")
        worker.answer()
        self.successResultOf(again)

    def test_scaled_away(self) -> None:
        """A stopped worker finishes its batch; queued requests of its sequences fail."""
        self.make()
        running, waiting = self.submit("a"), self.submit("a")
        [home] = [worker for worker in self.provider.workers if worker.batches]
        self.pool.scale(0, 0)
        self.failureResultOf(waiting, ServiceUnavailable)
        home.answer()
        self.successResultOf(running)
        self.assertEqual(self.provider.alive, [])
