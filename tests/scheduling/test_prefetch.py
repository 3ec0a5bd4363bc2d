# SPDX-License-Identifier: Apache-2.0
"""Tests for batches that are prefetched: sent to a worker that is still running another one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.scheduling.pool_bench import Bench, PoolTestCase, job
from twisted_serve.batching.prefetch import MOST, MOST_BYTES
from twisted_serve.errors import RequestTimeout, ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.wire.messages import Item

QUICK = 1e-5


class PrefetchTestCase(PoolTestCase):
    """A pool of quick workers that hold their batches."""

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
        """Return the requests at a worker, batch by batch."""
        return ["".join(job.request_id for job in batch) for batch in bench.provider.workers[worker].running]

    def answered(self, answers: list[Deferred[Item]]) -> list[str]:
        """Return the responses."""
        return [self.successResultOf(answer).body.decode() for answer in answers]


class SendingTests(PrefetchTestCase):
    """The batches that are prefetched."""

    def test_quick(self) -> None:
        """A quick worker has several batches; they are answered in order, and each response makes room for one more."""
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
        """A slow worker, or one of unknown speed, has one batch at a time."""
        for seconds in (0.0, 0.1):
            bench = self.quick(seconds)
            self.submit(bench, *"abc")
            self.assertEqual(["a"], self.at(bench))
            # A worker that was quick once does not stay quick.
            bench.provider.seconds = QUICK
            bench.worker.answer()
            bench.provider.seconds = 0.1
            bench.worker.answer()
            self.assertLessEqual(len(self.at(bench)), 1)

    def test_more_than_have_room(self) -> None:
        """Requests for which no worker has room wait, those with a deadline until then, and are sent in order."""
        bench = self.quick(job_queue_size=10)
        names = [str(number) for number in range(MOST + 3)]
        answers = self.submit(bench, *names)
        [late] = self.submit(bench, "late", deadline=bench.clock.seconds() + 1.0)
        bench.clock.advance(1.0)
        self.failed(late, RequestTimeout)
        self.assertEqual(2, bench.pool.status().pending)
        while bench.worker.busy:
            bench.worker.answer()
        self.assertEqual(names, self.answered(answers))

    def test_full_batches_only(self) -> None:
        """A batch that is not full is not prefetched."""
        bench = self.quick(batch_size=3)
        self.submit(bench, *"abcde")
        self.assertEqual(["a", "bcd"], self.at(bench))
        self.submit(bench, *"fgh")
        self.assertEqual(["a", "bcd", "efg"], self.at(bench))
        for _ in range(3):
            bench.worker.answer()
        self.assertEqual(["h"], self.at(bench))

    def test_large_ones(self) -> None:
        """The bytes of prefetched inputs are bounded; beginning a batch makes room again."""
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
        """No batch is prefetched while another worker is idle; after that all workers have the same number."""
        bench = self.quick(min_workers=2)
        self.submit(bench, *"abcdef")
        self.assertEqual((3, 3), (len(self.at(bench, 0)), len(self.at(bench, 1))))
        self.assertEqual(list("ab"), sorted(self.at(bench, 0)[:1] + self.at(bench, 1)[:1]))

    def test_stateful_and_asynchronous(self) -> None:
        """Stateful, continuous and asynchronous models get no prefetched batches."""
        bench = self.quick(asynchronous=True, job_queue_size=2)
        self.submit(bench, *"abc")
        self.assertEqual(2, len(self.at(bench)))


class TroubleTests(PrefetchTestCase):
    """Prefetched batches that were not begun."""

    def test_death(self) -> None:
        """Only the first batch of a dead worker may have killed it: the others are dispatched again, in order."""
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
        """A request that kills two workers is quarantined; those prefetched behind it are not blamed."""
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

    def test_no_worker_left(self) -> None:
        """If no other worker is expected, they are refused."""
        bench = self.quick(max_retry_timeout=0)
        answers = self.submit(bench, *"ab")
        bench.provider.load_error = WorkerFailed(500, "broken")
        bench.worker.kill()
        bench.clock.advance(1000.0)
        self.failed(answers[0], WorkerDied)
        self.failed(answers[1], ServiceUnavailable)

    def test_handler_raises(self) -> None:
        """The failure of a batch does not affect the next one."""
        bench = self.quick()
        answers = self.submit(bench, *"abc")
        bench.worker.answer(WorkerFailed(503, "Prediction failed"))
        self.failed(answers[0], WorkerFailed)
        bench.worker.answer()
        bench.worker.answer()
        self.assertEqual(["b", "c"], self.answered(answers[1:]))

    def test_out_of_order(self) -> None:
        """A worker that answers the second batch first is replaced; its unanswered batches go to another."""
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
        """Requests that can no longer be sent wait for another worker."""
        bench = self.quick()
        answers = self.submit(bench, "a")
        # The worker has died, but its first batch has not failed yet.
        bench.worker.alive = False
        answers += self.submit(bench, "b", "c")
        self.assertEqual((["a"], 2), (self.at(bench), bench.pool.status().pending))
        bench.worker.alive = True
        bench.worker.kill()
        bench.clock.advance(5.0)
        self.assertEqual(["a", "b", "c"], self.answered(answers))

    def test_response_timeout(self) -> None:
        """The response timeout of each batch runs from when the worker can begin it; one that hangs fails alone."""
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


class ClientTests(PrefetchTestCase):
    """Clients whose requests are prefetched."""

    def test_gone(self) -> None:
        """A prefetched request is cancelled when its client disconnects; the others are answered."""
        bench = self.quick()
        answers = self.submit(bench, *"abc")
        answers[1].cancel()
        self.failureResultOf(answers[1])
        self.assertEqual(["b"], bench.worker.cancelled)
        for _ in "abc":
            bench.worker.answer()
        self.assertEqual(["a", "c"], self.answered([answers[0], answers[2]]))

    def test_gone_before_a_death(self) -> None:
        """A request of a client that has disconnected is not dispatched again."""
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
        """A request fails at its deadline, prefetched or not."""
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
        """The response timeout of a batch begins when the batch before it is answered."""
        bench = self.quick()
        self.submit(bench, *"ab")
        bench.clock.advance(2.0)
        bench.worker.answer()
        bench.clock.advance(1.0)
        bench.worker.answer()
        self.assertEqual([2.0, 1.0], bench.seen.worked)


class EndTests(PrefetchTestCase):
    """Workers that are stopped."""

    def test_scaled_down(self) -> None:
        """A worker that is stopped finishes its prefetched batches, and gets no more."""
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
        """Prefetched batches that a worker has not begun within its grace go to another worker."""
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
        """A model that is removed answers all accepted requests."""
        bench = self.quick()
        answers = self.submit(bench, *"abcdefghijkl")
        retired = bench.pool.retire(10.0)
        while bench.worker.busy:
            bench.worker.answer()
        self.successResultOf(retired)
        self.assertEqual(list("abcdefghijkl"), self.answered(answers))
        self.assertEqual([], bench.clock.getDelayedCalls())
