# SPDX-License-Identifier: Apache-2.0
"""
Queue requests and group them into batches.

Sans-IO: callers pass the current time in seconds, and ``next_deadline`` returns when to call again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import count
from typing import ClassVar, Generic, TypeVar

from msgspec import Struct

from twisted_serve.batching.cost import Forecast

J = TypeVar("J", bound=Hashable)


class ClosePolicy(Enum):
    """When to dispatch a batch that is not full."""

    #: As soon as a worker is free.
    EAGER = "eager"
    #: When its oldest job has waited for the maximum delay (TorchServe's rule, but counted from arrival).
    WINDOW = "window"
    #: As soon as waiting for another job would cost more than it saves, estimated from recent batches and arrivals.
    ADAPTIVE = "adaptive"


class QueueFull(Exception):
    """
    The queue is at its capacity.

    :ivar count: The current count that is at its limit.
    :cvar sentence: The message for the client.
    """

    sentence: ClassVar[str] = "The request queue is full ({waiting})."

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


class Hopeless(Exception):
    """
    The job is expected to be answered after its deadline.

    :ivar seconds: The expected time.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _RetryGroup:
    """The kind of jobs that form a batch of their own, due immediately."""

    __slots__ = ()


class Waiting(Struct, Generic[J], frozen=True, eq=False):
    """
    A job in the queue.

    :ivar arrival: When it was put.
    :ivar deadline: The time from which it must not be started; ``None`` for no deadline.
    :ivar kind: Only jobs of equal kind may be in one batch.
    """

    job: J
    arrival: float
    deadline: float | None
    kind: Hashable

    def too_late(self, now: float) -> bool:
        """Return whether the deadline has passed."""
        return self.deadline is not None and self.deadline <= now


class BatchQueue(Generic[J]):
    """
    Jobs in order of arrival.

    A job is in the queue from ``put`` until exactly one of ``take``, ``discard``, ``expire`` and ``drain`` returns it.

    ``free`` is everywhere the number of workers that could accept a batch now.

    :param capacity: Maximum number of jobs that ``put`` accepts.
    :param batch_size: Maximum number of jobs in a batch.
    :param max_delay: Seconds that the oldest job waits for further jobs under `ClosePolicy.WINDOW`; the maximum under
        `ClosePolicy.ADAPTIVE`.
    :raise ValueError: for an invalid number.
    """

    def __init__(
        self, capacity: int, batch_size: int = 1, max_delay: float = 0.0, policy: ClosePolicy = ClosePolicy.EAGER
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, it must be at least 1")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, it must be at least 1")
        if not max_delay >= 0:
            raise ValueError(f"max_delay is {max_delay}, it must be at least 0")
        self.capacity = capacity
        self.batch_size = batch_size
        self.max_delay = 0.0 if policy is ClosePolicy.EAGER else max_delay
        self._forecast = Forecast(max_delay) if policy is ClosePolicy.ADAPTIVE else None
        self._waiting: OrderedDict[J, Waiting[J]] = OrderedDict()
        # A heap of deadlines, earliest first.  Entries of jobs that have left stay until they reach the top or
        # outnumber the others.
        self._deadlines: list[tuple[float, int, Waiting[J]]] = []
        self._tie = count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def remaining(self) -> int:
        """The number of further jobs that fit."""
        return max(0, self.capacity - len(self._waiting))

    @property
    def learns(self) -> bool:
        """Whether the queue uses the observations of `served`."""
        return self._forecast is not None

    def oldest_wait(self, now: float) -> float:
        """Return the seconds that the first job has been waiting; 0 if the queue is empty."""
        return max(0.0, now - next(iter(self._waiting.values())).arrival) if self._waiting else 0.0

    def put(self, job: J, now: float, deadline: float | None = None, kind: Hashable = None) -> None:
        """
        Queue ``job``.

        :raise QueueFull: if there is no room; the queue is unchanged.
        :raise ValueError: if the job is already queued.
        """
        if len(self._waiting) >= self.capacity:
            raise QueueFull(len(self._waiting))
        if job in self._waiting:
            raise ValueError(f"{job!r} is in the queue already")
        if self._forecast is not None:
            self._forecast.arrived(now)
        self._enter(Waiting(job, now, deadline, kind))

    def check_in_time(self, now: float, deadline: float, workers: int, free: int) -> None:
        """
        Check that a job that arrives now can be answered by ``deadline``.

        An idle worker is always tried: its response time may show that conditions have changed.

        :param workers: The number of workers.
        :raise Hopeless: if the job is expected to miss the deadline.
        """
        if self._forecast is None or (free and not self._waiting):
            return
        needed = self._forecast.answered_in(len(self._waiting), self.batch_size, workers, free)
        if now + needed > deadline:
            raise Hopeless(needed)

    def served(self, size: int, seconds: float) -> None:
        """Record the time of a batch."""
        if self._forecast is not None:
            self._forecast.cost.observe(size, seconds)

    def put_back(self, batch: list[Waiting[J]]) -> None:
        """Undo the ``take`` of a batch: return its jobs to the front, regardless of the capacity."""
        for waiting in reversed(batch):
            self._enter(waiting)
            self._waiting.move_to_end(waiting.job, last=False)

    def put_again(self, jobs: Iterable[tuple[J, float | None]], now: float) -> None:
        """
        Requeue jobs for a retry, each with its deadline.

        They are placed before all others, regardless of the capacity, and form a batch of their own.
        """
        apart = _RetryGroup()
        self.put_back([Waiting(job, now, deadline, apart) for job, deadline in jobs])

    def take(self, now: float, free: int = 1, worker: Hashable = None) -> list[Waiting[J]] | None:
        """
        Return the next batch if one is due, regardless of the worker.

        Expired jobs are skipped; `expire` returns them.
        """
        if not free:
            return None
        batch, closed = self._next_batch(now)
        if not batch or not (closed or now >= self._due(batch, free)):
            return None
        for waiting in batch:
            del self._waiting[waiting.job]
        return batch

    def take_full(self, now: float) -> list[Waiting[J]] | None:
        """Return the next batch if no other job could join it, for prefetching to a busy worker."""
        batch, _closed = self._next_batch(now)
        if len(batch) < self.batch_size:
            return None
        for waiting in batch:
            del self._waiting[waiting.job]
        return batch

    def take_more(
        self, now: float, going: Sequence[J], kind: Hashable = None, worker: Hashable = None
    ) -> list[Waiting[J]]:
        """
        Return the jobs that join a continuing batch immediately, as many as fit.

        :param going: The jobs that remain in the batch.
        :param kind: Their kind; a job of another kind, and all jobs behind it, wait for the end of the batch.
        """
        batch: list[Waiting[J]] = []
        for waiting in self._in_time(now):
            if len(going) + len(batch) >= self.batch_size or waiting.kind != kind:
                break
            batch.append(waiting)
        for waiting in batch:
            del self._waiting[waiting.job]
        return batch

    def join(self, worker: Hashable) -> None:
        """Add a worker, which needs no record here."""

    def done(self, worker: Hashable, now: float, going: Sequence[J] = ()) -> None:
        """Record that a worker has answered its batch, apart from the jobs that continue."""

    def end(self, worker: Hashable, sequences: Iterable[str]) -> None:
        """Ignore the end of sequences, which this queue does not track."""

    def leave(self, worker: Hashable) -> Sequence[J]:
        """Remove a worker and return the jobs that wait for it alone."""
        return ()

    def keeps(self, worker: Hashable) -> bool:
        """Return whether an idle worker must be kept for its state."""
        return False

    def discard(self, job: J) -> bool:
        """Remove ``job`` from any position; return whether it was queued."""
        return self._waiting.pop(job, None) is not None

    def expire(self, now: float) -> list[J]:
        """Remove and return the expired jobs."""
        expired: list[Waiting[J]] = []
        try:
            while (first := self._first_deadline()) is not None and first.too_late(now):
                del self._waiting[first.job]
                expired.append(first)
        except BaseException:
            # E.g. out of memory: the jobs removed so far are reported by the next call.
            for waiting in expired:
                self._enter(waiting)
            raise
        return [waiting.job for waiting in expired]

    def drain(self) -> list[J]:
        """Remove and return all jobs."""
        jobs = list(self._waiting)
        self._waiting.clear()
        self._deadlines.clear()
        return jobs

    def next_deadline(self, now: float, free: int = 1) -> float | None:
        """
        Return when `take` or `expire` will next return something if no job is put or discarded before.

        :return: A time not before ``now``, or ``None`` for never.
        """
        moments = []
        if (first := self._first_deadline()) is not None and first.deadline is not None:
            moments.append(first.deadline)
        if free:
            batch, closed = self._next_batch(now)
            if batch:
                moments.append(now if closed else self._due(batch, free))
        return max(now, min(moments)) if moments else None

    def _enter(self, waiting: Waiting[J]) -> None:
        self._waiting[waiting.job] = waiting
        if waiting.deadline is not None:
            heappush(self._deadlines, (waiting.deadline, next(self._tie), waiting))
            # A job that has left, with its body, must not be kept in memory until a distant deadline.
            if len(self._deadlines) > 2 * len(self._waiting) + 8:
                self._deadlines = [entry for entry in self._deadlines if self._waits(entry[2])]
                heapify(self._deadlines)

    def _waits(self, waiting: Waiting[J]) -> bool:
        return self._waiting.get(waiting.job) is waiting

    def _first_deadline(self) -> Waiting[J] | None:
        while self._deadlines and not self._waits(self._deadlines[0][2]):
            heappop(self._deadlines)
        return self._deadlines[0][2] if self._deadlines else None

    def _in_time(self, now: float) -> Iterator[Waiting[J]]:
        return (waiting for waiting in self._waiting.values() if not waiting.too_late(now))

    def _due(self, batch: list[Waiting[J]], free: int) -> float:
        """Return when a batch that another job could still join is dispatched without it."""
        latest = batch[0].arrival + self.max_delay
        if self._forecast is None:
            return latest
        if free > 1:
            # Another worker is free for the next job, so waiting gains nothing.
            return batch[0].arrival
        size = len(batch)
        due = min(latest, batch[-1].arrival + self._forecast.patience(size))
        needed = self._forecast.cost.of(size)
        return min([due, *(waiting.deadline - needed for waiting in batch if waiting.deadline is not None)])

    def _next_batch(self, now: float) -> tuple[list[Waiting[J]], bool]:
        """Return the jobs of the next batch, and whether it is closed to later arrivals."""
        batch: list[Waiting[J]] = []
        for waiting in self._waiting.values():
            if waiting.deadline is not None and waiting.too_late(now):
                continue
            if batch and waiting.kind != batch[0].kind:
                return batch, True
            batch.append(waiting)
            if len(batch) == self.batch_size:
                return batch, True
        if batch and isinstance(batch[0].kind, _RetryGroup):
            return batch, True
        # A full queue closes the batch: refusing the next client while a worker is free would gain nothing.
        return batch, len(self._waiting) >= self.capacity
