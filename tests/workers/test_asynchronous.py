# SPDX-License-Identifier: Apache-2.0
"""Tests for pools of asynchronous workers, which run many requests concurrently, in virtual time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from twisted_serve.errors import RequestTimeout, ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.in_flight import CANCEL_TIME
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.wire.messages import Item, Job, Part

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


def job(request_id: str) -> Job:
    return Job(request_id, {}, [Part("body", "", request_id.encode())])


class AsynchronousTests(SynchronousTestCase):
    """A pool with fake workers that hold their batches until told otherwise."""

    def make(self, workers: int = 1, **settings: Any) -> None:
        self.clock = Clock()
        self.provider = FakeProvider(self.clock)
        self.provider.holding = True
        ids = count(9000)
        spec = worker_spec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 120.0, asynchronous=True)
        self.pool = Pool(
            spec,
            ModelSettings(**{"min_workers": workers, "max_workers": workers, "asynchronous": True, **settings}),
            self.provider,
            self.clock,
            lambda: EPOCH + timedelta(seconds=self.clock.seconds()),
            worker_ids=lambda: str(next(ids)),
        )
        self.successResultOf(self.pool.start())
        self.addCleanup(self.pool.retire, 0.0)

    def submit(self, *ids: str, **more: Any) -> list[Deferred[Item]]:
        return [self.pool.submit(job(each), **more) for each in ids]

    def test_any_order(self) -> None:
        """Requests go to a worker that has others, and are answered as they finish."""
        self.make()
        [worker] = self.provider.workers
        first, second, third = self.submit("1", "2", "3")
        self.assertEqual([[each.request_id for each in batch] for batch in worker.batches], [["1"], ["2"], ["3"]])
        worker.answer(request_id="2")
        self.assertEqual(self.successResultOf(second).body, b"2")
        self.assertNoResult(first)
        worker.answer(WorkerFailed(503, "Prediction failed"), request_id="1")
        self.failureResultOf(first, WorkerFailed)
        self.assertNoResult(third)
        worker.answer()
        self.successResultOf(third)

    def test_bounded(self) -> None:
        """A worker has at most ``jobQueueSize`` batches; as many more are queued, and the next is refused."""
        self.make(job_queue_size=2)
        [worker] = self.provider.workers
        answers = self.submit("1", "2", "3", "4", "5")
        self.failureResultOf(answers.pop(), ServiceUnavailable)
        self.assertEqual(len(worker.batches), 2)
        self.assertEqual((self.pool.status().running, self.pool.status().pending), (2, 2))
        worker.answer(request_id="2")
        self.assertEqual(len(worker.batches), 3)
        for _ in range(3):
            worker.answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_spread(self) -> None:
        """Of several workers the one with the fewest requests gets the next."""
        self.make(workers=2, job_queue_size=10)
        answers = self.submit("1", "2", "3", "4")
        self.assertEqual([len(worker.batches) for worker in self.provider.workers], [2, 2])
        busy = self.provider.workers[0]
        busy.answer()
        busy.answer()
        answers += self.submit("5", "6")
        self.assertEqual([len(worker.batches) for worker in self.provider.workers], [4, 2])
        for worker in self.provider.workers:
            while worker.busy:
                worker.answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_response_timeout(self) -> None:
        """A request that takes too long is cancelled and fails; the others and the worker continue."""
        self.make(response_timeout=20)
        [worker] = self.provider.workers
        [slow] = self.submit("slow")
        self.clock.advance(15.0)
        [other] = self.submit("other")
        self.clock.advance(5.0)
        error = self.failureResultOf(slow, WorkerFailed).value
        self.assertEqual((error.status, error.message), (500, "The request was not answered within 20 seconds."))
        self.assertEqual(worker.cancelled, ["slow"])
        worker.answer(WorkerFailed(503, "The request was cancelled."), request_id="slow")
        worker.answer(request_id="other")
        self.successResultOf(other)
        self.clock.advance(100.0)
        self.assertTrue(worker.alive)
        [again] = self.submit("again")
        worker.answer()
        self.successResultOf(again)

    def test_stuck(self) -> None:
        """A worker that does not acknowledge a cancellation is replaced."""
        self.make(response_timeout=20)
        [worker] = self.provider.workers
        slow, other = self.submit("slow", "other")
        self.clock.advance(20.0)
        self.failureResultOf(slow, WorkerFailed)
        self.failureResultOf(other, WorkerFailed)
        self.clock.advance(CANCEL_TIME)
        self.assertFalse(worker.alive)
        self.clock.advance(10.0)
        [again] = self.submit("again")
        self.provider.workers[-1].answer()
        self.successResultOf(again)

    def test_worker_dies(self) -> None:
        """When a worker dies all its requests fail, once; queued requests go to its successor."""
        self.make(job_queue_size=2)
        [worker] = self.provider.workers
        first, second, waiting = self.submit("1", "2", "3")
        worker.kill()
        self.failureResultOf(first, WorkerDied)
        self.failureResultOf(second, WorkerDied)
        self.assertEqual(self.pool.status().running, 0)
        self.clock.advance(10.0)
        self.provider.workers[-1].answer()
        self.successResultOf(waiting)

    def test_client_leaves(self) -> None:
        """A request is cancelled when its client disconnects; its place is free when the worker has answered."""
        self.make(job_queue_size=1)
        [worker] = self.provider.workers
        gone, waiting = self.submit("gone", "waiting")
        gone.addErrback(lambda _: None).cancel()
        self.assertEqual(worker.cancelled, ["gone"])
        self.assertNoResult(waiting)
        worker.answer(WorkerFailed(503, "The request was cancelled."))
        worker.answer()
        self.successResultOf(waiting)

    def test_deadline(self) -> None:
        """A client's deadline concerns only its own request."""
        self.make()
        [worker] = self.provider.workers
        [hasty] = self.submit("hasty", deadline=5.0)
        [patient] = self.submit("patient")
        self.clock.advance(5.0)
        self.failureResultOf(hasty, RequestTimeout)
        self.assertEqual(worker.cancelled, ["hasty"])
        worker.answer(request_id="patient")
        self.successResultOf(patient)

    def test_streams(self) -> None:
        """Streams of several requests at one worker do not affect each other."""
        self.make()
        [worker] = self.provider.workers
        parts: list[tuple[str, bytes]] = []
        answers = self.submit("a", "b", on_chunk=lambda item, _producer: parts.append((item.request_id, item.body)))
        for request_id, body in (("b", b"1"), ("a", b"2"), ("b", b"3")):
            worker.chunk(Item(request_id, 200, "", {}, body))
        self.assertEqual(parts, [("b", b"1"), ("a", b"2"), ("b", b"3")])
        worker.answer()
        worker.answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_drain(self) -> None:
        """A worker that is stopped finishes all its requests."""
        self.make()
        [worker] = self.provider.workers
        first, second = self.submit("1", "2")
        retired = self.pool.retire(30.0)
        worker.answer()
        self.successResultOf(first)
        self.assertTrue(worker.alive)
        worker.answer()
        self.successResultOf(second)
        self.successResultOf(retired)
        self.assertEqual(self.clock.getDelayedCalls(), [])
