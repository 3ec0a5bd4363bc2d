# SPDX-License-Identifier: Apache-2.0
"""
This module implements the way of requests from their queue to free workers.

It is event-driven: something is sent when a request comes, when a worker becomes
free, and when the queue's own deadline says so.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import chain, count

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_serve.batching.prefetch import Prefetch
from twisted_serve.batching.queue import BatchQueue, Hopeless, QueueFull, Waiting
from twisted_serve.batching.sequences import SequenceQueue
from twisted_serve.errors import TOO_LATE, RequestTimeout, ServeError, WorkerDied, WorkerFailed
from twisted_serve.eventloop.timeout import Timeout
from twisted_serve.interfaces import IWorker
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.scheduling.admission import RequestAdmission, Unavailability
from twisted_serve.scheduling.in_flight import InFlight
from twisted_serve.scheduling.pending import PendingRequest, fail_all
from twisted_serve.scheduling.quarantine import Quarantine
from twisted_serve.scheduling.queues import Queue
from twisted_serve.scheduling.retries import Retries
from twisted_serve.scheduling.worker_events import MissedAnswers
from twisted_serve.wire.messages import Item

# Seconds after which batches are looked for again if that has failed.
_ANOTHER_TRY = 1.0

_NOT_PASSED = "The request could not be passed to a worker, or its answer back."


class Dispatcher:
    """
    The queue of a model version, and the workers that take from it.

    :ivar staffed: Whether there is, or soon may be, a worker; while there is none requests are refused.
    :ivar after_dispatch: Called when the queue or the workers have changed; ``None``: nobody needs to know.
    :param shortage: Says why there is no worker.
    :param quarantine: What is refused because it has killed workers.
    :param retries: What is tried again.
    :param places: How many batches a worker can have at a time: more than one for an asynchronous one.
    :param observer: Told of batches and refusals.
    :param continuous: Whether batches go on, and others join them.
    :param ahead: Whether full batches may be sent to a worker that is still at another.
    :param ended_by: Lists the sequences that an answer ends, if batches go on; ``None`` if there are no sequences.
    """

    _log = Logger("twisted_serve.scheduling")

    def __init__(
        self,
        queue: Queue,
        clock: IReactorTime,
        response_timeout: float,
        refusals: RequestAdmission,
        quarantine: Quarantine,
        retries: Retries,
        shortage: Callable[[], Unavailability],
        observer: PoolObserver,
        places: int = 1,
        continuous: bool = False,
        ahead: bool = False,
        ended_by: Callable[[Item], Iterable[str]] | None = None,
    ) -> None:
        self.staffed = False
        self.after_dispatch: Callable[[], None] | None = None
        self._queue = queue
        self._learner = queue if isinstance(queue, BatchQueue) and queue.learns else None
        # Whether it depends on the worker what can be sent to it.
        self._sticky = isinstance(queue, SequenceQueue)
        self._clock = clock
        self._response_timeout = response_timeout
        self._refusals = refusals
        self._quarantine = quarantine
        self._retries = retries
        self._shortage = shortage
        self._observer = observer
        self._alarm = Timeout(clock, self._ring)
        self._places = places
        self._continuous = continuous
        self._ahead = queue if ahead and isinstance(queue, BatchQueue) else None
        self._ended_by = ended_by
        self._desks: dict[IWorker, list[InFlight]] = {}
        self._free: list[InFlight] = []
        # Those whose batch goes on at once.
        self._going: deque[InFlight] = deque()
        self._leaving: set[InFlight] = set()
        self._batch_ids = count(1)
        self._unanswered = MissedAnswers()
        self._dispatching = False

    @property
    def running(self) -> int:
        """How many requests are at workers."""
        return sum(desk.running for desk in self._all_desks())

    @property
    def free(self) -> int:
        """How many workers have nothing to do."""
        return len(self._free) if self._places == 1 else len(self._idle_workers())

    @property
    def at_work(self) -> bool:
        """Whether there is a worker that takes from the queue."""
        return bool(self._desks)

    def idlest(self) -> tuple[IWorker, float] | None:
        """Give the worker that has been free for longest, and since when; none whose memory is still needed."""
        idle = [each for each in self._idle_workers() if not self._queue.keeps(each[0])]
        return min(idle, key=lambda each: each[1], default=None)

    @property
    def busy(self) -> int:
        """How many workers have a batch."""
        return len({desk.worker for desk in self._all_desks() if desk.running})

    def submit(self, ticket: PendingRequest) -> None:
        """
        Take a request in.

        :raise ServiceUnavailable: when nobody can take it; it says why.
        """
        if not self.staffed:
            raise self._refusals.no_worker(ticket.versioned, self._shortage())
        now = self._clock.seconds()
        if self._quarantine and (left := self._quarantine.left(ticket.job, now)):
            raise self._refusals.quarantined(left)
        if self._learner is not None and ticket.deadline is not None:
            try:
                self._learner.check_in_time(now, ticket.deadline, len(self._desks), len(self._free))
            except Hopeless as e:
                raise self._refusals.too_late(e.seconds) from None
        if len(self._queue) >= self._queue.capacity:
            # Those that are too late take nobody's place.
            self._tell_expired(now)
        try:
            self._queue.put(ticket, now, ticket.deadline, ticket.kind)
        except QueueFull as e:
            raise self._refusals.queue_full(ticket.versioned, e, not self._desks) from None
        ticket.timing.queued = now
        self._dispatch(now)

    def forget(self, ticket: PendingRequest) -> None:
        """A client has gone: take its request out of the queue, or tell the worker that has it."""
        if not self._queue.discard(ticket):
            for desk in self._all_desks():
                desk.drop(ticket)

    def join(self, worker: IWorker, discard: Callable[[IWorker, str], None]) -> None:
        """
        Give batches to ``worker``.

        :param discard: Told of it, and why, when it turns out to be of no use any more.
        """
        served = None if self._learner is None else self._learner.served
        now = self._clock.seconds()
        desks = self._desks[worker] = [
            InFlight(
                worker,
                discard,
                self._clock,
                self._response_timeout,
                self,
                self._observer,
                served,
                cancels=self._places > 1,
                continuous=self._continuous,
                ahead=None if self._ahead is None else Prefetch(),
                unanswered=self._unanswered,
            )
            for _ in range(self._places)
        ]
        for desk in desks:
            desk.idle_since = now
        self._queue.join(worker)
        self._free += desks
        self._dispatch(now)

    def leave(self, worker: IWorker) -> None:
        """Give no more batches to ``worker``; it may finish what it has.  What waits for it alone is refused."""
        fail_all(self._queue.leave(worker), self._no_worker)
        for desk in self._desks.pop(worker, ()):
            if desk.running:
                self._leaving.add(desk)
            elif desk in self._free:
                self._free.remove(desk)
                desk.close()

    def refuse_waiting(self) -> None:
        """Answer everything in the queue: there is no worker for it."""
        fail_all(self._queue.drain(), self._last_error)

    def close(self) -> None:
        """Leave no timer, and no request without an answer."""
        self._alarm.cancel()
        self.refuse_waiting()
        for desk in self._all_desks():
            desk.close()

    def desk_free(self, desk: InFlight) -> None:
        """See `DeskOwner`."""
        now = self._clock.seconds()
        self._queue.done(desk.worker, now, desk.going)
        if desk.going:
            self._going.append(desk)
            self._dispatch(now)
        elif desk.running:
            self._dispatch(now)
        elif desk in self._leaving:
            self._leaving.discard(desk)
            desk.close()
        else:
            desk.idle_since = now
            self._free.append(desk)
            self._dispatch(now)

    def desk_heard(self, desk: InFlight, items: list[Item]) -> None:
        """See `DeskOwner`."""
        if self._ended_by is not None:
            self._queue.end(desk.worker, [name for item in items for name in self._ended_by(item)])

    def batch_failed(self, desk: InFlight, batch: list[PendingRequest], error: WorkerFailed) -> None:
        """See `DeskOwner`."""
        again = self._try_again(self._retries.failed(batch, error))
        self.desk_free(desk)
        _fail(batch, again, error)

    def desk_broken(self, desk: InFlight, reason: str, tickets: list[PendingRequest]) -> None:
        """See `DeskOwner`."""
        self._leaving.discard(desk)
        desk.close()
        # What has found its way back into the queue is not tried again: it may be what cannot be sent.
        for ticket in tickets:
            self._queue.discard(ticket)
        fail_all(tickets, lambda _: WorkerFailed(500, _NOT_PASSED))
        self.leave(desk.worker)
        desk.discard(desk.worker, reason)
        if self.staffed:
            self._dispatch(self._clock.seconds())
        else:
            self.refuse_waiting()

    def desk_lost(
        self,
        desk: InFlight,
        reason: str,
        batch: list[PendingRequest],
        error: WorkerDied,
        died: bool,
        ahead: list[list[PendingRequest]],
    ) -> None:
        """See `DeskOwner`."""
        # One that was sent away was ended by us when its grace was over.
        blame = desk not in self._leaving
        self._leaving.discard(desk)
        desk.close()
        self.leave(desk.worker)
        desk.discard(desk.worker, reason)
        groups = self._retries.died(batch, error, self._clock.seconds(), blame) if died else []
        # What it had not begun it has not died of, and has done nothing for.
        waiting = [[ticket for ticket in group if not ticket.done] for group in ahead]
        again = self._try_again([*groups, *filter(None, waiting)])
        if self.staffed:
            self._dispatch(self._clock.seconds())
        else:
            self.refuse_waiting()
        _fail(batch, again, error)

    def _all_desks(self) -> list[InFlight]:
        return [*chain.from_iterable(self._desks.values()), *self._leaving]

    def _idle_workers(self) -> list[tuple[IWorker, float]]:
        """List the workers that have nothing to do, and since when."""
        return [
            (worker, max(desk.idle_since for desk in desks))
            for worker, desks in self._desks.items()
            if not any(desk.running for desk in desks)
        ]

    def _next(self, now: float) -> tuple[InFlight, list[Waiting[PendingRequest]]] | None:
        """Find a batch that can go now, and the place where it is to go."""
        while self._going:
            desk = self._going[0]
            joining = self._joining(desk, now) if desk.going else []
            self._going.popleft()
            if desk.going:
                return desk, joining
        for desk in self._by_preference():
            batch = self._queue.take(now, len(self._free), desk.worker)
            if batch is not None:
                self._free.remove(desk)
                return desk, batch
            if not self._sticky:
                break
        return None if self._free else self._next_ahead(now)

    def _next_ahead(self, now: float) -> tuple[InFlight, list[Waiting[PendingRequest]]] | None:
        """Find a batch that gains nothing by waiting here, and the worker that is to begin it soonest."""
        if self._ahead is None or len(self._ahead) < self._ahead.batch_size:
            return None
        desk = max(chain.from_iterable(self._desks.values()), key=lambda desk: desk.room, default=None)
        if desk is None or desk.room < 1:
            return None
        batch = self._ahead.take_full(now)
        return None if batch is None else (desk, batch)

    def _joining(self, desk: InFlight, now: float) -> list[Waiting[PendingRequest]]:
        """Find who joins a batch that goes on; nobody does at a worker that is sent away."""
        if desk in self._leaving:
            return []
        return self._queue.take_more(now, desk.going, desk.going[0].kind, desk.worker)

    def _by_preference(self) -> Iterable[InFlight]:
        """
        List free places: at the worker that was busy last, which has the warmest caches, first.

        If each worker has several, there is only one: at the worker that has least to do.
        """
        if self._places == 1 or not self._free:
            return reversed(self._free)
        free = Counter(desk.worker for desk in self._free)
        return [max(self._free, key=lambda desk: free[desk.worker])]

    def _try_again(self, groups: list[list[PendingRequest]]) -> set[PendingRequest]:
        """Let requests wait once more, before all others, each group a batch of its own."""
        now = self._clock.seconds()
        for group in reversed(groups):
            self._queue.put_again([(ticket, ticket.deadline) for ticket in group], now)
        return {ticket for group in groups for ticket in group}

    def _dispatch(self, now: float) -> None:
        # An answer may come before `give` returns, and free its worker: that makes another turn here, not a recursion.
        if self._dispatching:
            return
        try:
            self._dispatching = True
            try:
                while (found := self._next(now)) is not None:
                    desk, batch = found
                    try:
                        self._give(desk, batch, now)
                    except Exception as e:
                        desk.break_off(e, [waiting.job for waiting in batch])
            finally:
                self._dispatching = False
            self._alarm.set(self._queue.next_deadline(now, len(self._free)))
            if self.after_dispatch is not None:
                self.after_dispatch()
        except Exception:
            self._look_again()

    def _give(self, desk: InFlight, batch: list[Waiting[PendingRequest]], now: float) -> None:
        going = len(desk.going)
        timings = [waiting.job.timing for waiting in batch]
        for timing, waiting in zip(timings, batch, strict=True):
            timing.queued, timing.sent = waiting.arrival, now
        try:
            desk.give(next(self._batch_ids), [waiting.job for waiting in batch])
        except WorkerDied:
            # It had died unnoticed and has seen nothing of these: they wait for another.
            self._queue.put_back(batch)
            if not self.staffed:
                self.refuse_waiting()
            return
        try:
            self._observer.batch_sent(timings, self._clock.seconds() - now, going)
        except Exception:
            self._log.failure("A batch could not be counted.")

    def _ring(self) -> None:
        now = self._clock.seconds()
        try:
            self._tell_expired(now)
        except Exception:
            self._look_again()
            return
        self._dispatch(now)

    def _look_again(self) -> None:
        """What waits goes on waiting, for another try."""
        self._log.failure("The requests that wait could not be given to workers; that is tried again.")
        self._alarm.set(self._clock.seconds() + _ANOTHER_TRY)

    def _tell_expired(self, now: float) -> None:
        fail_all(self._queue.expire(now), self._too_late)

    def _too_late(self, _ticket: PendingRequest) -> RequestTimeout:
        self._observer.refused("timeout")
        return RequestTimeout(TOO_LATE)

    def _last_error(self, ticket: PendingRequest) -> ServeError:
        return self._no_worker(ticket) if ticket.setback is None else ticket.setback.error.another()

    def _no_worker(self, ticket: PendingRequest) -> ServeError:
        return self._refusals.no_worker(ticket.versioned, self._shortage())


def _fail(batch: list[PendingRequest], again: set[PendingRequest], error: WorkerFailed) -> None:
    """Answer those of a batch that are not tried again."""
    fail_all([ticket for ticket in batch if ticket not in again], lambda _: error.another())
