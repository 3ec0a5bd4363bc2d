# SPDX-License-Identifier: Apache-2.0
"""
This module implements the queue of a stateful model: which jobs of which sequences go together, and to which worker.

What it promises: the jobs of a sequence are answered in order, one at a time, all of
them by the same worker, which keeps the sequence's state.  Like
`twisted_serve.batching.queue.BatchQueue`, whose verbs it shares, it knows no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from math import ceil, inf
from typing import Generic, TypeVar

from attrs import define, field, frozen
from attrs.validators import ge, gt

from twisted_serve.batching.queue import QueueFull, Waiting

J = TypeVar("J", bound=Hashable)


class TooManySequences(QueueFull):
    """As many sequences are open as may be."""

    sentence = "There are as many sequences as there may be ({count})."


class SequenceFull(QueueFull):
    """As many jobs of the sequence wait as may."""

    sentence = "The queue of its sequence is full ({waiting})."


class SequenceExpired(QueueFull):
    """The sequence has had its time; what it has left is being finished."""

    sentence = "Its sequence has had its time ({waiting})."


class SequenceOver(QueueFull):
    """The sequence was idle for too long, or has had its time: what the worker knew of it is not to be relied on."""

    sentence = "Its sequence is over: it was idle for too long, or has had its time. Begin another one."


# So many sequences that are over are remembered, for so many seconds.
MOST_OVER = 10_000
OVER_FOR = 3600.0


@frozen
class SequenceLimits:
    """
    How many sequences there may be, and how long.

    :ivar sequences: The most that are open at a time.
    :ivar waiting: The most jobs of one that wait.
    :ivar idle: Seconds without a job after which a sequence is over.
    :ivar life: Seconds from its first job after which it is over in any case.
    """

    sequences: int = field(default=1, validator=ge(1))
    waiting: int = field(default=1, validator=ge(1))
    idle: float = field(default=inf, validator=gt(0))
    life: float = field(default=inf, validator=gt(0))


@define(eq=False)
class _Sequence(Generic[J]):
    """
    One sequence: what waits, where its state is, whether a job of it is there now.

    :ivar running: Whether it has had its turn in the present batch.
    :ivar going: Whether a job of it has been in an earlier call, too, and is not finished.
    """

    began: float
    used: float
    waiting: deque[Waiting[J]] = field(factory=deque)
    worker: Hashable = None
    running: bool = False
    going: bool = False

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.running or self.going)


class SequenceQueue(Generic[J]):
    """
    Jobs of sequences.

    A job is in the queue from ``put`` until exactly one of ``take``, ``discard``, ``expire``, ``leave`` and ``drain``
    has given it back.

    :param sequence_of: Names the sequence that a job belongs to.
    :param max_delay: Seconds that the oldest job waits for company; 0 for none.
    :param begins: Says whether a job is the first of its sequence: no other one is let in for a sequence that has
        ended by its limits.  ``None``: every job may begin such a sequence anew.
    :raise ValueError: for a number that makes no queue.
    """

    def __init__(
        self,
        limits: SequenceLimits,
        sequence_of: Callable[[J], str],
        batch_size: int = 1,
        max_delay: float = 0.0,
        begins: Callable[[J], bool] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, it must be at least 1")
        if not max_delay >= 0:
            raise ValueError(f"max_delay is {max_delay}, it must be at least 0")
        self.limits = limits
        self.batch_size = batch_size
        self.max_delay = max_delay
        self._sequence_of = sequence_of
        self._begins = begins
        # When each ended, in that order.
        self._over: dict[str, float] = {}
        # In the order in which they began.
        self._sequences: dict[str, _Sequence[J]] = {}
        # Whether each worker is free.
        self._workers: dict[Hashable, bool] = {}

    def __len__(self) -> int:
        return sum(len(sequence.waiting) for sequence in self._sequences.values())

    @property
    def capacity(self) -> int:
        """The most jobs that can wait."""
        return self.limits.sequences * self.limits.waiting

    @property
    def remaining(self) -> int:
        """How many more jobs fit in, if they belong to the right sequences."""
        return self.capacity - len(self)

    @property
    def sequences(self) -> int:
        """How many sequences are open, as far as anybody has looked."""
        return len(self._sequences)

    def oldest_wait(self, now: float) -> float:
        """Say for how many seconds the oldest job has been waiting; 0 if there is none."""
        return max(0.0, now - min((each.arrival for each in self._all_waiting()), default=now))

    def put(self, job: J, now: float, deadline: float | None = None, kind: Hashable = None) -> None:
        """
        Let ``job`` wait for its turn; the first one begins its sequence.

        :raise QueueFull: when there is no room for it; nothing has changed then.
        """
        self._sweep(now)
        name = self._sequence_of(job)
        sequence = self._sequences.get(name)
        if sequence is None:
            if self._begins is not None and name in self._over and not self._begins(job):
                raise SequenceOver(0)
            if len(self._sequences) >= self.limits.sequences:
                raise TooManySequences(len(self._sequences))
            self._over.pop(name, None)
            sequence = self._sequences[name] = _Sequence(now, now)
        elif now >= sequence.began + self.limits.life:
            raise SequenceExpired(len(sequence.waiting))
        elif len(sequence.waiting) >= self.limits.waiting:
            raise SequenceFull(len(sequence.waiting))
        sequence.used = now
        sequence.waiting.append(Waiting(job, now, deadline, kind))

    def join(self, worker: Hashable) -> None:
        """There is another worker, which can keep sequences."""
        self._workers[worker] = True

    def take(self, now: float, free: int = 1, worker: Hashable = None) -> list[Waiting[J]] | None:
        """
        Give the next batch for a worker, which is free, if it is time for one.

        Jobs which are too late are passed over; `expire` has them.
        """
        self._sweep(now)
        chosen, closed = self._choose(now, worker)
        if not chosen or not (closed or now >= chosen[0].waiting[0].arrival + self.max_delay):
            return None
        return self._send(chosen, worker)

    def take_more(
        self, now: float, going: Sequence[J], kind: Hashable = None, worker: Hashable = None
    ) -> list[Waiting[J]]:
        """
        Give the jobs that join a batch which goes on, at once: the next one of each sequence.

        There are at most ``batch_size`` sequences in it.  One that is there already may have another job there, which
        can be what ends the first, as long as there are not more than twice as many jobs.

        :param going: What stays in the batch.
        :param kind: Of what kind that is; a job of another kind, and all that are behind it, wait for its end.
        """
        self._sweep(now)
        names = {self._sequence_of(job) for job in going}
        chosen: list[_Sequence[J]] = []
        for sequence in self._eligible(now, worker):
            first = sequence.waiting[0]
            if first.kind != kind or len(going) + len(chosen) >= 2 * self.batch_size:
                break
            name = self._sequence_of(first.job)
            if name in names or len(names) < self.batch_size:
                names.add(name)
                chosen.append(sequence)
        return self._send(chosen, worker)

    def put_back(self, batch: list[Waiting[J]]) -> None:
        """Undo the ``take`` of a batch, of which its worker had seen nothing when it went."""
        for waiting in batch:
            name = self._sequence_of(waiting.job)
            sequence = self._sequences.setdefault(name, _Sequence(waiting.arrival, waiting.arrival))
            sequence.waiting.appendleft(waiting)
            sequence.worker, sequence.running = None, False

    def put_again(self, jobs: Iterable[tuple[J, float | None]], now: float) -> None:
        """Let jobs wait which were taken and are to be tried once more: each is the next of its sequence."""
        self.put_back([Waiting(job, now, deadline, None) for job, deadline in jobs])

    def done(self, worker: Hashable, now: float, going: Sequence[J] = ()) -> None:
        """A worker has answered what it was given, of which some jobs go on."""
        if worker in self._workers:
            self._workers[worker] = True
        names = {self._sequence_of(job) for job in going}
        for name, sequence in self._sequences.items():
            if sequence.worker == worker and (sequence.running or sequence.going):
                sequence.running, sequence.going = False, name in names
                sequence.used = now

    def end(self, worker: Hashable, sequences: Iterable[str]) -> None:
        """A worker's handler says that sequences are over; what of them still waits begins them anew."""
        for name in sequences:
            sequence = self._sequences.get(name)
            if sequence is not None and sequence.worker == worker:
                waiting = sequence.waiting
                anew = _Sequence(waiting[0].arrival, sequence.used, waiting) if waiting else None
                del self._sequences[name]
                if anew is not None:
                    self._sequences[name] = anew

    def leave(self, worker: Hashable) -> list[J]:
        """A worker is gone, and its sequences' state with it: they are over; give what of them still waited."""
        self._workers.pop(worker, None)
        lost = [name for name, sequence in self._sequences.items() if sequence.worker == worker]
        jobs = [waiting.job for name in lost for waiting in self._sequences[name].waiting]
        for name in lost:
            del self._sequences[name]
        return jobs

    def keeps(self, worker: Hashable) -> bool:
        """Say whether a worker has sequences which are not over, as far as anybody has looked."""
        return any(sequence.worker == worker for sequence in self._sequences.values())

    def discard(self, job: J) -> bool:
        """Take ``job`` out, wherever it stands; say whether it was there."""
        sequence = self._sequences.get(self._sequence_of(job))
        if sequence is None:
            return False
        before = len(sequence.waiting)
        sequence.waiting = deque(waiting for waiting in sequence.waiting if waiting.job != job)
        return len(sequence.waiting) < before

    def expire(self, now: float) -> list[J]:
        """Take out the jobs which are too late, so that somebody can tell their clients."""
        expired = [waiting.job for waiting in self._all_waiting() if waiting.too_late(now)]
        if expired:
            kept = [
                (each, deque(waiting for waiting in each.waiting if not waiting.too_late(now)))
                for each in self._sequences.values()
            ]
            for sequence, waiting in kept:
                sequence.waiting = waiting
        return expired

    def drain(self) -> list[J]:
        """Take out everything; no sequence is open any more."""
        jobs = [waiting.job for waiting in self._all_waiting()]
        self._sequences.clear()
        return jobs

    def next_deadline(self, now: float, free: int = 1) -> float | None:
        """
        Say when `take` or `expire` will next have something to give if nothing else happens before.

        :return: A moment which is ``now`` at the earliest, or ``None`` for never.
        """
        moments = [waiting.deadline for waiting in self._all_waiting() if waiting.deadline is not None]
        workers = [worker for worker, is_free in self._workers.items() if is_free]
        for worker in workers:
            chosen, closed = self._choose(now, worker)
            if chosen:
                moments.append(now if closed else chosen[0].waiting[0].arrival + self.max_delay)
        if workers and any(sequence.worker is None and sequence.waiting for sequence in self._sequences.values()):
            # It waits for a worker to have room, which comes with the end of another.
            moments += [end for each in self._sequences.values() if each.idle and (end := self._end_of(each)) < inf]
        return max(now, min(moments)) if moments else None

    def _all_waiting(self) -> Iterator[Waiting[J]]:
        return (waiting for sequence in self._sequences.values() for waiting in sequence.waiting)

    def _end_of(self, sequence: _Sequence[J]) -> float:
        return min(sequence.used + self.limits.idle, sequence.began + self.limits.life)

    def _sweep(self, now: float) -> None:
        """Forget the sequences that are over."""
        for name, sequence in list(self._sequences.items()):
            if sequence.idle and now >= self._end_of(sequence):
                del self._sequences[name]
                if self._begins is not None:
                    self._over[name] = now
        while self._over and (len(self._over) > MOST_OVER or now >= next(iter(self._over.values())) + OVER_FOR):
            del self._over[next(iter(self._over))]

    def _choose(self, now: float, worker: Hashable) -> tuple[list[_Sequence[J]], bool]:
        """Choose the sequences whose next jobs go together, oldest job first; say whether no later one could join."""
        chosen: list[_Sequence[J]] = []
        for sequence in self._eligible(now, worker):
            if chosen and sequence.waiting[0].kind != chosen[0].waiting[0].kind:
                return chosen, True
            chosen.append(sequence)
            if len(chosen) == self.batch_size:
                return chosen, True
        return chosen, False

    def _eligible(self, now: float, worker: Hashable) -> Iterator[_Sequence[J]]:
        """List the sequences whose next jobs a worker can have, oldest job first."""
        room = ceil(self.limits.sequences / max(1, len(self._workers)))
        room -= sum(sequence.worker == worker for sequence in self._sequences.values())
        ready = [each for each in self._sequences.values() if self._ready(each, now)]
        for sequence in sorted(ready, key=lambda each: each.waiting[0].arrival):
            if sequence.worker is None and room > 0:
                room -= 1
            elif sequence.worker is None or sequence.worker != worker:
                continue
            yield sequence

    def _send(self, chosen: list[_Sequence[J]], worker: Hashable) -> list[Waiting[J]]:
        batch = [sequence.waiting[0] for sequence in chosen]
        for sequence in chosen:
            sequence.waiting.popleft()
            sequence.worker = worker
            sequence.running = True
        self._workers[worker] = False
        return batch

    def _ready(self, sequence: _Sequence[J], now: float) -> bool:
        return bool(sequence.waiting) and not sequence.running and not sequence.waiting[0].too_late(now)
