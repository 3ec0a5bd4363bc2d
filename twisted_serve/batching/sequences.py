# SPDX-License-Identifier: Apache-2.0
"""
Queue the jobs of a stateful model and group them into batches by sequence and worker.

Guarantees that the jobs of a sequence are answered in order, one at a time, all by the same worker, which keeps the
sequence's state.  Sans-IO, with the interface of `twisted_serve.batching.queue.BatchQueue`.
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
    """The maximum number of sequences is open."""

    sentence = "There are as many sequences as there may be ({count})."


class SequenceFull(QueueFull):
    """The maximum number of jobs of the sequence is queued."""

    sentence = "The queue of its sequence is full ({waiting})."


class SequenceExpired(QueueFull):
    """The sequence has reached its maximum lifetime; its remaining jobs are being completed."""

    sentence = "Its sequence has had its time ({waiting})."


class SequenceOver(QueueFull):
    """The sequence has ended by its idle time or lifetime, so the worker's state of it cannot be relied on."""

    sentence = "Its sequence is over: it was idle for too long, or has had its time. Begin another one."


# Maximum number of ended sequences that are remembered, and for how many seconds.
MOST_OVER = 10_000
OVER_FOR = 3600.0


@frozen
class SequenceLimits:
    """
    Limits on sequences.

    :ivar sequences: Maximum number of open sequences.
    :ivar waiting: Maximum number of queued jobs per sequence.
    :ivar idle: Seconds without a job after which a sequence ends.
    :ivar life: Seconds from its first job after which a sequence ends in any case.
    """

    sequences: int = field(default=1, validator=ge(1))
    waiting: int = field(default=1, validator=ge(1))
    idle: float = field(default=inf, validator=gt(0))
    life: float = field(default=inf, validator=gt(0))


@define(eq=False)
class _Sequence(Generic[J]):
    """
    One sequence.

    :ivar began: When its first job arrived.
    :ivar used: When a job of it last arrived or was answered.
    :ivar worker: The worker that has its state, if any.
    :ivar running: Whether a job of it is in the current batch.
    :ivar going: Whether a job of it has been in an earlier call as well and is not finished.
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
    The jobs of sequences.

    A job is in the queue from ``put`` until exactly one of ``take``, ``discard``, ``expire``, ``leave`` and ``drain``
    returns it.

    :param sequence_of: Returns the id of a job's sequence.
    :param max_delay: Seconds that the oldest job waits for further jobs; 0 for none.
    :param begins: Returns whether a job is the first of its sequence: no other job is accepted for a sequence that has
        ended by its limits.  ``None``: every job may start such a sequence again.
    :raise ValueError: for an invalid number.
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
        # The end time of each ended sequence, in order.
        self._ended: dict[str, float] = {}
        # In order of their start.
        self._sequences: dict[str, _Sequence[J]] = {}
        # For each worker, true if it is free.
        self._workers: dict[Hashable, bool] = {}

    def __len__(self) -> int:
        return sum(len(sequence.waiting) for sequence in self._sequences.values())

    @property
    def capacity(self) -> int:
        """Maximum number of queued jobs."""
        return self.limits.sequences * self.limits.waiting

    @property
    def remaining(self) -> int:
        """The number of further jobs that fit, if they belong to the right sequences."""
        return self.capacity - len(self)

    @property
    def sequences(self) -> int:
        """The number of open sequences as of the last check for ended ones."""
        return len(self._sequences)

    def oldest_wait(self, now: float) -> float:
        """Return the seconds that the oldest job has been waiting; 0 if the queue is empty."""
        return max(0.0, now - min((each.arrival for each in self._all_waiting()), default=now))

    def put(self, job: J, now: float, deadline: float | None = None, kind: Hashable = None) -> None:
        """
        Queue ``job``; the first job starts its sequence.

        :raise QueueFull: if there is no room for it; the queue is unchanged.
        """
        self._sweep(now)
        name = self._sequence_of(job)
        sequence = self._sequences.get(name)
        if sequence is None:
            if self._begins is not None and name in self._ended and not self._begins(job):
                raise SequenceOver(0)
            if len(self._sequences) >= self.limits.sequences:
                raise TooManySequences(len(self._sequences))
            self._ended.pop(name, None)
            sequence = self._sequences[name] = _Sequence(now, now)
        elif now >= sequence.began + self.limits.life:
            raise SequenceExpired(len(sequence.waiting))
        elif len(sequence.waiting) >= self.limits.waiting:
            raise SequenceFull(len(sequence.waiting))
        sequence.used = now
        sequence.waiting.append(Waiting(job, now, deadline, kind))

    def join(self, worker: Hashable) -> None:
        """Add a worker, which can keep the state of sequences."""
        self._workers[worker] = True

    def take(self, now: float, free: int = 1, worker: Hashable = None) -> list[Waiting[J]] | None:
        """
        Return the next batch for a free worker if one is due.

        Expired jobs are skipped; `expire` returns them.
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
        Return the jobs that join a continuing batch immediately: the next job of each sequence.

        The batch has at most ``batch_size`` sequences.  A sequence in it may add another job, which may be the one that
        ends the first, up to a total of twice as many jobs.

        :param going: The jobs that remain in the batch.
        :param kind: Their kind; a job of another kind, and all jobs behind it, wait for the end of the batch.
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
        """Undo the ``take`` of a batch that its worker has not received."""
        for waiting in batch:
            name = self._sequence_of(waiting.job)
            sequence = self._sequences.setdefault(name, _Sequence(waiting.arrival, waiting.arrival))
            sequence.waiting.appendleft(waiting)
            sequence.worker, sequence.running = None, False

    def put_again(self, jobs: Iterable[tuple[J, float | None]], now: float) -> None:
        """Requeue jobs for a retry: each is the next of its sequence."""
        self.put_back([Waiting(job, now, deadline, None) for job, deadline in jobs])

    def done(self, worker: Hashable, now: float, going: Sequence[J] = ()) -> None:
        """Record that a worker has answered its batch, apart from the jobs that continue."""
        if worker in self._workers:
            self._workers[worker] = True
        names = {self._sequence_of(job) for job in going}
        for name, sequence in self._sequences.items():
            if sequence.worker == worker and (sequence.running or sequence.going):
                sequence.running, sequence.going = False, name in names
                sequence.used = now

    def end(self, worker: Hashable, sequences: Iterable[str]) -> None:
        """End sequences as a worker's handler requests; their queued jobs start new sequences."""
        for name in sequences:
            sequence = self._sequences.get(name)
            if sequence is not None and sequence.worker == worker:
                waiting = sequence.waiting
                restarted = _Sequence(waiting[0].arrival, sequence.used, waiting) if waiting else None
                del self._sequences[name]
                if restarted is not None:
                    self._sequences[name] = restarted

    def leave(self, worker: Hashable) -> list[J]:
        """Remove a worker, end its sequences, since their state is lost, and return their queued jobs."""
        self._workers.pop(worker, None)
        lost = [name for name, sequence in self._sequences.items() if sequence.worker == worker]
        jobs = [waiting.job for name in lost for waiting in self._sequences[name].waiting]
        for name in lost:
            del self._sequences[name]
        return jobs

    def keeps(self, worker: Hashable) -> bool:
        """Return whether a worker has open sequences, as of the last check for ended ones."""
        return any(sequence.worker == worker for sequence in self._sequences.values())

    def discard(self, job: J) -> bool:
        """Remove ``job`` from any position; return whether it was queued."""
        sequence = self._sequences.get(self._sequence_of(job))
        if sequence is None:
            return False
        before = len(sequence.waiting)
        sequence.waiting = deque(waiting for waiting in sequence.waiting if waiting.job != job)
        return len(sequence.waiting) < before

    def expire(self, now: float) -> list[J]:
        """Remove and return the expired jobs."""
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
        """Remove and return all jobs, and close all sequences."""
        jobs = [waiting.job for waiting in self._all_waiting()]
        self._sequences.clear()
        return jobs

    def next_deadline(self, now: float, free: int = 1) -> float | None:
        """
        Return when `take` or `expire` will next return something if nothing else happens before.

        :return: A time not before ``now``, or ``None`` for never.
        """
        moments = [waiting.deadline for waiting in self._all_waiting() if waiting.deadline is not None]
        workers = [worker for worker, is_free in self._workers.items() if is_free]
        for worker in workers:
            chosen, closed = self._choose(now, worker)
            if chosen:
                moments.append(now if closed else chosen[0].waiting[0].arrival + self.max_delay)
        if workers and any(sequence.worker is None and sequence.waiting for sequence in self._sequences.values()):
            # The sequence waits for room at a worker, which the end of another sequence provides.
            moments += [end for each in self._sequences.values() if each.idle and (end := self._end_of(each)) < inf]
        return max(now, min(moments)) if moments else None

    def _all_waiting(self) -> Iterator[Waiting[J]]:
        return (waiting for sequence in self._sequences.values() for waiting in sequence.waiting)

    def _end_of(self, sequence: _Sequence[J]) -> float:
        return min(sequence.used + self.limits.idle, sequence.began + self.limits.life)

    def _sweep(self, now: float) -> None:
        """Remove the sequences that have ended."""
        for name, sequence in list(self._sequences.items()):
            if sequence.idle and now >= self._end_of(sequence):
                del self._sequences[name]
                if self._begins is not None:
                    self._ended[name] = now
        while self._ended and (len(self._ended) > MOST_OVER or now >= next(iter(self._ended.values())) + OVER_FOR):
            del self._ended[next(iter(self._ended))]

    def _choose(self, now: float, worker: Hashable) -> tuple[list[_Sequence[J]], bool]:
        """
        Return the sequences that provide the next batch, oldest job first, and whether it is closed to later arrivals.
        """
        chosen: list[_Sequence[J]] = []
        for sequence in self._eligible(now, worker):
            if chosen and sequence.waiting[0].kind != chosen[0].waiting[0].kind:
                return chosen, True
            chosen.append(sequence)
            if len(chosen) == self.batch_size:
                return chosen, True
        return chosen, False

    def _eligible(self, now: float, worker: Hashable) -> Iterator[_Sequence[J]]:
        """Yield the sequences from which a worker can accept a job, oldest job first."""
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
