# SPDX-License-Identifier: Apache-2.0
"""Tests for the number of workers of a pool: as scaled, and as the load demands."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.scheduling.pool_bench import Bench, PoolTestCase, job
from twisted_serve.errors import BadRequest, ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.scheduling.status import BackingOff, GivenUp, ScaleResult
from twisted_serve.wire.messages import Item


class ScaleTests(PoolTestCase):
    """Scaling up and down."""

    def test_up_and_down(self) -> None:
        """Scaling up starts workers, and scaling down stops the newest."""
        bench = self.running()
        up = self.successResultOf(bench.pool.scale(3, 3))
        self.assertEqual(ScaleResult(3, ("9001", "9002"), ()), up)
        down = self.successResultOf(bench.pool.scale(1, 2))
        self.assertEqual(ScaleResult(2, (), ("9002",)), down)
        self.assertEqual(["9000", "9001"], [worker.worker_id for worker in bench.provider.alive])
        self.assertEqual((1, 2), (bench.pool.min_workers, bench.pool.max_workers))

    def test_waits_for_loading(self) -> None:
        """Scaling is done when all new workers have loaded."""
        bench = self.running()
        bench.provider.load_delay = None
        scaled = bench.pool.scale(3, 3)
        self.assertEqual(["READY", "LOADING", "LOADING"], bench.words())
        bench.provider.workers[1].load()
        self.assertNoResult(scaled)
        self.assertFalse(bench.pool.ready())
        bench.provider.workers[2].load()
        self.successResultOf(scaled)
        self.assertTrue(bench.pool.ready())

    def test_first_failure(self) -> None:
        """Scaling fails with the first worker that cannot load, and with its reason."""
        bench = Bench(min_workers=2)
        bench.provider.load_delay = None
        scaled = bench.pool.start()
        bench.provider.workers[1].fail_to_load(WorkerFailed(507, "System out of memory"))
        error = self.failed(scaled, WorkerFailed)
        self.assertEqual((507, "System out of memory"), (error.status, error.message))
        self.assertNoResult(bench.pool.settled)
        bench.provider.workers[0].load()
        self.successResultOf(bench.pool.settled)

    def test_drains(self) -> None:
        """A worker that is scaled down finishes its batch; scaling is done when it is gone."""
        bench = self.running(holding=True, min_workers=2)
        answers = [bench.pool.submit(job(str(n))) for n in range(3)]
        scaled = bench.pool.scale(1, 1)
        self.assertEqual(["READY", "UNLOADING"], bench.words())
        self.assertNoResult(scaled)
        bench.worker.answer()
        self.successResultOf(scaled)
        self.assertEqual(["READY"], bench.words())
        bench.worker.holding = False
        bench.provider.workers[0].answer()
        bench.provider.workers[0].answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_drain_takes_too_long(self) -> None:
        """A worker that exceeds its grace is killed, and its requests fail."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job())
        scaled = bench.pool.scale(0, 0, grace=10.0)
        bench.clock.advance(10.0)
        self.failed(answer, WorkerDied)
        self.successResultOf(scaled)
        self.assertEqual((), bench.pool.status().workers)

    def test_hangs_while_draining(self) -> None:
        """A worker that exceeds the response timeout while it drains is killed immediately."""
        bench = self.running(holding=True, response_timeout=5)
        answer = bench.pool.submit(job())
        scaled = bench.pool.scale(0, 0, grace=100.0)
        bench.clock.advance(5.0)
        self.failed(answer, WorkerDied)
        self.successResultOf(scaled)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_gone_while_draining(self) -> None:
        """A request at a draining worker is cancelled when its client disconnects."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job("1"))
        bench.pool.scale(0, 0)
        answer.addErrback(lambda _: None).cancel()
        self.assertEqual(["1"], bench.worker.cancelled)

    def test_to_nothing(self) -> None:
        """Scaling to zero refuses queued and new requests, and stops all workers."""
        bench = self.running(holding=True)
        running, waiting = bench.pool.submit(job("1")), bench.pool.submit(job("2"), versioned=True)
        bench.pool.scale(0, 0)
        message = self.failed(waiting, ServiceUnavailable).message
        self.assertTrue(message.startswith('Model "m" Version 1.0" has no worker to serve inference request. '))
        self.assertIn("exceeds maxSequenceJobQueueSize. It is scaled to zero workers.", message)
        self.failed(bench.pool.submit(job("3")), ServiceUnavailable)
        bench.worker.answer()
        self.successResultOf(running)
        self.assertEqual([], bench.provider.alive)
        self.assertTrue(bench.pool.healthy())

    def test_impossible_numbers(self) -> None:
        """Impossible bounds are refused before anything changes."""
        bench = self.running()
        error = self.failed(bench.pool.scale(2, 1), BadRequest)
        self.assertEqual("max_worker cannot be less than min_worker.", error.message)
        self.assertIn("-1", self.failed(bench.pool.scale(-1, 1), BadRequest).message)
        self.assertEqual(1, len(bench.provider.alive))

    def test_same_number_revives(self) -> None:
        """Scaling to the current number replaces workers that have given up."""
        bench = self.running(max_retry_timeout=0)
        bench.worker.kill()
        self.assertIsInstance(bench.pool.status().workers[0].status, GivenUp)
        self.failed(bench.pool.submit(job()), ServiceUnavailable)
        result = self.successResultOf(bench.pool.scale(1, 1))
        self.assertEqual(("9000",), result.started)
        self.successResultOf(bench.pool.submit(job()))

    def test_same_number_hurries(self) -> None:
        """Scaling does not wait for a restart that is due later."""
        bench = self.running()
        bench.worker.kill()
        self.assertIsInstance(bench.pool.status().workers[0].status, BackingOff)
        self.successResultOf(bench.pool.scale(1, 1))
        self.assertTrue(bench.pool.ready())

    def test_down_while_waiting_to_retry(self) -> None:
        """A worker that backs off or has given up can be stopped."""
        for window in (0, 300):
            bench = self.running(max_retry_timeout=window)
            bench.worker.kill()
            self.successResultOf(bench.pool.scale(0, 0))
            self.assertEqual([], bench.clock.getDelayedCalls())

    def test_down_while_loading(self) -> None:
        """Stopping a worker that is loading fails the Deferred of its start."""
        bench = Bench()
        bench.provider.load_delay = None
        started = bench.pool.start()
        self.successResultOf(bench.pool.scale(0, 0))
        self.failed(started, WorkerFailed)
        self.successResultOf(bench.pool.settled)

    def test_gpus(self) -> None:
        """Each worker is placed on the GPU that it is assigned."""
        bench = Bench()
        gpus = iter([1, 0])
        bench.pool._next_gpu = lambda: next(gpus)
        self.successResultOf(bench.pool.scale(2, 2))
        self.assertEqual([1, 0], [worker.gpu_id for worker in bench.pool.status().workers])
        self.assertEqual([1, 0], [worker.placement.gpu_id for worker in bench.provider.workers])


class ElasticTests(PoolTestCase):
    """Between the bounds the number of workers follows the load."""

    def elastic(self, least: int = 1, most: int = 4, **settings: Any) -> Bench:
        """Make a pool that starts a worker after 1 s of waiting and stops one after 60 s of idleness."""
        bench = Bench(min_workers=least, max_workers=most, scale_idle_time=60.0, **settings)
        bench.provider.answer_delay = 1.0
        self.successResultOf(bench.pool.start())
        return bench

    def busy(self, bench: Bench, seconds: int, each: int) -> list[Deferred[Item]]:
        """Submit ``each`` requests every second."""
        answers = []
        for second in range(seconds):
            answers += [bench.pool.submit(job(f"{second}.{n}")) for n in range(each)]
            bench.clock.advance(1.0)
        return answers

    def test_up_and_down(self) -> None:
        """Load starts workers, idleness stops them one by one, and every accepted request is answered."""
        bench = self.elastic()
        answers = self.busy(bench, 30, 3)
        self.assertGreaterEqual(len(bench.provider.alive), 3)
        bench.clock.pump([1.0] * 30)
        for answer in answers:
            self.successResultOf(answer)
        bench.clock.pump([1.0] * 100)
        self.assertEqual(1, len(bench.provider.alive))
        self.assertEqual((1, 4), (bench.pool.min_workers, bench.pool.max_workers))
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_steady_load_settles(self) -> None:
        """Under steady load workers are neither started nor stopped."""
        bench = self.elastic()
        self.busy(bench, 30, 2)
        before = len(bench.provider.workers)
        self.busy(bench, 300, 2)
        self.assertEqual(before, len(bench.provider.workers))

    def test_never_beyond_the_most(self) -> None:
        """However great the load is, there are never more than ``max_workers`` workers."""
        bench = self.elastic(most=3, job_queue_size=50)
        for answer in self.busy(bench, 60, 9):
            answer.addErrback(lambda _: None)
        self.assertEqual(3, len(bench.provider.alive))

    def test_to_nothing_and_back(self) -> None:
        """With a minimum of 0 all workers stop when idle; the next request waits for a new one and is answered."""
        bench = self.elastic(least=0)
        self.assertEqual([], bench.provider.alive)
        bench.provider.load_delay = 5.0
        answer = bench.pool.submit(job("1"))
        self.assertEqual((["LOADING"], True, True), (bench.words(), bench.pool.ready(), bench.pool.healthy()))
        bench.clock.advance(5.0)
        bench.clock.advance(1.0)
        self.successResultOf(answer)
        bench.clock.advance(60.0)
        self.assertEqual(([], []), (bench.provider.alive, bench.clock.getDelayedCalls()))
        self.assertEqual((True, True), (bench.pool.ready(), bench.pool.healthy()))
        again = bench.pool.submit(job("2"))
        bench.clock.pump([5.0, 1.0])
        self.successResultOf(again)

    def test_not_started_before(self) -> None:
        """A version with a minimum of 0 is not started by hand: its first request starts a worker."""
        bench = Bench(min_workers=0, max_workers=1)
        self.successResultOf(bench.pool.submit(job()))

    def test_a_broken_model(self) -> None:
        """A worker that fails to load does not cause others to be started; waiting requests fail with the reason."""
        bench = self.elastic(least=0, max_retry_timeout=0)
        bench.provider.load_error = WorkerFailed(500, "broken")
        error = self.failed(bench.pool.submit(job()), ServiceUnavailable)
        self.assertEqual("broken", error.reason)
        self.assertEqual(1, len(bench.provider.workers))

    def test_scaled_by_hand(self) -> None:
        """Scaling sets the bounds; with a minimum of 0 running workers stay until they have been idle long enough."""
        bench = self.elastic()
        self.successResultOf(bench.pool.scale(3, 3))
        self.successResultOf(bench.pool.scale(0, 2))
        self.assertEqual(2, len(bench.provider.alive))
        bench.clock.pump([30.0, 30.0, 1.0])
        self.assertEqual([], bench.provider.alive)
        self.successResultOf(bench.pool.scale(0, 0))
        self.failed(bench.pool.submit(job()), ServiceUnavailable)

    def test_retired(self) -> None:
        """A retired pool starts no worker and leaves no timer."""
        bench = self.elastic(least=0)
        answer = bench.pool.submit(job())
        self.successResultOf(bench.pool.retire(0.0))
        self.failed(answer, WorkerDied)
        error = self.failed(bench.pool.submit(job()), ServiceUnavailable)
        self.assertIn("exceeds maxSequenceJobQueueSize. The model is being removed.", error.message)
        self.assertEqual([], bench.clock.getDelayedCalls())
