# SPDX-License-Identifier: Apache-2.0
"""
Dispatch requests from their queue to free workers.

A batch is dispatched when it is full, at the end of a turn of the reactor in which requests have arrived, when a worker
becomes free, and when the queue's own deadline expires.
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
from twisted_serve.eventloop.turn_end import TurnEnd
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

_log = Logger("twisted_serve.scheduling")

# Seconds until dispatching is retried after an error.
_ANOTHER_TRY = 1.0

_NOT_PASSED = "The request could not be passed to a worker, or its answer back."


class Dispatcher:
    """
    A dispatcher between the queue of a model version and its ready workers.

    :ivar available: Whether there is a worker, or may be soon; while there is none, requests are refused.
    :ivar after_dispatch: Called when the queue or the workers have changed; ``None`` for no call.
    :param unavailability: Returns the reason why there is no worker.
    :param quarantine: Requests that are refused because they have killed workers.
    :param retries: The rules for retrying requests of failed batches.
    :param concurrency: How many batches a worker can run concurrently; more than one for an asynchronous worker.
    :param observer: Called with batches and refusals.
    :param continuous: Whether batches are continuous, so that queued requests join a running one.
    :param prefetches: Whether full batches may be prefetched to a busy worker.
    :param ended_by: Returns the sequences that a response ends, with continuous batching; ``None`` if the model is not
        stateful.
    """

    def __init__(
        self,
        queue: Queue,
        clock: IReactorTime,
        response_timeout: float,
        admission: RequestAdmission,
        quarantine: Quarantine,
        retries: Retries,
        unavailability: Callable[[], Unavailability],
        observer: PoolObserver,
        concurrency: int = 1,
        continuous: bool = False,
        prefetches: bool = False,
        ended_by: Callable[[Item], Iterable[str]] | None = None,
    ) -> None:
        self.available = False
        self.after_dispatch: Callable[[], None] | None = None
        self._queue = queue
        self._learner = queue if isinstance(queue, BatchQueue) and queue.learns else None
        # Whether the queue has requests that only one particular worker can take.
        self._sticky = isinstance(queue, SequenceQueue)
        self._clock = clock
        self._response_timeout = response_timeout
        self._admission = admission
        self._quarantine = quarantine
        self._retries = retries
        self._unavailability = unavailability
        self._observer = observer
        self._timeout = Timeout(clock, self._timeout_expired)
        self._turn_end = TurnEnd(clock, self._dispatch_arrived)
        self._concurrency = concurrency
        self._continuous = continuous
        self._prefetch_queue = queue if prefetches and isinstance(queue, BatchQueue) else None
        self._ended_by = ended_by
        self._in_flight: dict[IWorker, list[InFlight]] = {}
        self._free: list[InFlight] = []
        # Those with requests carried over, whose next batch is due immediately.
        self._continuing: deque[InFlight] = deque()
        self._leaving: set[InFlight] = set()
        self._batch_ids = count(1)
        self._missed = MissedAnswers()
        self._dispatching = False

    @property
    def running(self) -> int:
        """The number of requests at workers."""
        return sum(in_flight.running for in_flight in self._all_in_flight())

    @property
    def free(self) -> int:
        """The number of idle workers."""
        return len(self._free) if self._concurrency == 1 else len(self._idle_workers())

    @property
    def at_work(self) -> bool:
        """Whether there is a worker that takes from the queue."""
        return bool(self._in_flight)

    def idlest(self) -> tuple[IWorker, float] | None:
        """Return the worker that has been idle longest, and since when; skip workers that hold sequence state."""
        idle = [each for each in self._idle_workers() if not self._queue.keeps(each[0])]
        return min(idle, key=lambda each: each[1], default=None)

    @property
    def busy(self) -> int:
        """The number of workers that have a batch."""
        return len({in_flight.worker for in_flight in self._all_in_flight() if in_flight.running})

    def submit(self, request: PendingRequest) -> None:
        """
        Queue a request, or refuse it.

        :raise ServiceUnavailable: if no worker can take the request; the message says why.
        """
        if not self.available:
            raise self._admission.no_worker(request.versioned, self._unavailability())
        now = self._clock.seconds()
        if self._quarantine and (left := self._quarantine.left(request.job, now)):
            raise self._admission.quarantined(left)
        if self._learner is not None and request.deadline is not None:
            try:
                self._learner.check_in_time(now, request.deadline, len(self._in_flight), len(self._free))
            except Hopeless as e:
                raise self._admission.too_late(e.seconds) from None
        try:
            self._put(request, now)
        except QueueFull as e:
            raise self._admission.queue_full(request.versioned, e, not self._in_flight) from None
        request.timing.queued = now
        if request.deadline is None and self.after_dispatch is None and self._all_busy():
            # A batch that is answered makes room, and dispatches the next one.
            return
        if self._queue.batch_size == 1 or self._is_due():
            self._dispatch(now)
        else:
            self._turn_end.ask()

    def _put(self, request: PendingRequest, now: float) -> None:
        """
        Queue a request; expired ones do not keep it out.

        :raise QueueFull: if there is no room.
        """
        try:
            self._queue.put(request, now, request.deadline, request.kind)
        except QueueFull:
            self._fail_expired(now)
            self._queue.put(request, now, request.deadline, request.kind)

    def forget(self, request: PendingRequest) -> None:
        """Drop a request whose client has disconnected: remove it from the queue or cancel it at its worker."""
        if not self._queue.discard(request):
            for in_flight in self._all_in_flight():
                in_flight.drop(request)

    def join(self, worker: IWorker, discard: Callable[[IWorker, str], None]) -> None:
        """
        Add ``worker`` to the workers that get batches.

        :param discard: Called with the worker and a reason when the worker is to be discarded.
        """
        served = None if self._learner is None else self._learner.served
        now = self._clock.seconds()
        in_flights = self._in_flight[worker] = [
            InFlight(
                worker,
                discard,
                self._clock,
                self._response_timeout,
                self,
                self._observer,
                served,
                cancels=self._concurrency > 1,
                continuous=self._continuous,
                prefetch=None if self._prefetch_queue is None else Prefetch(),
                missed=self._missed,
            )
            for _ in range(self._concurrency)
        ]
        for in_flight in in_flights:
            in_flight.idle_since = now
        self._queue.join(worker)
        self._free += in_flights
        self._dispatch(now)

    def leave(self, worker: IWorker) -> None:
        """Send no more batches to ``worker``, which may finish its own, and refuse requests that only it can take."""
        fail_all(self._queue.leave(worker), self._no_worker)
        for in_flight in self._in_flight.pop(worker, ()):
            if in_flight.running:
                self._leaving.add(in_flight)
            elif in_flight in self._free:
                self._free.remove(in_flight)
                in_flight.close()

    def refuse_waiting(self) -> None:
        """Fail all queued requests because there is no worker for them."""
        fail_all(self._queue.drain(), self._last_error)

    def close(self) -> None:
        """Cancel all timeouts and fail all requests."""
        self._timeout.cancel()
        self.refuse_waiting()
        for in_flight in self._all_in_flight():
            in_flight.close()

    def batch_done(self, in_flight: InFlight, now: float) -> None:
        """Dispatch the next batch; see `InFlightOwner`."""
        if self._sticky:
            self._queue.done(in_flight.worker, now, in_flight.carried_over)
        if in_flight.carried_over:
            self._continuing.append(in_flight)
            self._dispatch(now)
        elif in_flight.busy:
            self._dispatch(now)
        elif in_flight in self._leaving:
            self._leaving.discard(in_flight)
            in_flight.close()
        else:
            in_flight.idle_since = now
            self._free.append(in_flight)
            self._dispatch(now)

    def responses_received(self, in_flight: InFlight, items: list[Item]) -> None:
        """End the sequences that the responses end; see `InFlightOwner`."""
        if self._ended_by is not None:
            self._queue.end(in_flight.worker, [name for item in items for name in self._ended_by(item)])

    def batch_failed(self, in_flight: InFlight, batch: list[PendingRequest], error: WorkerFailed) -> None:
        """Retry or fail a batch whose handler raised; see `InFlightOwner`."""
        retried = self._retry(self._retries.failed(batch, error))
        self.batch_done(in_flight, self._clock.seconds())
        _fail(batch, retried, error)

    def worker_broken(self, in_flight: InFlight, reason: str, requests: list[PendingRequest]) -> None:
        """Fail the requests and discard the worker; see `InFlightOwner`."""
        self._leaving.discard(in_flight)
        in_flight.close()
        # Requests that are back in the queue are not retried: one of them may be what cannot be sent.
        for request in requests:
            self._queue.discard(request)
        fail_all(requests, lambda _: WorkerFailed(500, _NOT_PASSED))
        self.leave(in_flight.worker)
        in_flight.discard(in_flight.worker, reason)
        if self.available:
            self._dispatch(self._clock.seconds())
        else:
            self.refuse_waiting()

    def worker_lost(
        self,
        in_flight: InFlight,
        reason: str,
        batch: list[PendingRequest],
        error: WorkerDied,
        died: bool,
        prefetched: list[list[PendingRequest]],
    ) -> None:
        """Discard the worker and retry or fail its requests; see `InFlightOwner`."""
        # A worker that was leaving has been killed by the server after its grace; its requests did not kill it.
        blame = in_flight not in self._leaving
        self._leaving.discard(in_flight)
        in_flight.close()
        self.leave(in_flight.worker)
        in_flight.discard(in_flight.worker, reason)
        groups = self._retries.died(batch, error, self._clock.seconds(), blame) if died else []
        # Prefetched batches were not begun: they did not kill the worker, and are dispatched again.
        waiting = [[request for request in group if not request.done] for group in prefetched]
        retried = self._retry([*groups, *filter(None, waiting)])
        if self.available:
            self._dispatch(self._clock.seconds())
        else:
            self.refuse_waiting()
        _fail(batch, retried, error)

    def _all_in_flight(self) -> list[InFlight]:
        return [*chain.from_iterable(self._in_flight.values()), *self._leaving]

    def _idle_workers(self) -> list[tuple[IWorker, float]]:
        """Return the idle workers, and since when each has been idle."""
        return [
            (worker, max(in_flight.idle_since for in_flight in in_flights))
            for worker, in_flights in self._in_flight.items()
            if not any(in_flight.running for in_flight in in_flights)
        ]

    def _has_work(self) -> bool:
        """Return whether a batch may be due; a queue of sequences also ends those that are over when it is asked."""
        return self._sticky or bool(self._continuing) or len(self._queue) > 0

    def _next(self, now: float) -> tuple[InFlight, list[Waiting[PendingRequest]]] | None:
        """Return the next batch to send and its destination, or ``None``."""
        while self._continuing:
            in_flight = self._continuing[0]
            joining = self._joining(in_flight, now) if in_flight.carried_over else []
            self._continuing.popleft()
            if in_flight.carried_over:
                return in_flight, joining
        free = len(self._free)
        if not free:
            return self._next_prefetch(now)
        for in_flight in self._by_preference() if self._sticky or self._concurrency > 1 else self._free[-1:]:
            batch = self._queue.take(now, free, in_flight.worker)
            if batch is not None:
                self._free.remove(in_flight)
                return in_flight, batch
        return None

    def _next_prefetch(self, now: float) -> tuple[InFlight, list[Waiting[PendingRequest]]] | None:
        """Return a full batch to prefetch and the destination with the most room, or ``None``."""
        if self._prefetch_queue is None or len(self._prefetch_queue) < self._prefetch_queue.batch_size:
            return None
        in_flight = self._roomiest()
        if in_flight is None:
            return None
        batch = self._prefetch_queue.take_full(now)
        return None if batch is None else (in_flight, batch)

    def _roomiest(self) -> InFlight | None:
        """Return the destination with the most room for batches that are prefetched; ``None`` if none has any."""
        found, most = None, 0
        for in_flights in self._in_flight.values():
            for in_flight in in_flights:
                room = in_flight.room
                if room > most:
                    found, most = in_flight, room
        return found

    def _all_busy(self) -> bool:
        """Return whether no worker can be sent a batch now, whatever is queued."""
        if self._free or self._sticky or self._continuing:
            return False
        return self._prefetch_queue is None or self._roomiest() is None

    def _joining(self, in_flight: InFlight, now: float) -> list[Waiting[PendingRequest]]:
        """Return the queued requests that join a continuous batch; none join at a worker that is leaving."""
        if in_flight in self._leaving:
            return []
        return self._queue.take_more(now, in_flight.carried_over, in_flight.carried_over[0].kind, in_flight.worker)

    def _by_preference(self) -> Iterable[InFlight]:
        """
        Return the free destinations in order of preference: the most recently busy first, for its warm caches.

        If workers run several batches concurrently, only one is returned: at the worker with the fewest batches.
        """
        if self._concurrency == 1:
            return reversed(self._free)
        free = Counter(in_flight.worker for in_flight in self._free)
        return [max(self._free, key=lambda each: free[each.worker])]

    def _retry(self, groups: list[list[PendingRequest]]) -> set[PendingRequest]:
        """Queue requests again, ahead of all others, and each group as a separate batch."""
        now = self._clock.seconds()
        for group in reversed(groups):
            self._queue.put_again([(request, request.deadline) for request in group], now)
        return {request for group in groups for request in group}

    def _is_due(self) -> bool:
        """Return whether no request that arrives later in this turn of the reactor could join the next batch."""
        waiting = len(self._queue)
        return waiting % self._queue.batch_size == 0 or waiting >= self._queue.capacity

    def _dispatch_arrived(self) -> None:
        if len(self._queue):
            self._dispatch(self._clock.seconds())

    def _dispatch(self, now: float) -> None:
        # A response may arrive before `send` returns, and free its worker: the loop below handles it without recursion.
        if self._dispatching:
            return
        try:
            self._dispatching = True
            try:
                while self._has_work() and (found := self._next(now)) is not None:
                    in_flight, batch = found
                    try:
                        self._send(in_flight, batch, now)
                    except Exception as e:
                        in_flight.abort(e, [waiting.job for waiting in batch])
            finally:
                self._dispatching = False
            # With an empty queue a timeout is not cleared: it would find nothing to do.
            if len(self._queue):
                self._timeout.set(self._queue.next_deadline(now, len(self._free)))
            if self.after_dispatch is not None:
                self.after_dispatch()
        except Exception:
            self._retry_dispatch()

    def _send(self, in_flight: InFlight, batch: list[Waiting[PendingRequest]], now: float) -> None:
        carried_over = len(in_flight.carried_over)
        requests, timings = [], []
        for waiting in batch:
            timing = waiting.job.timing
            timing.queued, timing.sent = waiting.arrival, now
            requests.append(waiting.job)
            timings.append(timing)
        try:
            in_flight.send(next(self._batch_ids), requests, now)
        except WorkerDied:
            # The worker had died unnoticed and has not seen these requests: they wait for another worker.
            self._queue.put_back(batch)
            if not self.available:
                self.refuse_waiting()
            return
        try:
            self._observer.batch_sent(timings, self._clock.seconds() - now, carried_over)
        except Exception:
            _log.failure("A batch could not be counted.")

    def _timeout_expired(self) -> None:
        now = self._clock.seconds()
        try:
            self._fail_expired(now)
        except Exception:
            self._retry_dispatch()
            return
        self._dispatch(now)

    def _retry_dispatch(self) -> None:
        """Schedule another attempt to dispatch; queued requests stay queued."""
        _log.failure("The requests that wait could not be given to workers; that is tried again.")
        self._timeout.set(self._clock.seconds() + _ANOTHER_TRY)

    def _fail_expired(self, now: float) -> None:
        fail_all(self._queue.expire(now), self._too_late)

    def _too_late(self, _request: PendingRequest) -> RequestTimeout:
        self._observer.refused("timeout")
        return RequestTimeout(TOO_LATE)

    def _last_error(self, request: PendingRequest) -> ServeError:
        return self._no_worker(request) if request.retry_state is None else request.retry_state.error.another()

    def _no_worker(self, request: PendingRequest) -> ServeError:
        return self._admission.no_worker(request.versioned, self._unavailability())


def _fail(batch: list[PendingRequest], retried: set[PendingRequest], error: WorkerFailed) -> None:
    """Fail the requests of a batch that are not retried."""
    fail_all([request for request in batch if request not in retried], lambda _: error.another())
