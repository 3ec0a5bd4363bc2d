# SPDX-License-Identifier: Apache-2.0
"""
This module implements the queue in which requests wait for a worker, and the rule by which they leave it as a batch.

It knows no clock: who calls it says what time it is, in seconds, and
``next_deadline`` says when to ask again.
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
    """When a batch that is not full is closed."""

    #: As soon as a worker is free.
    EAGER = "eager"
    #: When its oldest job has waited for the longest delay (the predecessor's rule, but counted from arrival).
    WINDOW = "window"
    #: As soon as waiting for another job would cost more than it saves, going by the last batches and arrivals.
    ADAPTIVE = "adaptive"


class QueueFull(Exception):
    """
    The queue holds as many jobs as it may.

    :ivar count: Of what there is too much.
    :cvar sentence: What that is, for whoever is refused.
    """

    sentence: ClassVar[str] = "The request queue is full ({waiting})."

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


class Hopeless(Exception):
    """
    The job would be answered after its deadline, however well it goes.

    :ivar seconds: How long it would take.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Apart:
    """The kind of jobs which are a batch of their own, due at once."""

    __slots__ = ()


class Waiting(Struct, Generic[J], frozen=True, eq=False):
    """
    A job in the queue.

    :ivar arrival: When it was put.
    :ivar deadline: The first moment at which it is too late to begin it; ``None`` for never.
    :ivar kind: Only jobs of equal kind may be in one batch.
    """

    job: J
    arrival: float
    deadline: float | None
    kind: Hashable

    def too_late(self, now: float) -> bool:
        """Say whether the deadline has passed."""
        return self.deadline is not None and self.deadline <= now


class BatchQueue(Generic[J]):
    """
    Jobs in order of arrival.

    A job is in the queue from ``put`` until exactly one of ``take``, ``discard``,
    ``expire`` and ``drain`` has given it back.

    ``free`` is everywhere the number of workers that could take a batch now.

    :param capacity: The most jobs that ``put`` lets in.
    :param batch_size: The most jobs in a batch.
    :param max_delay: Seconds that the oldest job waits for company, under `ClosePolicy.WINDOW`; at most, under
        `ClosePolicy.ADAPTIVE`.
    :raise ValueError: for a number that makes no queue.
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
        # Deadlines, earliest first.  Those of jobs which have left stay until they come up or outnumber the others.
        self._deadlines: list[tuple[float, int, Waiting[J]]] = []
        self._tie = count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def remaining(self) -> int:
        """How many more jobs fit in."""
        return max(0, self.capacity - len(self._waiting))

    @property
    def learns(self) -> bool:
        """Whether `served` is of use."""
        return self._forecast is not None

    def oldest_wait(self, now: float) -> float:
        """Say for how many seconds the first job has been waiting; 0 if there is none."""
        return max(0.0, now - next(iter(self._waiting.values())).arrival) if self._waiting else 0.0

    def put(self, job: J, now: float, deadline: float | None = None, kind: Hashable = None) -> None:
        """
        Let ``job`` wait.

        :raise QueueFull: when there is no room; nothing has changed then.
        :raise ValueError: when it waits already.
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
        See that a job that comes now can be answered by ``deadline``.

        A worker that has nothing to do is always given a try: its answer may show that times have changed.

        :param workers: How many there are.
        :raise Hopeless: if it cannot, as far as is known.
        """
        if self._forecast is None or (free and not self._waiting):
            return
        needed = self._forecast.answered_in(len(self._waiting), self.batch_size, workers)
        if now + needed > deadline:
            raise Hopeless(needed)

    def served(self, size: int, seconds: float) -> None:
        """Learn how long a batch took."""
        if self._forecast is not None:
            self._forecast.cost.observe(size, seconds)

    def put_back(self, batch: list[Waiting[J]]) -> None:
        """Undo the ``take`` of a batch: its jobs come first again, whatever the capacity."""
        for waiting in reversed(batch):
            self._enter(waiting)
            self._waiting.move_to_end(waiting.job, last=False)

    def put_again(self, jobs: Iterable[tuple[J, float | None]], now: float) -> None:
        """
        Let jobs wait which were taken and are to be tried once more, each with its deadline.

        They come before all others, whatever the capacity, and are a batch of their own.
        """
        apart = _Apart()
        self.put_back([Waiting(job, now, deadline, apart) for job, deadline in jobs])

    def take(self, now: float, free: int = 1, worker: Hashable = None) -> list[Waiting[J]] | None:
        """
        Give the next batch if it is time for one, whichever worker it is for.

        Jobs which are too late are passed over; `expire` has them.
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
        """Give the next batch if no other job could join it: one for a worker that is not free yet."""
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
        Give the jobs that join a batch which goes on: at once, as many as there is room for.

        :param going: What stays in the batch.
        :param kind: Of what kind that is; a job of another kind, and all that are behind it, wait for its end.
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
        """There is another worker: which one is all the same to these jobs."""

    def done(self, worker: Hashable, now: float, going: Sequence[J] = ()) -> None:
        """A worker has answered what it was given, of which some jobs go on."""

    def end(self, worker: Hashable, sequences: Iterable[str]) -> None:
        """A worker's handler says that sequences are over: there are none."""

    def leave(self, worker: Hashable) -> Sequence[J]:
        """A worker is gone; give the jobs which wait for it and no other."""
        return ()

    def keeps(self, worker: Hashable) -> bool:
        """Say whether a worker that has nothing to do is needed for what it remembers."""
        return False

    def discard(self, job: J) -> bool:
        """Take ``job`` out, wherever it stands; say whether it was there."""
        return self._waiting.pop(job, None) is not None

    def expire(self, now: float) -> list[J]:
        """Take out the jobs which are too late, so that somebody can tell their clients."""
        expired: list[Waiting[J]] = []
        try:
            while (first := self._first_deadline()) is not None and first.too_late(now):
                del self._waiting[first.job]
                expired.append(first)
        except BaseException:
            # Memory has run out, say: what was taken out already is told the next time.
            for waiting in expired:
                self._enter(waiting)
            raise
        return [waiting.job for waiting in expired]

    def drain(self) -> list[J]:
        """Take out everything."""
        jobs = list(self._waiting)
        self._waiting.clear()
        self._deadlines.clear()
        return jobs

    def next_deadline(self, now: float, free: int = 1) -> float | None:
        """
        Say when `take` or `expire` will next have something to give if nothing is put or discarded before.

        :return: A moment which is ``now`` at the earliest, or ``None`` for never.
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
            # A job that has left must not be kept (its body!) until a far deadline.
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
        """Say when a batch that another job could still join goes without it."""
        latest = batch[0].arrival + self.max_delay
        if self._forecast is None:
            return latest
        if free > 1:
            # The next job has a worker of its own: nobody gains by waiting for it.
            return batch[0].arrival
        size = len(batch)
        due = min(latest, batch[-1].arrival + self._forecast.patience(size))
        needed = self._forecast.cost.of(size)
        return min([due, *(waiting.deadline - needed for waiting in batch if waiting.deadline is not None)])

    def _next_batch(self, now: float) -> tuple[list[Waiting[J]], bool]:
        """Give the jobs that would go together, and whether no later arrival could join them."""
        batch: list[Waiting[J]] = []
        for waiting in self._waiting.values():
            if waiting.deadline is not None and waiting.too_late(now):
                continue
            if batch and waiting.kind != batch[0].kind:
                return batch, True
            batch.append(waiting)
            if len(batch) == self.batch_size:
                return batch, True
        if batch and isinstance(batch[0].kind, _Apart):
            return batch, True
        # Whoever fills the queue closes the batch: to refuse the next client while a worker is free helps nobody.
        return batch, not self.remaining
