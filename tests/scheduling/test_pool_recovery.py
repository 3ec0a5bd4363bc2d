# SPDX-License-Identifier: Apache-2.0
"""Tests for the recovery of workers, for giving up, and for the end of a pool."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred

from tests.scheduling.pool_bench import EPOCH, Bench, PoolTestCase, job
from twisted_serve.errors import ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.scheduling.status import BackingOff, GivenUp, Ready, Starting
from twisted_serve.wire.messages import Item


class CircuitTests(PoolTestCase):
    """A version whose workers fail at every start."""

    def test_recovers_by_itself(self) -> None:
        """Its workers give up with a reason and a time, are tried again, and serve once they are repaired."""
        bench = Bench(max_retry_timeout=5, circuit_retry=100.0)
        bench.provider.load_error = WorkerFailed(500, "SyntaxError: invalid syntax (h.py, line 1)")
        self.failed(bench.pool.start(), WorkerFailed)
        bench.clock.pump([1.0] * 10)
        (info,) = bench.pool.status().workers
        assert isinstance(info.status, GivenUp)
        self.assertEqual(timedelta(seconds=100), (info.status.until or EPOCH) - info.status.since)
        tries = len(bench.provider.workers)
        error = self.failed(bench.pool.submit(job()), ServiceUnavailable)
        self.assertIn(" Its workers keep failing; the next attempt is in ", error.message)
        self.assertEqual("SyntaxError: invalid syntax (h.py, line 1)", error.reason)
        bench.clock.advance(100.0)
        self.assertEqual(tries + 1, len(bench.provider.workers))
        self.assertIsInstance(bench.pool.status().workers[0].status, GivenUp)
        bench.provider.load_error = None
        bench.clock.advance(100.0)
        self.assertIsNone(bench.pool.status().circuit)
        self.successResultOf(bench.pool.submit(job()))
        self.assertEqual((True, True), (bench.pool.healthy(), bench.pool.ready()))

    def test_half_open(self) -> None:
        """While an attempt is being made after giving up, requests are refused."""
        bench = Bench(max_retry_timeout=0, circuit_retry=100.0)
        bench.provider.load_error = WorkerFailed(500, "broken")
        self.failed(bench.pool.start(), WorkerFailed)
        bench.provider.load_delay = 10.0
        bench.clock.advance(100.0)
        circuit = bench.pool.status().circuit
        assert circuit is not None
        self.assertTrue(circuit.trying)
        self.failed(bench.pool.submit(job()), ServiceUnavailable)

    def test_scaling_tries_now(self) -> None:
        """Scaling starts an attempt immediately and a new recovery window."""
        bench = Bench(max_retry_timeout=0, circuit_retry=100.0)
        bench.provider.load_error = WorkerFailed(500, "broken")
        self.failed(bench.pool.start(), WorkerFailed)
        bench.provider.load_error = None
        self.successResultOf(bench.pool.scale(1, 1))
        self.assertEqual([], bench.clock.getDelayedCalls())
        self.successResultOf(bench.pool.submit(job()))

    def test_another_worker_answers(self) -> None:
        """While one worker works, no request is refused."""
        bench = self.running(min_workers=2, max_retry_timeout=0, circuit_retry=100.0)
        bench.worker.kill()
        self.assertIsNone(bench.pool.status().circuit)
        self.successResultOf(bench.pool.submit(job()))

    def test_queue_full_while_loading(self) -> None:
        """A request that finds the queue full while the first worker is loading is told that, too."""
        bench = Bench(job_queue_size=1)
        bench.provider.load_delay = 5.0
        bench.pool.start()
        bench.pool.submit(job("1"))
        error = self.failed(bench.pool.submit(job("2")), ServiceUnavailable)
        self.assertIn("The request queue is full (1 waiting for a worker that is still loading).", error.message)


class RecoveryTests(PoolTestCase):
    """Workers that fail repeatedly."""

    def test_back_off(self) -> None:
        """Restarts come after 1, 1, 2, 3, 5 … seconds until the window has passed; then requests are refused."""
        bench = Bench(max_retry_timeout=300)
        bench.provider.load_error = WorkerFailed(500, "SyntaxError: invalid syntax (h.py, line 1)")
        self.failed(bench.pool.start(), WorkerFailed)
        self.successResultOf(bench.pool.settled)
        waiting = bench.pool.submit(job())
        starts = [0.0]
        while bench.clock.getDelayedCalls():
            bench.clock.advance(min(call.getTime() for call in bench.clock.getDelayedCalls()) - bench.clock.seconds())
            if len(bench.provider.workers) > len(starts):
                starts.append(bench.clock.seconds())
                last = bench.pool.status().workers[0].status
                self.assertEqual(not isinstance(last, GivenUp), bench.pool.healthy())
        gaps = [after - before for before, after in pairwise(starts)]
        self.assertEqual([1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144], gaps)
        assert isinstance(last, GivenUp)
        self.assertEqual("SyntaxError: invalid syntax (h.py, line 1)", last.reason)
        self.failed(waiting, ServiceUnavailable)
        self.assertEqual((False, False), (bench.pool.healthy(), bench.pool.ready()))

    def test_refused_while_failing(self) -> None:
        """A request waits for the first attempts of a worker, not for later ones, which are minutes apart."""
        bench = Bench(max_retry_timeout=300)
        bench.provider.load_error = WorkerFailed(500, "broken")
        self.failed(bench.pool.start(), WorkerFailed)
        waiting = bench.pool.submit(job("1"))
        bench.clock.advance(1.0)
        self.assertNoResult(waiting)
        bench.clock.advance(1.0)
        error = self.failed(waiting, ServiceUnavailable)
        self.assertIn(" Its workers keep failing; the next attempt is in 2 seconds.", error.message)
        self.assertEqual(("broken", 2), (error.reason, error.retry_after))
        self.failed(bench.pool.submit(job("2")), ServiceUnavailable)
        bench.provider.load_error = None
        bench.clock.advance(2.0)
        self.assertEqual(b"hi", self.successResultOf(bench.pool.submit(job("3"))).body)

    def test_window_zero(self) -> None:
        """With no recovery window a worker that fails is never started again."""
        bench = self.running(holding=True, max_retry_timeout=0)
        bench.pool.submit(job("1")).addErrback(lambda _: None)
        waiting = bench.pool.submit(job("2"))
        bench.worker.kill()
        self.failed(waiting, ServiceUnavailable)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_loading_resets(self) -> None:
        """A worker that has loaded begins again with the shortest delay."""
        bench = self.running()
        for _ in range(5):
            bench.worker.kill()
            status = bench.pool.status().workers[0].status
            assert isinstance(status, BackingOff)
            self.assertEqual(timedelta(seconds=1), status.until - status.since)
            bench.clock.advance(1.0)
        self.assertEqual(6, len(bench.provider.workers))

    def test_others_answer(self) -> None:
        """While one worker has given up, the other answers."""
        bench = self.running(min_workers=2, max_retry_timeout=0)
        bench.worker.kill()
        self.successResultOf(bench.pool.submit(job()))
        self.assertEqual((False, False), (bench.pool.healthy(), bench.pool.ready()))

    def test_health_while_loading(self) -> None:
        """A model whose workers are loading is healthy, as in TorchServe, but not ready."""
        bench = Bench()
        bench.provider.load_delay = 1.0
        bench.pool.start()
        self.assertEqual((True, False), (bench.pool.healthy(), bench.pool.ready()))

    def test_describe(self) -> None:
        """The status of a worker says since when, and its process."""
        bench = Bench()
        bench.provider.load_delay = 1.0
        bench.pool.start()
        bench.clock.advance(0.5)
        (info,) = bench.pool.status().workers
        self.assertEqual(Starting(EPOCH), info.status)
        bench.clock.advance(0.5)
        (info,) = bench.pool.status().workers
        self.assertEqual(("9000", EPOCH, 1000, None), (info.worker_id, info.started, info.pid, info.gpu_id))
        self.assertEqual(
            (Ready(EPOCH + timedelta(seconds=1), 1000), EPOCH + timedelta(seconds=1)), (info.status, info.since)
        )


class RetireTests(PoolTestCase):
    """The end of a pool."""

    def test_retire(self) -> None:
        """New requests are refused, accepted requests are answered, and then nothing is left."""
        bench = self.running(holding=True)
        running, waiting = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        retired = bench.pool.retire(30.0)
        self.failed(bench.pool.submit(job("3")), ServiceUnavailable)
        for answer in (running, waiting):
            self.assertNoResult(retired)
            bench.worker.answer()
            self.successResultOf(answer)
        self.successResultOf(retired)
        self.assertEqual(([], []), (bench.clock.getDelayedCalls(), bench.provider.alive))

    def test_grace_is_over(self) -> None:
        """Requests that are unfinished after the grace fail."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job())
        retired = bench.pool.retire(30.0)
        bench.clock.advance(30.0)
        self.failed(answer, WorkerDied)
        self.successResultOf(retired)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_what_waits_when_the_grace_is_over(self) -> None:
        """Requests still queued after the grace are refused, and immediately if there is no worker."""
        bench = self.running(holding=True)
        running, waiting = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        retired = bench.pool.retire(30.0)
        bench.clock.advance(30.0)
        self.failed(running, WorkerDied)
        self.failed(waiting, ServiceUnavailable)
        self.successResultOf(retired)
        self.assertEqual([], bench.clock.getDelayedCalls())
        loading = Bench()
        loading.provider.load_delay = None
        loading.pool.start().addErrback(lambda _: None)
        waiting = loading.pool.submit(job())
        self.successResultOf(loading.pool.retire(30.0))
        self.failed(waiting, ServiceUnavailable)

    def test_dies_while_retiring(self) -> None:
        """If the last worker is lost while the pool retires, queued requests fail."""
        bench = self.running(holding=True)
        running, waiting = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        retired = bench.pool.retire(30.0)
        bench.worker.kill()
        self.failed(running, WorkerDied)
        self.failed(waiting, ServiceUnavailable)
        self.successResultOf(retired)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_hurry(self) -> None:
        """Retiring a second time with less grace ends the first."""
        bench = self.running(holding=True)
        bench.pool.submit(job()).addErrback(lambda _: None)
        first = bench.pool.retire(30.0)
        self.successResultOf(bench.pool.retire(0.0))
        self.successResultOf(first)
        self.successResultOf(bench.pool.retire(0.0))

    def test_no_scaling_after(self) -> None:
        """A retired pool cannot be scaled."""
        bench = self.running()
        self.successResultOf(bench.pool.retire(0.0))
        self.failed(bench.pool.scale(1, 1), ServiceUnavailable)
        self.assertEqual([], bench.provider.alive)

    def test_while_everything_happens(self) -> None:
        """A callback of a response may retire, scale and use the pool."""
        bench = self.running(holding=True, batch_size=2, min_workers=2)
        ends: list[Deferred[Any]] = []

        def on_answer(item: Item) -> None:
            ends.append(bench.pool.scale(3, 3).addErrback(lambda _: None))
            ends.append(bench.pool.submit(job("more")).addErrback(lambda _: None))
            ends.append(bench.pool.retire(0.0))

        answers = [bench.pool.submit(job(str(n))).addCallback(on_answer) for n in range(4)]
        bench.worker.answer()
        for end in ends:
            self.successResultOf(end)
        for answer in answers:
            answer.addErrback(lambda _: None)
            self.successResultOf(answer)
        self.assertEqual(([], []), (bench.clock.getDelayedCalls(), bench.provider.alive))
