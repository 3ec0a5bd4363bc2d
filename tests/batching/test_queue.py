# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.batching.queue`."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import DataObject, booleans, data, integers, lists
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.batching.queue import BatchQueue, ClosePolicy, Hopeless, QueueFull, Waiting
from twisted_serve.testing.strategies.batching import Arrival, arrivals, batch_queues, seconds


def jobs_of(batch: list[Waiting[int]] | None) -> list[int] | None:
    """Return the jobs of a batch."""
    return None if batch is None else [waiting.job for waiting in batch]


def window(batch_size: int, max_delay: float) -> BatchQueue[int]:
    """Return a queue with TorchServe's rule."""
    return BatchQueue(10, batch_size, max_delay, ClosePolicy.WINDOW)


def full(queue: BatchQueue[int], now: float) -> list[Waiting[int]] | None:
    """Take a batch that no further job could join."""
    batch = queue.take_full(now)
    assert batch is None or len(batch) == queue.batch_size
    return batch


class EagerTests(SynchronousTestCase):
    """Tests for a queue in which no job waits while a worker is free."""

    def test_takes_what_is_there(self) -> None:
        """A free worker gets everything that waits, in order, up to the batch size."""
        queue: BatchQueue[int] = BatchQueue(10, 3, 5.0)
        for job in range(5):
            queue.put(job, 0.0)
        self.assertEqual([0, 1, 2], jobs_of(queue.take(0.0)))
        self.assertEqual([3, 4], jobs_of(queue.take(0.0)))
        self.assertIsNone(queue.take(0.0))

    def test_nothing_without_a_worker(self) -> None:
        """While no worker is free nothing leaves, and nothing is due."""
        queue: BatchQueue[int] = BatchQueue(10)
        queue.put(1, 0.0)
        self.assertIsNone(queue.take(0.0, free=0))
        self.assertIsNone(queue.next_deadline(0.0, free=0))
        self.assertEqual(7.0, queue.next_deadline(7.0))

    def test_full(self) -> None:
        """A full queue refuses the next job and keeps those it has."""
        queue: BatchQueue[int] = BatchQueue(2)
        queue.put(1, 0.0)
        self.assertEqual(1, queue.remaining)
        queue.put(2, 0.0)
        self.assertRaises(QueueFull, queue.put, 3, 0.0)
        self.assertEqual((2, 0), (len(queue), queue.remaining))
        self.assertEqual([1, 2], queue.drain())
        self.assertEqual(2, queue.remaining)

    def test_same_job_twice(self) -> None:
        """A job cannot wait twice."""
        queue: BatchQueue[int] = BatchQueue(2)
        queue.put(1, 0.0)
        self.assertRaises(ValueError, queue.put, 1, 0.0)

    def test_put_back(self) -> None:
        """A batch that could not be sent comes first again, in its order, however full the queue is."""
        queue: BatchQueue[int] = BatchQueue(2, 2)
        queue.put(1, 0.0, deadline=9.0)
        queue.put(2, 0.0)
        batch = queue.take(0.0)
        assert batch is not None
        queue.put(3, 0.0)
        queue.put_back(batch)
        self.assertEqual((3, 0), (len(queue), queue.remaining))
        self.assertEqual([1, 2], jobs_of(queue.take(0.0)))
        self.assertEqual([3], jobs_of(queue.take(0.0)))

    def test_full_batches_only(self) -> None:
        """For a worker that is not free yet there are full batches, of one kind, and no others."""
        queue: BatchQueue[int] = BatchQueue(10, 2)
        queue.put(1, 0.0)
        self.assertIsNone(queue.take_full(0.0))
        queue.put(2, 0.0, kind="other")
        self.assertIsNone(queue.take_full(0.0))
        self.assertEqual([1], jobs_of(queue.take(0.0)))
        queue.put(3, 0.0, kind="other")
        self.assertEqual([2, 3], jobs_of(queue.take_full(0.0)))
        self.assertEqual(0, len(queue))

    def test_kinds_do_not_mix(self) -> None:
        """Jobs of different kinds are never in one batch, and keep their order."""
        queue: BatchQueue[int] = BatchQueue(10, 3)
        for job, kind in enumerate("aabba"):
            queue.put(job, 0.0, kind=kind)
        self.assertEqual([[0, 1], [2, 3], [4]], [jobs_of(queue.take(0.0)) for _ in range(3)])

    def test_expired_jobs_are_not_begun(self) -> None:
        """An expired job is returned by `expire`, not sent to a worker."""
        queue: BatchQueue[int] = BatchQueue(10, 3)
        queue.put(1, 0.0, deadline=2.0)
        queue.put(2, 0.0, deadline=1.0)
        queue.put(3, 0.0)
        self.assertEqual(1.0, queue.next_deadline(0.0, free=0))
        self.assertEqual([2], queue.expire(1.0))
        self.assertEqual([3], jobs_of(queue.take(2.0)))
        self.assertEqual([1], queue.expire(2.0))

    def test_discard(self) -> None:
        """A discarded job is gone; the others are unaffected."""
        queue: BatchQueue[int] = BatchQueue(10, 3)
        queue.put(1, 0.0, deadline=1.0)
        queue.put(2, 0.0)
        self.assertTrue(queue.discard(1))
        self.assertFalse(queue.discard(1))
        self.assertIsNone(queue.next_deadline(0.0, free=0))
        self.assertEqual([2], jobs_of(queue.take(0.0)))

    def test_keeps_nothing_that_left(self) -> None:
        """Jobs with far deadlines that have left are not remembered until then."""
        queue: BatchQueue[int] = BatchQueue(10)
        for job in range(1000):
            queue.put(job, 0.0, deadline=1e9)
            queue.take(0.0)
        self.assertLess(len(queue._deadlines), 20)

    def test_impossible_sizes(self) -> None:
        """Numbers that make no queue are refused, by name and value."""
        for name, value in [("capacity", 0), ("batch_size", 0), ("max_delay", -1.0), ("max_delay", float("nan"))]:
            with self.assertRaisesRegex(ValueError, f"{name} is {value}"):
                BatchQueue(**{"capacity": 1, name: value})  # type: ignore[arg-type]


class WindowTests(SynchronousTestCase):
    """Tests for a queue in which the oldest job waits for further jobs."""

    def test_closes_after_the_delay(self) -> None:
        """A partial batch is dispatched when its oldest job has waited long enough, despite later arrivals."""
        queue = window(3, 2.0)
        queue.put(1, 10.0)
        queue.put(2, 11.5)
        self.assertIsNone(queue.take(11.9))
        self.assertEqual(12.0, queue.next_deadline(11.9))
        self.assertEqual([1, 2], jobs_of(queue.take(12.0)))

    def test_closes_when_full(self) -> None:
        """A full batch is dispatched immediately."""
        queue = window(2, 2.0)
        queue.put(1, 0.0)
        queue.put(2, 0.0)
        self.assertEqual(0.5, queue.next_deadline(0.5))
        self.assertEqual([1, 2], jobs_of(queue.take(0.5)))

    def test_closes_at_another_kind(self) -> None:
        """A batch that no further job can join does not wait."""
        queue = window(3, 2.0)
        queue.put(1, 0.0)
        queue.put(2, 0.0, kind="describe")
        self.assertEqual([1], jobs_of(queue.take(0.0)))
        self.assertIsNone(queue.take(0.0))

    def test_closes_when_the_queue_is_full(self) -> None:
        """A queue that holds less than a batch does not refuse clients to wait for them."""
        queue: BatchQueue[int] = BatchQueue(1, 8, 2.0, ClosePolicy.WINDOW)
        queue.put(1, 0.0)
        self.assertEqual(0.0, queue.next_deadline(0.0))
        self.assertEqual([1], jobs_of(queue.take(0.0)))


class AdaptiveTests(SynchronousTestCase):
    """Tests for a queue that estimates whether waiting pays."""

    def setUp(self) -> None:
        self.queue: BatchQueue[int] = BatchQueue(20, 4, 3.0, ClosePolicy.ADAPTIVE)
        # A batch costs 1 s, and 0.2 s for each job; jobs come every 0.1 s.
        for size in (1, 4):
            self.queue.served(size, 0.2 * size + 1.0)
        for job in range(-20, 0):
            self.queue.put(job, job / 10)
            self.queue.take(job / 10, free=2)
        self.assertEqual(0, len(self.queue))

    def test_waits_while_it_pays(self) -> None:
        """The only free worker waits for the next job, and no longer than that is worth."""
        self.queue.put(1, 0.0)
        self.assertIsNone(self.queue.take(0.0))
        self.assertAlmostEqual(0.125, self.queue.next_deadline(0.0) or 0.0)
        self.queue.put(2, 0.1)
        self.assertAlmostEqual(0.1 + 0.125, self.queue.next_deadline(0.1) or 0.0)
        self.queue.put(3, 0.2)
        self.assertEqual([1, 2, 3], jobs_of(self.queue.take(0.3)))

    def test_not_while_others_are_free(self) -> None:
        """With a second free worker, waiting gains nothing."""
        self.queue.put(1, 0.0)
        self.assertEqual([1], jobs_of(self.queue.take(0.0, free=2)))

    def test_not_into_a_deadline(self) -> None:
        """A batch goes in time for its most urgent job to be answered."""
        self.queue.put(1, 0.0, deadline=1.25)
        self.assertAlmostEqual(0.05, self.queue.next_deadline(0.0) or 0.0)

    def test_hopeless(self) -> None:
        """A job that cannot meet its deadline is refused before it is queued; one that can is not."""
        for job in range(8):
            self.queue.put(job, 0.0)
        error = self.assertRaises(Hopeless, self.queue.check_in_time, 0.0, 2.0, 1, 0)
        # The batch that runs, the two that wait, its own.
        self.assertAlmostEqual(4 * 1.8, error.seconds)
        self.queue.check_in_time(0.0, 7.3, 1, 0)
        self.queue.check_in_time(0.0, 3.2, 4, 0)

    def test_an_idle_worker_is_tried(self) -> None:
        """Even what seems hopeless is given to a worker with nothing to do: how else would good news be heard?"""
        self.queue.check_in_time(0.0, 0.1, 1, 1)
        self.assertRaises(Hopeless, self.queue.check_in_time, 0.0, 0.1, 1, 0)

    def test_others_refuse_nothing(self) -> None:
        """A queue without estimates refuses no job for its deadline."""
        queue = window(2, 2.0)
        queue.served(1, 100.0)
        queue.check_in_time(0.0, 0.1, 0, 0)
        self.assertEqual((False, True), (queue.learns, self.queue.learns))


class AgainTests(SynchronousTestCase):
    """Tests for jobs that are retried."""

    def test_a_batch_of_their_own(self) -> None:
        """Retried jobs come first, immediately and in groups of their own, however full the queue is."""
        queue: BatchQueue[int] = BatchQueue(2, 4, 5.0, ClosePolicy.WINDOW)
        queue.put(1, 0.0)
        queue.put_again([(3, None)], 1.0)
        queue.put_again([(4, None), (5, 2.0)], 1.0)
        self.assertEqual([4, 5], jobs_of(queue.take(1.0)))
        self.assertEqual(1.0, queue.next_deadline(1.0))
        self.assertEqual([3], jobs_of(queue.take(1.0)))
        self.assertIsNone(queue.take(1.0))

    def test_deadlines_hold(self) -> None:
        """They can expire, be discarded and drained as all others."""
        queue: BatchQueue[int] = BatchQueue(9, 4)
        queue.put_again([(1, 2.0), (2, None), (3, None)], 0.0)
        self.assertEqual([1], queue.expire(2.0))
        self.assertTrue(queue.discard(2))
        self.assertEqual([3], queue.drain())

    def test_oldest_wait(self) -> None:
        """How long the first has waited counts from when it was put, for the last time."""
        queue: BatchQueue[int] = BatchQueue(9)
        self.assertEqual(0.0, queue.oldest_wait(5.0))
        queue.put(1, 3.0)
        self.assertEqual(2.0, queue.oldest_wait(5.0))
        queue.put_again([(2, None)], 5.0)
        self.assertEqual(0.0, queue.oldest_wait(5.0))


class QueueProperties(SynchronousTestCase):
    """Properties of every queue and every sequence of arrivals."""

    @given(batch_queues(), arrivals(), data())
    def test_nothing_lost_nothing_twice(self, queue: BatchQueue[int], coming: list[Arrival], draw: DataObject) -> None:
        """Each job leaves exactly once; batches are in order of arrival, of one kind, not over size, never too late."""
        now, left, batched = 0.0, [], []
        let_in: dict[int, float | None] = {}
        for job, arrival in enumerate(coming):
            now += arrival.gap
            deadline = None if arrival.patience is None else now + arrival.patience
            try:
                queue.put(job, now, deadline, arrival.kind)
                let_in[job] = deadline
            except QueueFull:
                self.assertEqual(0, queue.remaining)
            if draw.draw(booleans()):
                batch = (queue.take(now) if draw.draw(booleans()) else full(queue, now)) or []
                self.assertLessEqual(len(batch), queue.batch_size)
                self.assertLessEqual(len({waiting.kind for waiting in batch}), 1)
                for waiting in batch:
                    limit = let_in[waiting.job]
                    self.assertTrue(limit is None or now < limit)
                batched += [waiting.job for waiting in batch]
            if draw.draw(booleans()):
                left += queue.expire(now)
            if draw.draw(booleans()):
                gone = draw.draw(integers(0, job))
                left += [gone] if queue.discard(gone) else []
        self.assertEqual(sorted(batched), batched)
        left += batched + queue.drain()
        self.assertEqual(sorted(let_in), sorted(left))
        self.assertEqual((0, None), (len(queue), queue.next_deadline(now)))

    @given(batch_queues(), arrivals(), integers(0, 2), lists(seconds(), max_size=3))
    def test_next_deadline_never_lies(
        self, queue: BatchQueue[int], coming: list[Arrival], free: int, pauses: list[float]
    ) -> None:
        """Before the deadline there is nothing to do; at it there is."""
        now = 0.0
        for job, arrival in enumerate(coming[: queue.capacity]):
            now += arrival.gap
            queue.put(job, now, None if arrival.patience is None else now + arrival.patience, arrival.kind)
        for pause in pauses:
            due = queue.next_deadline(now, free)
            if due is None or now + pause < due:
                now += pause
                self.assertIsNone(queue.take(now, free))
                self.assertEqual([], queue.expire(now))
            else:
                now = due
                done = [waiting.job for waiting in queue.take(now, free) or []] + queue.expire(now)
                self.assertNotEqual([], done)

    @given(batch_queues(), arrivals())
    def test_nobody_waits_beyond_the_delay(self, queue: BatchQueue[int], coming: list[Arrival]) -> None:
        """With a worker that is always free, no job waits longer than the delay of its queue."""
        now = 0.0
        arrived: dict[int, float] = {}

        def until(end: float) -> None:
            while (due := queue.next_deadline(now)) is not None and due <= end:
                for waiting in queue.take(due) or []:
                    self.assertLessEqual(due, arrived[waiting.job] + queue.max_delay)
                queue.expire(due)

        for job, arrival in enumerate(coming):
            until(now + arrival.gap)
            now += arrival.gap
            arrived[job] = now
            queue.put(job, now, None if arrival.patience is None else now + arrival.patience, arrival.kind)
            until(now)
        until(now + queue.max_delay)
        self.assertEqual(0, len(queue))
