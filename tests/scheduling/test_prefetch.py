# SPDX-License-Identifier: Apache-2.0
"""Batches that are sent to a worker which is still at another one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.scheduling.pool_bench import Bench, PoolTestCase, job
from twisted_serve.batching.prefetch import MOST, MOST_BYTES
from twisted_serve.errors import RequestTimeout, ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.wire.messages import Item

QUICK = 1e-5


class AheadTestCase(PoolTestCase):
    """A pool of quick workers which hold their batches."""

    def quick(self, seconds: float = QUICK, **settings: Any) -> Bench:
        """Make a pool whose workers have answered a request and hold the next ones."""
        bench = self.running(holding=True, **settings)
        bench.provider.seconds = seconds
        size = settings.get("batch_size", 1)
        first = self.submit(bench, *[f"first {each}" for each in range(2 * size * len(bench.provider.workers))])
        while any(not each.called for each in first):
            for worker in bench.provider.workers:
                worker.answer()
        for worker in bench.provider.workers:
            worker.batches.clear()
        del bench.seen.worked[:]
        bench.provider.holding = False
        return bench

    def submit(self, bench: Bench, *names: str, deadline: float | None = None) -> list[Deferred[Item]]:
        """Submit requests of these names."""
        return [bench.pool.submit(job(name, name.encode()), deadline=deadline) for name in names]

    def at(self, bench: Bench, worker: int = 0) -> list[str]:
        """List what is at a worker, batch by batch."""
        return ["".join(job.request_id for job in batch) for batch in bench.provider.workers[worker].running]

    def answered(self, answers: list[Deferred[Item]]) -> list[str]:
        """List the answers."""
        return [self.successResultOf(answer).body.decode() for answer in answers]


class SendingTests(AheadTestCase):
    """What is sent ahead of time."""

    def test_quick(self) -> None:
        """A quick worker has several batches; they are answered in their order, and as many follow."""
        bench = self.quick()
        names = [str(number) for number in range(MOST + 4)]
        answers = self.submit(bench, *names)
        self.assertEqual(names[: MOST + 1], self.at(bench))
        self.assertEqual((MOST + 1, 3), (bench.pool.status().running, bench.pool.status().pending))
        bench.worker.answer()
        self.assertEqual(names[:1], self.answered(answers[:1]))
        self.assertEqual(names[1 : MOST + 2], self.at(bench))
        while bench.worker.busy:
            bench.worker.answer()
        self.assertEqual(names[1:], self.answered(answers[1:]))
        self.assertEqual(0, bench.pool.status().busy)

    def test_slow_or_unknown(self) -> None:
        """Others have one batch at a time."""
        for seconds in (0.0, 0.1):
            bench = self.quick(seconds)
            self.submit(bench, *"abc")
            self.assertEqual(["a"], self.at(bench))
            # Whoever was quick once does not stay it.
            bench.provider.seconds = QUICK
            bench.worker.answer()
            bench.provider.seconds = 0.1
            bench.worker.answer()
            self.assertLessEqual(len(self.at(bench)), 1)

    def test_full_batches_only(self) -> None:
        """Who could still get company waits for it."""
        bench = self.quick(batch_size=3)
        self.submit(bench, *"abcde")
        self.assertEqual(["a", "bcd"], self.at(bench))
        self.submit(bench, *"fgh")
        self.assertEqual(["a", "bcd", "efg"], self.at(bench))
        for _ in range(3):
            bench.worker.answer()
        self.assertEqual(["h"], self.at(bench))

    def test_large_ones(self) -> None:
        """Large inputs do not pile up at a worker; when they have been begun there is room again."""
        bench = self.quick()
        large = b"x" * (MOST_BYTES // 2)
        answers = [bench.pool.submit(job(name, large)) for name in "abcdef"]
        self.assertEqual(["a", "b", "c"], self.at(bench))
        bench.worker.answer()
        self.assertEqual(["b", "c", "d"], self.at(bench))
        while bench.worker.busy:
            bench.worker.answer()
        self.assertEqual([large] * 6, [self.successResultOf(answer).body for answer in answers])
        self.submit(bench, *"ghi")
        self.assertEqual(["g", "h", "i"], self.at(bench))

    def test_free_workers_first(self) -> None:
        """Nobody lies at a worker while another has nothing to do; then all have the same."""
        bench = self.quick(min_workers=2)
        self.submit(bench, *"abcdef")
        self.assertEqual((3, 3), (len(self.at(bench, 0)), len(self.at(bench, 1))))
        self.assertEqual(list("ab"), sorted(self.at(bench, 0)[:1] + self.at(bench, 1)[:1]))

    def test_stateful_and_asynchronous(self) -> None:
        """Where order, state or many batches at once are the model's own, nothing is sent ahead."""
        bench = self.quick(asynchronous=True, job_queue_size=2)
        self.submit(bench, *"abc")
        self.assertEqual(2, len(self.at(bench)))


class TroubleTests(AheadTestCase):
    """What becomes of batches that had not been begun."""

    def test_death(self) -> None:
        """The worker has died of the first one at most: the others are none the worse, and are answered in order."""
        bench = self.quick(retry_on_worker_death=False)
        answers = self.submit(bench, *"abc")
        bench.provider.holding = True
        bench.provider.workers[0].kill()
        self.failed(answers[0], WorkerDied)
        bench.clock.advance(5.0)
        while bench.worker.busy:
            bench.worker.answer()
        self.assertEqual(["b", "c"], self.answered(answers[1:]))
        self.assertEqual([["b"], ["c"]], [[each.request_id for each in batch] for batch in bench.worker.batches])

    def test_deadly_request(self) -> None:
        """One that kills two workers is known for it; those behind it have killed nobody."""
        bench = self.quick()
        bench.provider.holding = True
        answers = self.submit(bench, *"abc")
        for _ in range(2):
            self.assertEqual("a", self.at(bench, -1)[0])
            bench.worker.kill()
            bench.clock.advance(5.0)
        self.failed(answers[0], WorkerDied)
        self.failed(bench.pool.submit(job("a", b"a")), ServiceUnavailable)
        while bench.worker.busy:
            bench.worker.answer()
        self.assertEqual(["b", "c"], self.answered(answers[1:]))

    def test_nobody_left(self) -> None:
        """Without another worker to come they are refused."""
        bench = self.quick(max_retry_timeout=0)
        answers = self.submit(bench, *"ab")
        bench.provider.load_error = WorkerFailed(500, "broken")
        bench.worker.kill()
        bench.clock.advance(1000.0)
        self.failed(answers[0], WorkerDied)
        self.failed(answers[1], ServiceUnavailable)

    def test_handler_raises(self) -> None:
        """The failure of one is not that of the next."""
        bench = self.quick()
        answers = self.submit(bench, *"abc")
        bench.worker.answer(WorkerFailed(503, "Prediction failed"))
        self.failed(answers[0], WorkerFailed)
        bench.worker.answer()
        bench.worker.answer()
        self.assertEqual(["b", "c"], self.answered(answers[1:]))

    def test_out_of_order(self) -> None:
        """A worker that answers the second first is of no use; what it had not answered goes to another."""
        bench = self.quick(retry_on_worker_death=False)
        answers = self.submit(bench, *"ab")
        first = bench.worker
        bench.provider.holding = True
        first.answer(request_id="b")
        self.failed(answers[0], WorkerDied)
        self.assertNoResult(answers[1])
        first.answer()
        bench.clock.advance(40.0)
        self.assertFalse(first.alive)
        bench.worker.answer()
        self.assertEqual(["b"], self.answered(answers[1:]))

    def test_died_unnoticed(self) -> None:
        """What cannot be sent any more waits for another worker."""
        bench = self.quick()
        answers = self.submit(bench, "a")
        # It has died, but what it was at does not know yet.
        bench.worker.alive = False
        answers += self.submit(bench, "b", "c")
        self.assertEqual((["a"], 2), (self.at(bench), bench.pool.status().pending))
        bench.worker.alive = True
        bench.worker.kill()
        bench.clock.advance(5.0)
        self.assertEqual(["a", "b", "c"], self.answered(answers))

    def test_response_timeout(self) -> None:
        """Each has its time from when the worker can begin it; one that hangs takes nobody with it."""
        bench = self.quick(response_timeout=10, retry_on_worker_death=False)
        answers = self.submit(bench, *"abc")
        bench.provider.holding = True
        bench.clock.advance(9.0)
        bench.worker.answer()
        bench.clock.advance(9.0)
        self.assertNoResult(answers[1])
        bench.clock.advance(1.0)
        self.failed(answers[1], WorkerDied)
        bench.clock.advance(40.0)
        bench.worker.answer()
        self.assertEqual(["c"], self.answered(answers[2:]))


class ClientTests(AheadTestCase):
    """Clients whose requests lie at a worker."""

    def test_gone(self) -> None:
        """The worker is told of a client that has gone; others are answered."""
        bench = self.quick()
        answers = self.submit(bench, *"abc")
        answers[1].cancel()
        self.failureResultOf(answers[1])
        self.assertEqual(["b"], bench.worker.cancelled)
        for _ in "abc":
            bench.worker.answer()
        self.assertEqual(["a", "c"], self.answered([answers[0], answers[2]]))

    def test_gone_before_a_death(self) -> None:
        """Nobody works for a client that has gone."""
        bench = self.quick()
        answers = self.submit(bench, *"abc")
        answers[1].addErrback(lambda _: None).cancel()
        bench.provider.holding = True
        bench.worker.kill()
        bench.clock.advance(5.0)
        bench.worker.answer()
        bench.worker.answer()
        self.assertEqual([["a"], ["c"]], [[each.request_id for each in batch] for batch in bench.worker.batches])

    def test_late(self) -> None:
        """A client is told in time that it waited too long, wherever its request lies."""
        bench = self.quick()
        (first,) = self.submit(bench, "a")
        (second,) = self.submit(bench, "b", deadline=bench.clock.seconds() + 2.0)
        (third,) = self.submit(bench, "c", deadline=bench.clock.seconds() + 3.0)
        bench.clock.advance(2.0)
        self.failed(second, RequestTimeout)
        self.assertNoResult(third)
        bench.clock.advance(1.0)
        self.failed(third, RequestTimeout)
        self.assertEqual(["b", "c"], bench.worker.cancelled)
        for _ in "abc":
            bench.worker.answer()
        self.assertEqual(["a"], self.answered([first]))

    def test_times(self) -> None:
        """A worker's time for a batch begins when it has answered the one before."""
        bench = self.quick()
        self.submit(bench, *"ab")
        bench.clock.advance(2.0)
        bench.worker.answer()
        bench.clock.advance(1.0)
        bench.worker.answer()
        self.assertEqual([2.0, 1.0], bench.seen.worked)


class EndTests(AheadTestCase):
    """Workers which are sent away."""

    def test_scaled_down(self) -> None:
        """One that is sent away finishes all that lies there, and gets no more."""
        bench = self.quick()
        answers = self.submit(bench, *"abc")
        gone = bench.pool.scale(0, 0)
        self.assertNoResult(gone)
        for _ in "abc":
            self.assertTrue(bench.worker.alive)
            bench.worker.answer()
        self.successResultOf(gone)
        self.assertEqual(["a", "b", "c"], self.answered(answers))
        self.assertFalse(bench.worker.alive)

    def test_grace_is_over(self) -> None:
        """What one that takes too long had not begun goes to another."""
        bench = self.quick(min_workers=2, retry_on_worker_death=False)
        answers = self.submit(bench, *"abcd")
        leaving, staying = bench.provider.workers[1], bench.provider.workers[0]
        lying = [batch[0].request_id for batch in leaving.running]
        self.assertEqual(2, len(lying))
        gone = bench.pool.scale(1, 1, grace=3.0)
        bench.clock.advance(3.0)
        self.successResultOf(gone)
        while staying.busy:
            staying.answer()
        by_name = dict(zip("abcd", answers, strict=True))
        self.failed(by_name.pop(lying[0]), WorkerDied)
        self.assertEqual(sorted(by_name), sorted(self.answered(list(by_name.values()))))

    def test_retired(self) -> None:
        """A model that is removed answers what it has let in."""
        bench = self.quick()
        answers = self.submit(bench, *"abcdefghijkl")
        retired = bench.pool.retire(10.0)
        while bench.worker.busy:
            bench.worker.answer()
        self.successResultOf(retired)
        self.assertEqual(list("abcdefghijkl"), self.answered(answers))
        self.assertEqual([], bench.clock.getDelayedCalls())
