# SPDX-License-Identifier: Apache-2.0
"""
This module implements the way of requests from their queue to free workers.

It is event-driven: something is sent when a request comes, when a worker becomes
free, and when the queue's own deadline says so.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from twisted.internet.interfaces import IReactorTime

from twisted_serve.batching.queue import BatchQueue, Hopeless, QueueFull, Waiting
from twisted_serve.errors import RequestTimeout, WorkerDied, WorkerFailed
from twisted_serve.interfaces import IWorker
from twisted_serve.workers.alarm import Alarm
from twisted_serve.workers.desk import TOO_LATE, Desk
from twisted_serve.workers.quarantine import Quarantine
from twisted_serve.workers.refusals import Refusals, Shortage
from twisted_serve.workers.retries import Retries
from twisted_serve.workers.ticket import Ticket


class Dispatcher:
    """
    The queue of a model version, and the workers that take from it.

    :ivar staffed: Whether there is, or soon may be, a worker; while there is none requests are refused.
    :ivar after_dispatch: Called when the queue or the workers have changed; ``None``: nobody needs to know.
    :param shortage: Says why there is no worker.
    :param quarantine: What is refused because it has killed workers.
    :param retries: What is tried again.
    :param waited: Told for each request how many seconds it waited, when it is sent to a worker.
    """

    def __init__(
        self,
        queue: BatchQueue[Ticket],
        clock: IReactorTime,
        response_timeout: float,
        refusals: Refusals,
        quarantine: Quarantine,
        retries: Retries,
        shortage: Callable[[], Shortage],
        waited: Callable[[float], None],
    ) -> None:
        self.staffed = False
        self.after_dispatch: Callable[[], None] | None = None
        self._queue = queue
        self._clock = clock
        self._response_timeout = response_timeout
        self._refusals = refusals
        self._quarantine = quarantine
        self._retries = retries
        self._shortage = shortage
        self._waited = waited
        self._alarm = Alarm(clock, self._ring)
        self._desks: dict[IWorker, Desk] = {}
        self._free: list[Desk] = []
        self._leaving: set[Desk] = set()
        self._batch_ids = count(1)
        self._dispatching = False

    @property
    def running(self) -> int:
        """How many requests are at workers."""
        return sum(desk.running for desk in [*self._desks.values(), *self._leaving])

    @property
    def free(self) -> int:
        """How many workers have nothing to do."""
        return len(self._free)

    @property
    def at_work(self) -> bool:
        """Whether there is a worker that takes from the queue."""
        return bool(self._desks)

    def idlest(self) -> tuple[IWorker, float] | None:
        """Give the worker that has been free for longest, and since when."""
        desk = min(self._free, key=lambda desk: desk.idle_since, default=None)
        return None if desk is None else (desk.worker, desk.idle_since)

    def submit(self, ticket: Ticket) -> None:
        """
        Take a request in.

        :raise ServiceUnavailable: when nobody can take it; it says why.
        """
        if not self.staffed:
            raise self._refusals.no_worker(ticket.versioned, self._shortage())
        now = self._clock.seconds()
        if self._quarantine and (left := self._quarantine.left(ticket.job, now)):
            raise self._refusals.quarantined(left)
        if ticket.deadline is not None:
            try:
                self._queue.check_in_time(now, ticket.deadline, len(self._desks), len(self._free))
            except Hopeless as e:
                raise self._refusals.too_late(e.seconds) from None
        if len(self._queue) >= self._queue.capacity:
            # Those that are too late take nobody's place.
            self._tell_expired(now)
        try:
            self._queue.put(ticket, now, ticket.deadline, ticket.kind)
        except QueueFull:
            raise self._refusals.queue_full(ticket.versioned, len(self._queue), not self._desks) from None
        self._dispatch(now)

    def forget(self, ticket: Ticket) -> None:
        """A client has gone: take its request out of the queue, or tell the worker that has it."""
        if not self._queue.discard(ticket):
            for desk in [*self._desks.values(), *self._leaving]:
                desk.drop(ticket)

    def join(self, worker: IWorker, discard: Callable[[IWorker, str], None]) -> None:
        """
        Give batches to ``worker``.

        :param discard: Told of it, and why, when it turns out to be of no use any more.
        """
        served = self._queue.served if self._queue.learns else None
        desk = self._desks[worker] = Desk(worker, discard, self._clock, self._response_timeout, self, served)
        self.desk_free(desk)

    def leave(self, worker: IWorker) -> None:
        """Give no more batches to ``worker``; it may finish the one it has."""
        desk = self._desks.pop(worker, None)
        if desk is None:
            return
        if desk.running:
            self._leaving.add(desk)
        else:
            self._free.remove(desk)
            desk.close()

    def refuse_waiting(self) -> None:
        """Answer everything in the queue: there is no worker for it."""
        for ticket in self._queue.drain():
            if ticket.setback is None:
                ticket.fail(self._refusals.no_worker(ticket.versioned, self._shortage()))
            else:
                ticket.fail(ticket.setback.error.another())

    def close(self) -> None:
        """Leave no timer, and no request without an answer."""
        self._alarm.cancel()
        self.refuse_waiting()
        for desk in [*self._desks.values(), *self._leaving]:
            desk.close()

    def desk_free(self, desk: Desk) -> None:
        """See `DeskOwner`."""
        if desk in self._leaving:
            self._leaving.discard(desk)
            desk.close()
        else:
            now = desk.idle_since = self._clock.seconds()
            self._free.append(desk)
            self._dispatch(now)

    def batch_failed(self, desk: Desk, batch: list[Ticket], error: WorkerFailed) -> None:
        """See `DeskOwner`."""
        again = self._try_again(self._retries.failed(batch, error))
        self.desk_free(desk)
        _fail(batch, again, error)

    def desk_lost(self, desk: Desk, reason: str, batch: list[Ticket], error: WorkerDied, died: bool) -> None:
        """See `DeskOwner`."""
        # One that was sent away was ended by us when its grace was over.
        blame = desk not in self._leaving
        self._leaving.discard(desk)
        self._desks.pop(desk.worker, None)
        desk.close()
        desk.discard(desk.worker, reason)
        again: set[Ticket] = set()
        if died:
            again = self._try_again(self._retries.died(batch, error, self._clock.seconds(), blame))
        if self.staffed:
            self._dispatch(self._clock.seconds())
        else:
            self.refuse_waiting()
        _fail(batch, again, error)

    def _try_again(self, groups: list[list[Ticket]]) -> set[Ticket]:
        """Let requests wait once more, before all others, each group a batch of its own."""
        now = self._clock.seconds()
        for group in reversed(groups):
            self._queue.put_again([(ticket, ticket.deadline) for ticket in group], now)
        return {ticket for group in groups for ticket in group}

    def _dispatch(self, now: float) -> None:
        # An answer may come before `give` returns, and free its worker: that makes another turn here, not a recursion.
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._free and (batch := self._queue.take(now, len(self._free))) is not None:
                # The one that was busy last has the warmest caches.
                self._give(self._free.pop(), batch, now)
        finally:
            self._dispatching = False
        self._alarm.set(self._queue.next_deadline(now, len(self._free)))
        if self.after_dispatch is not None:
            self.after_dispatch()

    def _give(self, desk: Desk, batch: list[Waiting[Ticket]], now: float) -> None:
        try:
            desk.give(next(self._batch_ids), [waiting.job for waiting in batch])
        except WorkerDied:
            # It had died unnoticed and has seen nothing of these: they wait for another.
            self._queue.put_back(batch)
            if not self.staffed:
                self.refuse_waiting()
            return
        for waiting in batch:
            self._waited(now - waiting.arrival)

    def _ring(self) -> None:
        now = self._clock.seconds()
        self._tell_expired(now)
        self._dispatch(now)

    def _tell_expired(self, now: float) -> None:
        for ticket in self._queue.expire(now):
            ticket.fail(RequestTimeout(TOO_LATE))


def _fail(batch: list[Ticket], again: set[Ticket], error: WorkerFailed) -> None:
    """Answer those of a batch that are not tried again."""
    for ticket in batch:
        if ticket not in again:
            ticket.fail(error.another())
