# SPDX-License-Identifier: Apache-2.0
"""
Dispatch requests from their queue to free workers.

A batch is dispatched when a request arrives, when a worker becomes free, and when the queue's own deadline expires.
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

# Seconds until dispatching is retried after an error.
_ANOTHER_TRY = 1.0

_NOT_PASSED = "The request could not be passed to a worker, or its answer back."


class Dispatcher:
    """
    A dispatcher between the queue of a model version and its ready workers.

    :ivar staffed: Whether there is a worker, or may be soon; while there is none, requests are refused.
    :ivar after_dispatch: Called when the queue or the workers have changed; ``None`` for no call.
    :param shortage: Returns the reason why there is no worker.
    :param quarantine: Requests that are refused because they have killed workers.
    :param retries: The rules for retrying requests of failed batches.
    :param places: How many batches a worker can run concurrently; more than one for an asynchronous worker.
    :param observer: Called with batches and refusals.
    :param continuous: Whether batches are continuous, so that queued requests join a running one.
    :param ahead: Whether full batches may be prefetched to a busy worker.
    :param ended_by: Returns the sequences that a response ends, with continuous batching; ``None`` if the model is not
        stateful.
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
        # Whether the queue has requests that only one particular worker can take.
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
        # Those with requests carried over, whose next batch is due immediately.
        self._going: deque[InFlight] = deque()
        self._leaving: set[InFlight] = set()
        self._batch_ids = count(1)
        self._unanswered = MissedAnswers()
        self._dispatching = False

    @property
    def running(self) -> int:
        """The number of requests at workers."""
        return sum(desk.running for desk in self._all_desks())

    @property
    def free(self) -> int:
        """The number of idle workers."""
        return len(self._free) if self._places == 1 else len(self._idle_workers())

    @property
    def at_work(self) -> bool:
        """Whether there is a worker that takes from the queue."""
        return bool(self._desks)

    def idlest(self) -> tuple[IWorker, float] | None:
        """Return the worker that has been idle longest, and since when; skip workers that hold sequence state."""
        idle = [each for each in self._idle_workers() if not self._queue.keeps(each[0])]
        return min(idle, key=lambda each: each[1], default=None)

    @property
    def busy(self) -> int:
        """The number of workers that have a batch."""
        return len({desk.worker for desk in self._all_desks() if desk.running})

    def submit(self, ticket: PendingRequest) -> None:
        """
        Queue a request, or refuse it.

        :raise ServiceUnavailable: if no worker can take the request; the message says why.
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
            # Expired requests must not keep this one out of the queue.
            self._tell_expired(now)
        try:
            self._queue.put(ticket, now, ticket.deadline, ticket.kind)
        except QueueFull as e:
            raise self._refusals.queue_full(ticket.versioned, e, not self._desks) from None
        ticket.timing.queued = now
        self._dispatch(now)

    def forget(self, ticket: PendingRequest) -> None:
        """Drop a request whose client has disconnected: remove it from the queue or cancel it at its worker."""
        if not self._queue.discard(ticket):
            for desk in self._all_desks():
                desk.drop(ticket)

    def join(self, worker: IWorker, discard: Callable[[IWorker, str], None]) -> None:
        """
        Add ``worker`` to the workers that get batches.

        :param discard: Called with the worker and a reason when the worker is to be discarded.
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
        """Send no more batches to ``worker``, which may finish its own, and refuse requests that only it can take."""
        fail_all(self._queue.leave(worker), self._no_worker)
        for desk in self._desks.pop(worker, ()):
            if desk.running:
                self._leaving.add(desk)
            elif desk in self._free:
                self._free.remove(desk)
                desk.close()

    def refuse_waiting(self) -> None:
        """Fail all queued requests because there is no worker for them."""
        fail_all(self._queue.drain(), self._last_error)

    def close(self) -> None:
        """Cancel all timeouts and fail all requests."""
        self._alarm.cancel()
        self.refuse_waiting()
        for desk in self._all_desks():
            desk.close()

    def desk_free(self, desk: InFlight) -> None:
        """Dispatch the next batch; see `InFlightOwner`."""
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
        """End the sequences that the responses end; see `InFlightOwner`."""
        if self._ended_by is not None:
            self._queue.end(desk.worker, [name for item in items for name in self._ended_by(item)])

    def batch_failed(self, desk: InFlight, batch: list[PendingRequest], error: WorkerFailed) -> None:
        """Retry or fail a batch whose handler raised; see `InFlightOwner`."""
        again = self._try_again(self._retries.failed(batch, error))
        self.desk_free(desk)
        _fail(batch, again, error)

    def desk_broken(self, desk: InFlight, reason: str, tickets: list[PendingRequest]) -> None:
        """Fail the requests and discard the worker; see `InFlightOwner`."""
        self._leaving.discard(desk)
        desk.close()
        # Requests that are back in the queue are not retried: one of them may be what cannot be sent.
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
        """Discard the worker and retry or fail its requests; see `InFlightOwner`."""
        # A worker that was leaving has been killed by the server after its grace; its requests did not kill it.
        blame = desk not in self._leaving
        self._leaving.discard(desk)
        desk.close()
        self.leave(desk.worker)
        desk.discard(desk.worker, reason)
        groups = self._retries.died(batch, error, self._clock.seconds(), blame) if died else []
        # Prefetched batches were not begun: they did not kill the worker, and are dispatched again.
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
        """Return the idle workers, and since when each has been idle."""
        return [
            (worker, max(desk.idle_since for desk in desks))
            for worker, desks in self._desks.items()
            if not any(desk.running for desk in desks)
        ]

    def _next(self, now: float) -> tuple[InFlight, list[Waiting[PendingRequest]]] | None:
        """Return the next batch to send and its destination, or ``None``."""
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
        """Return a full batch to prefetch and the destination with the most room, or ``None``."""
        if self._ahead is None or len(self._ahead) < self._ahead.batch_size:
            return None
        desk = max(chain.from_iterable(self._desks.values()), key=lambda desk: desk.room, default=None)
        if desk is None or desk.room < 1:
            return None
        batch = self._ahead.take_full(now)
        return None if batch is None else (desk, batch)

    def _joining(self, desk: InFlight, now: float) -> list[Waiting[PendingRequest]]:
        """Return the queued requests that join a continuous batch; none join at a worker that is leaving."""
        if desk in self._leaving:
            return []
        return self._queue.take_more(now, desk.going, desk.going[0].kind, desk.worker)

    def _by_preference(self) -> Iterable[InFlight]:
        """
        Return the free destinations in order of preference: the most recently busy first, for its warm caches.

        If workers run several batches concurrently, only one is returned: at the worker with the fewest batches.
        """
        if self._places == 1 or not self._free:
            return reversed(self._free)
        free = Counter(desk.worker for desk in self._free)
        return [max(self._free, key=lambda desk: free[desk.worker])]

    def _try_again(self, groups: list[list[PendingRequest]]) -> set[PendingRequest]:
        """Queue requests again, ahead of all others, and each group as a separate batch."""
        now = self._clock.seconds()
        for group in reversed(groups):
            self._queue.put_again([(ticket, ticket.deadline) for ticket in group], now)
        return {ticket for group in groups for ticket in group}

    def _dispatch(self, now: float) -> None:
        # A response may arrive before `give` returns, and free its worker: the loop below handles it without recursion.
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
            # The worker had died unnoticed and has not seen these requests: they wait for another worker.
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
        """Schedule another attempt to dispatch; queued requests stay queued."""
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
    """Fail the requests of a batch that are not retried."""
    fail_all([ticket for ticket in batch if ticket not in again], lambda _: error.another())
