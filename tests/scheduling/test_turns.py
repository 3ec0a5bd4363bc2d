# SPDX-License-Identifier: Apache-2.0
"""Tests for requests that arrive in one turn of the reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError

from tests.eventloop.test_monotonic import Reactor
from tests.scheduling.pool_bench import Bench, PoolTestCase, job
from twisted_serve.errors import RequestTimeout, ServiceUnavailable


class TurnTests(PoolTestCase):
    """A pool on a reactor, whose turns end when the tests say so."""

    def on_reactor(self, **settings: Any) -> tuple[Bench, Reactor]:
        """Make a pool whose worker is ready and holds its batches."""
        reactor = Reactor()
        bench = Bench(reactor, **settings)
        bench.provider.holding = True
        started = bench.pool.start()
        reactor.runUntilCurrent()
        self.successResultOf(started)
        return bench, reactor

    def sent(self, bench: Bench) -> list[str]:
        """Return the batches that were sent."""
        return ["".join(job.request_id for job in batch) for batch in bench.worker.batches]

    def test_one_batch(self) -> None:
        """The requests of a turn make one batch, although the worker is idle."""
        bench, reactor = self.on_reactor(batch_size=4)
        for name in "abc":
            bench.pool.submit(job(name))
        self.assertEqual(([], 3), (self.sent(bench), bench.pool.status().pending))
        reactor.runUntilCurrent()
        self.assertEqual((["abc"], 0), (self.sent(bench), bench.pool.status().pending))

    def test_full(self) -> None:
        """A batch that is full waits for nothing; the rest of the turn's requests are behind it."""
        bench, reactor = self.on_reactor(batch_size=2)
        for name in "abc":
            bench.pool.submit(job(name))
        self.assertEqual(["ab"], self.sent(bench))
        reactor.runUntilCurrent()
        self.assertEqual((["ab"], 1), (self.sent(bench), bench.pool.status().pending))
        bench.worker.answer()
        self.assertEqual(["ab", "c"], self.sent(bench))

    def test_single(self) -> None:
        """A batch of one request is full."""
        bench, _ = self.on_reactor()
        bench.pool.submit(job("a"))
        self.assertEqual(["a"], self.sent(bench))

    def test_full_queue(self) -> None:
        """An idle worker takes the requests of a queue that is full, so that the turn's next one is not refused."""
        bench, _ = self.on_reactor(batch_size=8, job_queue_size=2)
        answers = [bench.pool.submit(job(name)) for name in "abcd"]
        self.assertEqual((["ab"], 2), (self.sent(bench), bench.pool.status().pending))
        for answer in answers:
            self.assertNoResult(answer)
        self.failed(bench.pool.submit(job("e")), ServiceUnavailable)

    def test_left(self) -> None:
        """A client that leaves within the turn is not in the batch, and an empty batch is not sent."""
        bench, reactor = self.on_reactor(batch_size=4)
        gone, _ = bench.pool.submit(job("a")), bench.pool.submit(job("b"))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        reactor.runUntilCurrent()
        self.assertEqual(["b"], self.sent(bench))
        bench.worker.answer()
        gone = bench.pool.submit(job("c"))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        reactor.runUntilCurrent()
        self.assertEqual(["b"], self.sent(bench))

    def test_worker_lost(self) -> None:
        """The requests of a turn in which the only worker is lost are answered."""
        bench, reactor = self.on_reactor(batch_size=4)
        answer = bench.pool.submit(job("a"))
        retired = bench.pool.retire(0.0)
        reactor.runUntilCurrent()
        self.failed(answer, ServiceUnavailable)
        self.successResultOf(retired)

    def test_deadline(self) -> None:
        """A deadline that is over at the end of the turn is kept."""
        bench, reactor = self.on_reactor(batch_size=4)
        answer = bench.pool.submit(job("a"), deadline=reactor.seconds())
        reactor.runUntilCurrent()
        reactor.runUntilCurrent()
        self.failed(answer, RequestTimeout)
        self.assertEqual([], self.sent(bench))
