# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.batching.sequences`: the guarantees for a stateful model."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.batching import sequences
from twisted_serve.batching.queue import QueueFull
from twisted_serve.batching.sequences import (
    SequenceExpired,
    SequenceLimits,
    SequenceOver,
    SequenceQueue,
    TooManySequences,
)


class Turn(NamedTuple):
    """The ``number``-th job of a sequence."""

    sequence: str
    number: int


def queue_of(
    sequences: int = 2, waiting: int = 2, idle: float = 10.0, life: float = 100.0, batch_size: int = 2
) -> SequenceQueue[Turn]:
    return SequenceQueue(SequenceLimits(sequences, waiting, idle, life), lambda turn: turn.sequence, batch_size)


class SequenceQueueTests(SynchronousTestCase):
    """Tests for each rule."""

    def taken(self, queue: SequenceQueue[Turn], now: float, worker: str) -> list[Turn]:
        return [waiting.job for waiting in queue.take(now, 1, worker) or []]

    def test_one_at_a_time(self) -> None:
        """A batch has one job of each sequence, the next comes when that is answered, in order."""
        queue = queue_of()
        queue.join("w")
        turns = [Turn("a", 1), Turn("a", 2), Turn("b", 1)]
        for turn in turns:
            queue.put(turn, 0.0)
        self.assertEqual(self.taken(queue, 0.0, "w"), [Turn("a", 1), Turn("b", 1)])
        self.assertIsNone(queue.next_deadline(0.0))
        queue.done("w", 1.0)
        self.assertEqual(self.taken(queue, 1.0, "w"), [Turn("a", 2)])

    def test_over(self) -> None:
        """What is over is remembered for an hour, and no more of it than so much."""
        queue = SequenceQueue[Turn](SequenceLimits(5, 1, 1.0), lambda turn: turn.sequence, begins=lambda _: False)
        queue.join("w")
        self.patch(sequences, "MOST_OVER", 3)

        def serve(name: str, now: float) -> None:
            queue.put(Turn(name, 1), now)
            self.taken(queue, now, "w")
            queue.done("w", now)

        for name in "abcd":
            serve(name, 0.0)
        self.assertRaises(SequenceOver, queue.put, Turn("d", 2), 1.0)
        # As many are remembered as may be, the last ones.
        serve("a", 1.0)
        self.assertRaises(SequenceOver, queue.put, Turn("d", 2), 3600.0)
        serve("d", 3601.0)

    def test_sticks(self) -> None:
        """A sequence stays with the worker that had its first job."""
        queue = queue_of()
        for worker in ("v", "w"):
            queue.join(worker)
        queue.put(Turn("a", 1), 0.0)
        self.assertEqual(self.taken(queue, 0.0, "w"), [Turn("a", 1)])
        queue.done("w", 0.0)
        queue.put(Turn("a", 2), 0.0)
        self.assertEqual(self.taken(queue, 0.0, "v"), [])
        self.assertEqual(queue.next_deadline(0.0), 0.0)
        self.assertEqual(self.taken(queue, 0.0, "w"), [Turn("a", 2)])

    def test_spread(self) -> None:
        """Sequences are spread over the workers that there are; the last place is not left empty by rounding."""
        queue = queue_of(sequences=3, batch_size=4)
        for worker in ("v", "w"):
            queue.join(worker)
        for name in "abc":
            queue.put(Turn(name, 1), 0.0)
        self.assertEqual(self.taken(queue, 0.0, "v"), [Turn("a", 1), Turn("b", 1)])
        self.assertEqual(self.taken(queue, 0.0, "w"), [Turn("c", 1)])

    def test_limits(self) -> None:
        """What is too much is refused: a sequence more, or a waiting job more in one."""
        queue = queue_of(sequences=2, waiting=1)
        queue.join("w")
        queue.put(Turn("a", 1), 0.0)
        queue.put(Turn("b", 1), 0.0)
        self.assertRaises(TooManySequences, queue.put, Turn("c", 1), 0.0)
        self.assertRaises(QueueFull, queue.put, Turn("a", 2), 0.0)
        self.assertEqual((len(queue), queue.remaining, queue.sequences), (2, 0, 2))
        self.taken(queue, 0.0, "w")
        queue.put(Turn("a", 2), 0.0)

    def test_idle(self) -> None:
        """A sequence that has been idle for too long makes room; the same name begins anew, with any worker."""
        queue = queue_of(sequences=1, idle=10.0)
        for worker in ("v", "w"):
            queue.join(worker)
        queue.put(Turn("a", 1), 0.0)
        self.taken(queue, 0.0, "w")
        self.assertRaises(TooManySequences, queue.put, Turn("b", 1), 50.0)
        queue.done("w", 50.0)
        self.assertRaises(TooManySequences, queue.put, Turn("b", 1), 59.9)
        queue.put(Turn("a", 2), 60.0)
        self.assertEqual(self.taken(queue, 60.0, "v"), [Turn("a", 2)])

    def test_life(self) -> None:
        """A sequence ends at its maximum lifetime; its queued jobs are completed, later jobs are refused."""
        queue = queue_of(idle=1000.0, life=100.0)
        queue.join("w")
        queue.put(Turn("a", 1), 0.0)
        self.taken(queue, 0.0, "w")
        queue.put(Turn("a", 2), 99.0)
        self.assertRaises(SequenceExpired, queue.put, Turn("a", 3), 100.0)
        queue.done("w", 101.0)
        self.assertEqual(self.taken(queue, 101.0, "w"), [Turn("a", 2)])
        queue.done("w", 102.0)
        queue.put(Turn("a", 1), 102.0)
        self.assertEqual(queue.sequences, 1)

    def test_worker_gone(self) -> None:
        """With a worker its sequences end: queued jobs are returned, later jobs go to another worker."""
        queue = queue_of()
        for worker in ("v", "w"):
            queue.join(worker)
        for turn in (Turn("a", 1), Turn("a", 2)):
            queue.put(turn, 0.0)
        self.assertEqual(self.taken(queue, 0.0, "w"), [Turn("a", 1)])
        self.assertEqual(queue.leave("w"), [Turn("a", 2)])
        queue.put(Turn("a", 3), 0.0)
        self.assertEqual(self.taken(queue, 0.0, "v"), [Turn("a", 3)])

    def test_put_back(self) -> None:
        """What a worker never saw is first again, for any worker, even if it was found gone meanwhile."""
        for gone in (False, True):
            queue = queue_of()
            queue.join("w")
            queue.put(Turn("a", 1), 0.0)
            batch = queue.take(0.0, 1, "w")
            assert batch is not None
            if gone:
                queue.leave("w")
            queue.put(Turn("a", 2), 0.0)
            queue.put_back(batch)
            queue.join("v")
            self.assertEqual(self.taken(queue, 0.0, "v"), [Turn("a", 1)])

    def test_too_late(self) -> None:
        """An expired job is not started, and neither is the next one until the expired one is removed."""
        queue = queue_of()
        queue.put(Turn("a", 1), 0.0, deadline=5.0)
        queue.put(Turn("a", 2), 0.0)
        self.assertEqual(queue.next_deadline(0.0), 5.0)
        queue.join("w")
        self.assertEqual(queue.next_deadline(0.0), 0.0)
        self.assertEqual(self.taken(queue, 5.0, "w"), [])
        self.assertEqual(queue.expire(5.0), [Turn("a", 1)])
        self.assertEqual(self.taken(queue, 5.0, "w"), [Turn("a", 2)])

    def test_discard(self) -> None:
        """The job of a client that has disconnected is removed; an unknown job is not found."""
        queue = queue_of()
        queue.put(Turn("a", 1), 0.0)
        self.assertTrue(queue.discard(Turn("a", 1)))
        self.assertFalse(queue.discard(Turn("a", 1)))
        self.assertFalse(queue.discard(Turn("b", 1)))
        self.assertEqual(len(queue), 0)

    def test_company(self) -> None:
        """With a delay a batch waits for other sequences, until it is full or the time is over."""
        queue: SequenceQueue[Turn] = SequenceQueue(
            SequenceLimits(3), lambda turn: turn.sequence, batch_size=2, max_delay=1.0
        )
        queue.join("w")
        queue.put(Turn("a", 1), 0.0)
        self.assertEqual(self.taken(queue, 0.5, "w"), [])
        self.assertEqual(queue.next_deadline(0.5), 1.0)
        queue.put(Turn("b", 1), 0.5)
        self.assertEqual(queue.next_deadline(0.5), 0.5)
        self.assertEqual(self.taken(queue, 0.5, "w"), [Turn("a", 1), Turn("b", 1)])
        queue.put(Turn("c", 1), 2.0)
        self.assertEqual(self.taken(queue, 3.0, "w"), [Turn("c", 1)])

    def test_kinds(self) -> None:
        """A batch has one kind of job."""
        queue = queue_of()
        queue.join("w")
        queue.put(Turn("a", 1), 0.0, kind="explain")
        queue.put(Turn("b", 1), 0.0)
        self.assertEqual(self.taken(queue, 0.0, "w"), [Turn("a", 1)])

    def test_room_comes(self) -> None:
        """
        A sequence that finds all workers busy or full starts when another worker's sequence has been idle for long
        enough.
        """
        queue = queue_of(sequences=4, idle=10.0)
        for worker in ("v", "w"):
            queue.join(worker)
        for name in "ab":
            queue.put(Turn(name, 1), 0.0)
        self.taken(queue, 0.0, "w")
        queue.done("w", 1.0)
        queue.put(Turn("c", 1), 2.0)
        self.assertEqual(self.taken(queue, 2.0, "w"), [])
        self.assertEqual(self.taken(queue, 2.0, "v"), [Turn("c", 1)])
        queue.put(Turn("d", 1), 2.0)
        self.assertEqual(queue.next_deadline(2.0), 11.0)
        self.assertEqual(self.taken(queue, 11.0, "w"), [Turn("d", 1)])

    def test_again(self) -> None:
        """A job that is tried again is the next of its sequence."""
        queue = queue_of()
        queue.join("w")
        queue.put(Turn("a", 1), 0.0)
        queue.put(Turn("a", 2), 0.0)
        self.taken(queue, 0.0, "w")
        queue.put_again([(Turn("a", 1), None)], 1.0)
        queue.done("w", 1.0)
        self.assertEqual(self.taken(queue, 1.0, "w"), [Turn("a", 1)])

    def test_drain(self) -> None:
        """When everything ends, all jobs are given back."""
        queue = queue_of()
        queue.put(Turn("a", 1), 1.0)
        queue.put(Turn("b", 1), 2.0)
        self.assertEqual(queue.oldest_wait(5.0), 4.0)
        self.assertEqual(queue.drain(), [Turn("a", 1), Turn("b", 1)])
        self.assertEqual((len(queue), queue.sequences, queue.oldest_wait(5.0)), (0, 0, 0.0))

    def test_no_queue(self) -> None:
        """Numbers that make no queue are refused."""
        for numbers in ({"sequences": 0}, {"waiting": 0}, {"idle": 0.0}, {"life": -1.0}, {"batch_size": 0}):
            self.assertRaises(ValueError, queue_of, **numbers)
        self.assertRaises(ValueError, SequenceQueue, SequenceLimits(), str, 1, -1.0)


WORKERS = st.sampled_from(["v", "w", "x"])
NAMES = st.sampled_from(["a", "b", "c", "d"])


class SequenceMachine(RuleBasedStateMachine):
    """The guarantees hold for any sequence of events."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = queue_of(sequences=3, waiting=2, idle=5.0, life=50.0, batch_size=2)
        self.count = 0
        self.waiting: list[Turn] = []
        self.running: dict[str, list[Turn]] = {}
        self.workers: set[str] = set()
        self.last: dict[str, int] = {}
        self.home: dict[str, tuple[str, float]] = {}

    @rule(name=NAMES, patience=st.none() | st.floats(0.0, 5.0))
    def put(self, name: str, patience: float | None) -> None:
        self.count += 1
        turn = Turn(name, self.count)
        try:
            self.queue.put(turn, self.now, None if patience is None else self.now + patience)
        except QueueFull:
            return
        self.waiting.append(turn)

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for turn in self.queue.expire(self.now):
            self.waiting.remove(turn)

    @rule(worker=WORKERS)
    def join(self, worker: str) -> None:
        self.workers.add(worker)
        self.queue.join(worker)

    @rule(worker=WORKERS)
    def leave(self, worker: str) -> None:
        self.workers.discard(worker)
        self.running.pop(worker, None)
        for turn in self.queue.leave(worker):
            self.waiting.remove(turn)
            assert self.home.get(turn.sequence, (worker,))[0] == worker
        self.home = {name: home for name, home in self.home.items() if home[0] != worker}

    @rule(worker=WORKERS)
    def take(self, worker: str) -> None:
        if worker not in self.workers or worker in self.running:
            return
        batch = [waiting.job for waiting in self.queue.take(self.now, 1, worker) or []]
        assert len(batch) <= 2
        self.given(worker, batch)
        if batch:
            self.running[worker] = batch

    def given(self, worker: str, batch: list[Turn]) -> None:
        names = [turn.sequence for turn in batch]
        assert len(set(names)) == len(names), "two jobs of a sequence in a batch"
        busy = {turn.sequence for at, running in self.running.items() if at != worker for turn in running}
        assert not busy & set(names), "a job of a sequence that has one running elsewhere"
        for turn in batch:
            self.waiting.remove(turn)
            assert turn.number > self.last.get(turn.sequence, 0), "out of order"
            self.last[turn.sequence] = turn.number
            home, used = self.home.get(turn.sequence, (worker, self.now))
            assert home == worker or self.now - used >= 5.0, "went to another worker in mid-sequence"
            self.home[turn.sequence] = (worker, self.now)

    @rule(worker=WORKERS, keep=st.integers(1, 4))
    def go_on(self, worker: str, keep: int) -> None:
        if worker not in self.running:
            return
        going = self.running[worker][:keep]
        for turn in self.running[worker]:
            self.home[turn.sequence] = (worker, self.now)
        self.queue.done(worker, self.now, going)
        batch = [waiting.job for waiting in self.queue.take_more(self.now, going, None, worker)]
        self.given(worker, batch)
        self.running[worker] = [*going, *batch]
        assert len(self.running[worker]) <= 4
        assert len({turn.sequence for turn in self.running[worker]}) <= 2

    @rule(worker=WORKERS)
    def done(self, worker: str) -> None:
        for turn in self.running.pop(worker, []):
            self.home[turn.sequence] = (worker, self.now)
        self.queue.done(worker, self.now)

    @rule(number=st.integers(0, 100))
    def discard(self, number: int) -> None:
        if self.waiting:
            turn = self.waiting.pop(number % len(self.waiting))
            assert self.queue.discard(turn)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.sequences <= 3
        assert self.queue.remaining >= 0

    @invariant()
    def what_can_be_taken_is_announced(self) -> None:
        free = sorted(self.workers - set(self.running))
        moment = self.queue.next_deadline(self.now)
        can = any(self.queue._choose(self.now, worker)[0] for worker in free)
        assert moment is None or moment >= self.now
        if can:
            assert moment == self.now

    def teardown(self) -> None:
        drained = self.queue.drain()
        assert sorted(drained) == sorted(self.waiting)


SequenceMachineTests = SequenceMachine.TestCase
