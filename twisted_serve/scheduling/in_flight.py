# SPDX-License-Identifier: Apache-2.0
"""
Track the batches in flight at one ready worker and enforce their time limits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain
from math import inf
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.batching.prefetch import MOST_BYTES, Prefetch
from twisted_serve.errors import TOO_LATE, RequestTimeout, WorkerDied, WorkerFailed
from twisted_serve.eventloop.timeout import Timeout
from twisted_serve.interfaces import IWorker
from twisted_serve.logs import CLIENT_GONE
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.scheduling.pending import PendingRequest, fail_all
from twisted_serve.scheduling.worker_events import MissedAnswers
from twisted_serve.wire.codec import UnsendableError
from twisted_serve.wire.messages import Item, Predicted, StreamChunk

_log = Logger("twisted_serve.scheduling")

# Seconds in which a worker that is not stuck acknowledges a cancellation.
CANCEL_TIME = 10.0

_UNCOUNTED = "An answered batch could not be counted."


class InFlightOwner(Protocol):
    """The receiver of the events of an `InFlight`."""

    def batch_done(self, in_flight: InFlight, now: float) -> None:
        """Handle that a batch is done: the next one may be sent, starting with the requests carried over."""

    def responses_received(self, in_flight: InFlight, items: list[Item]) -> None:
        """Handle the responses to a continuous batch; `batch_done` follows."""

    def batch_failed(self, in_flight: InFlight, batch: list[PendingRequest], error: WorkerFailed) -> None:
        """Handle that the handler raised: the batch needs a response, and the worker can take the next one."""

    def worker_broken(self, in_flight: InFlight, reason: str, requests: list[PendingRequest]) -> None:
        """
        Discard a worker in an unknown state, after an error on the server's side.

        :param requests: The requests in flight, including those being sent or answered; all of them need a response.
        """

    def worker_lost(
        self,
        in_flight: InFlight,
        reason: str,
        batch: list[PendingRequest],
        error: WorkerDied,
        died: bool,
        prefetched: list[list[PendingRequest]],
    ) -> None:
        """
        Discard a worker that is lost, and answer or retry its batches.

        :param reason: Why the worker is discarded.
        :param batch: The batch that the worker had begun.
        :param died: Whether the worker died by itself, in which case another worker may be given the batch.
        :param prefetched: The prefetched batches, which the worker has not begun.
        """


class _SentBatch:
    """
    A batch that was sent to the worker.

    :ivar size: The size of its inputs in bytes if it was prefetched, else 0.
    :ivar deadline: The earliest deadline among its unanswered requests; infinite if there is none.
    """

    __slots__ = ("batch_id", "deadline", "requests", "size")

    def __init__(self, batch_id: int, requests: list[PendingRequest], size: int) -> None:
        self.batch_id = batch_id
        self.requests = requests
        self.size = size
        self.update_deadline()

    def update_deadline(self) -> None:
        self.deadline = inf
        for request in self.requests:
            if (
                request.deadline is not None
                and request.deadline < self.deadline
                and not (request.done or request.streaming)
            ):
                self.deadline = request.deadline


class InFlight:
    """
    The batches in flight at a worker, which runs one of them at a time; an asynchronous worker has several `InFlight`.

    Batches may be prefetched: they are sent ahead of time, and the worker begins the next one when it has answered the
    one before it.

    With continuous batching, requests that the handler has not finished are carried over to the next batch.

    :ivar carried_over: Requests carried over to the next batch (continuous batching).
    :ivar idle_since: The time at which it last became free, in seconds of the clock.
    :ivar discard: Called with the worker and a reason when the worker is to be discarded.
    :param response_timeout: Seconds from a batch to its response, or to each chunk of a streamed one.
    :param cancels: Whether a batch that exceeds the timeout can be cancelled; otherwise the worker is discarded.
    :param continuous: Whether batches are continuous.
    :param prefetch: Limits how many batches are prefetched; ``None`` for no prefetching.
    :param served: Called for each answered batch with its number of requests and its duration in seconds.
    :param observer: Called with each answered batch.
    :param missed: Counts batches that were not answered in time; shared by all `InFlight` of a model.
    """

    def __init__(
        self,
        worker: IWorker,
        discard: Callable[[IWorker, str], None],
        clock: IReactorTime,
        response_timeout: float,
        owner: InFlightOwner,
        observer: PoolObserver,
        served: Callable[[int, float], None] | None = None,
        cancels: bool = False,
        continuous: bool = False,
        prefetch: Prefetch | None = None,
        missed: MissedAnswers | None = None,
    ) -> None:
        self.worker = worker
        self.carried_over: list[PendingRequest] = []
        self.idle_since = 0.0
        self.discard = discard
        self._clock = clock
        self._response_timeout = response_timeout
        self._owner = owner
        self._served = served
        self._cancels = cancels
        self._continuous = continuous
        self._missed = missed or MissedAnswers()
        self._undelivered: deque[tuple[PendingRequest, Item]] = deque()
        self._cancelled = False
        self._observer = observer
        self._timeout = Timeout(clock, self._timeout_expired)
        self._prefetch = prefetch
        # In the order in which they were sent; the worker is running the first.
        self._sent: deque[_SentBatch] = deque()
        self._prefetched_bytes = 0
        # Whether a request that was sent since the worker was last idle has a deadline.
        self._has_deadlines = False
        self._started_at = 0.0
        self._reply_by = 0.0

    @property
    def running(self) -> int:
        """The number of requests at the worker."""
        return sum([len(sent.requests) for sent in self._sent]) + len(self.carried_over)

    @property
    def busy(self) -> bool:
        """Whether the worker has a request."""
        return bool(self._sent or self.carried_over)

    @property
    def room(self) -> int:
        """The number of further batches that can be sent ahead of time now."""
        if self._prefetch is None or self._prefetched_bytes >= MOST_BYTES:
            return 0
        return self._prefetch.batches + 1 - len(self._sent)

    def send(self, batch_id: int, batch: list[PendingRequest], now: float) -> None:
        """
        Send the worker a batch, together with the requests carried over from the last one.

        :param now: The time in seconds of the clock.
        :raise WorkerDied: if the worker was lost before; the batch has not been begun.
        """
        carried_over, self.carried_over = self.carried_over, []
        if carried_over:
            batch = [*carried_over, *batch]
        prefetched = bool(self._sent)
        try:
            flow, jobs = self._flow_changed, []
            for request in batch:
                request.on_flow = flow
                jobs.append(request.job)
            size = sum([len(part.value) for job in jobs for part in job.parts]) if prefetched else 0
            sent = _SentBatch(batch_id, batch, size)
            self._sent.append(sent)
            self._prefetched_bytes += size
            if sent.deadline < inf:
                self._has_deadlines = True
            if not prefetched:
                self._begin_first(now)
            elif sent.deadline < inf:
                self._set_timeout()
            try:
                answer = self.worker.run(batch_id, jobs, self._chunk)
            except WorkerDied:
                # The batch has not been begun: it is returned to the caller without a response.
                self._remove_unsent()
                if prefetched:
                    # The worker will fail the batch that it is running by itself, very soon.
                    self._prefetch = None
                    raise
                self._discard_worker("it died")
                fail_all(carried_over, lambda _: WorkerDied())
                raise
            except UnsendableError:
                # Requests that cannot be sent are answered all the same.
                _log.failure("A batch could not be sent to worker {worker_id}", worker_id=self.worker.worker_id)
                self._remove_unsent()
                if not prefetched:
                    self._timeout.set(None)
                self._owner.batch_failed(self, batch, WorkerFailed(500, "The request could not be sent to a worker."))
                return
            # A late response to an earlier batch (of a hanging worker, for example) is recognized by the object.
            answer.addCallbacks(self._answered, self._failed, callbackArgs=(sent,), errbackArgs=(sent,))
        except WorkerDied:
            raise
        except Exception as e:
            self.abort(e, batch)

    def drop(self, request: PendingRequest) -> None:
        """Cancel a request at the worker because its client has disconnected; do nothing if it is not here."""
        if [sent for sent in self._sent if request in sent.requests]:
            try:
                self.worker.cancel([request.job.request_id])
                if request.paused:
                    self._expect_reply(self._clock.seconds())
            except Exception as e:
                self.abort(e)

    def close(self) -> None:
        """Cancel the timeout and fail all requests."""
        self._timeout.cancel()
        carried_over, self.carried_over = self.carried_over, []
        for batch in [*self._take_all(), carried_over]:
            fail_all(batch, lambda _: WorkerDied())

    def abort(self, error: Exception, requests: Iterable[PendingRequest] = ()) -> None:
        """
        Discard the worker and have its requests answered, after an unexpected error.

        Any exception while sending to a worker or handling its response ends here, `MemoryError` included: the state
        of the connection and of the batches is then unknown.

        :param error: The exception that is being handled.
        :param requests: Requests that were being sent or answered, and may not be in flight here.
        """
        _log.failure("Something failed on the way to or from worker {id}", id=self.worker.worker_id)
        carried_over, self.carried_over = self.carried_over, []
        affected = dict.fromkeys([*chain.from_iterable(self._take_all()), *carried_over, *requests])
        self._owner.worker_broken(self, f"its batch failed on our side: {type(error).__name__}", list(affected))

    def _begin_first(self, now: float) -> None:
        """Start the clock for the first batch: the worker begins it now."""
        self._started_at = now
        self._cancelled = False
        self._expect_reply(now)

    def _end_first(self, now: float) -> None:
        """Remove the first batch, which is answered; the worker begins the next one if there is one."""
        self._sent.popleft()
        if not self._sent:
            self._has_deadlines = False
            self._timeout.set(None)
            return
        self._prefetched_bytes -= self._sent[0].size
        self._begin_first(now)
        for request in self._sent[0].requests:
            request.timing.sent = self._started_at

    def _remove_unsent(self) -> None:
        """Remove the last batch, which was not sent."""
        self._prefetched_bytes -= self._sent.pop().size

    def _take_all(self) -> list[list[PendingRequest]]:
        self._timeout.set(None)
        self._prefetched_bytes = 0
        batches = [sent.requests for sent in self._sent]
        self._sent.clear()
        return batches

    def _is_first(self, sent: _SentBatch) -> bool:
        """
        Return whether a response is to the first batch.

        A response to any other batch in flight is a protocol violation, and the worker is discarded.
        """
        if self._sent and self._sent[0] is sent:
            return True
        if sent in self._sent:
            self._discard_worker("it answered a batch before the one that it had been given first")
        return False

    def _chunk(self, chunk: StreamChunk) -> None:
        if not self._sent or chunk.batch_id != self._sent[0].batch_id:
            return
        for request in self._sent[0].requests:
            if request.job.request_id == chunk.item.request_id:
                self._expect_reply(self._clock.seconds())
                request.chunk(chunk.item)
                return
        self._discard_worker("it answered a request that it had not been given")

    def _answered(self, predicted: Predicted, sent: _SentBatch) -> None:
        try:
            self._handle_responses(predicted, sent)
        except Exception as e:
            self.abort(e, sent.requests)

    def _handle_responses(self, predicted: Predicted, sent: _SentBatch) -> None:
        if not self._is_first(sent):
            return
        items, batch = predicted.items, sent.requests
        if not _fit(batch, items):
            self._discard_worker("its answers did not fit the requests")
            return
        answered, started_at = self._clock.seconds(), self._started_at
        self._missed.count = 0
        self._end_first(answered)
        if self._continuous:
            self._continue_batch(batch, items, answered)
            return
        if self._prefetch is not None:
            self._prefetch.took(predicted.seconds)
        if self._served is not None:
            self._served(len(batch), answered - started_at)
        # The next batch is sent before the responses to this one are rendered.
        self._owner.batch_done(self, answered)
        timings = []
        for request in batch:
            timing = request.timing
            timing.answered = answered
            timings.append(timing)
        try:
            self._observer.batch_answered(timings, self._clock.seconds() - answered)
        except Exception:
            _log.failure(_UNCOUNTED)
        for request, item in zip(batch, items, strict=True):
            request.succeed(item)

    def _continue_batch(self, batch: list[PendingRequest], items: list[Item], answered: float) -> None:
        """Carry over unfinished requests whose clients are connected, then pass on the responses and chunks."""
        answers = list(zip(batch, items, strict=True))
        self._undelivered += answers
        self.carried_over = [request for request, item in answers if item.more and not request.done]
        for request in self.carried_over:
            request.drop_inputs()
        for request, item in answers:
            if item.more and request.done:
                _log.info(CLIENT_GONE, request_id=request.job.request_id)
        self._owner.responses_received(self, items)
        self._owner.batch_done(self, answered)
        overhead = self._clock.seconds() - answered
        for request, item in answers:
            if not item.more:
                # All handler calls of a request count as its own time, although it shared them with others.
                request.timing.answered = answered
                try:
                    self._observer.batch_answered([request.timing], overhead)
                except Exception:
                    _log.failure(_UNCOUNTED)
        # A worker that answers before `send` returns has already re-entered here and sent the older responses.
        while self._undelivered:
            request, item = self._undelivered.popleft()
            if item.more:
                request.chunk(item)
            else:
                request.succeed(item)

    def _failed(self, failure: Failure, sent: _SentBatch) -> None:
        try:
            self._handle_error(failure, sent)
        except Exception as e:
            self.abort(e, sent.requests)

    def _handle_error(self, failure: Failure, sent: _SentBatch) -> None:
        if not self._is_first(sent):
            return
        error = failure.value
        if isinstance(error, WorkerDied):
            self._discard_worker(error.how, error.killed, died=True)
        elif isinstance(error, WorkerFailed):
            self._end_first(self._clock.seconds())
            self._owner.batch_failed(self, sent.requests, error)
        else:
            _log.failure("Worker {worker_id} failed", failure, worker_id=self.worker.worker_id)
            self._discard_worker("it failed")

    def _cancel_batch(self, now: float) -> None:
        """Cancel the requests; a worker that does not acknowledge that is discarded."""
        self._cancelled = True
        self._reply_by = now + CANCEL_TIME
        self._timeout.set(self._reply_by)
        batch = self._sent[0].requests
        self.worker.cancel([request.job.request_id for request in batch])
        words = f"The request was not answered within {self._response_timeout:g} seconds."
        fail_all(batch, lambda _: WorkerFailed(500, words))

    def _discard_worker(self, reason: str, killed: bool = False, died: bool = False) -> None:
        batches = self._take_all()
        first = batches[0] if batches else []
        try:
            self._owner.worker_lost(self, reason, first, WorkerDied(killed), died, batches[1:])
        except Exception as e:
            self.abort(e, chain.from_iterable(batches))

    def _flow_changed(self, request: PendingRequest) -> None:
        """Pause or resume a request's stream at the worker, as the client's reading demands."""
        if self._continuous or not self._sent or request not in self._sent[0].requests:
            # A slow client must not hold up the others of a continuous batch; its write buffer is limited elsewhere.
            return
        tell = self.worker.pause if request.paused else self.worker.resume
        try:
            tell([request.job.request_id])
            self._expect_reply(self._clock.seconds())
        except Exception as e:
            self.abort(e)

    def _expect_reply(self, now: float) -> None:
        """Restart the response timeout; it is infinite while the worker waits for a paused client."""
        self._reply_by = now + self._response_timeout
        if not self._continuous:
            for request in self._sent[0].requests:
                if request.paused and not request.done:
                    self._reply_by = inf
        self._set_timeout()

    def _set_timeout(self) -> None:
        first = self._reply_by
        if self._has_deadlines:
            for sent in self._sent:
                first = min(first, sent.deadline)
        self._timeout.set(None if first == inf else first)

    def _timeout_expired(self) -> None:
        try:
            self._enforce_limits()
        except Exception as e:
            self.abort(e)

    def _enforce_limits(self) -> None:
        """Enforce the response timeout and the requests' deadlines."""
        now = self._clock.seconds()
        if now >= self._reply_by and self._cancels and not self._cancelled:
            self._cancel_batch(now)
            return
        if now >= self._reply_by:
            self._missed.another()
            self._discard_worker(f"it did not answer within {self._response_timeout:g} seconds")
            return
        late = [
            request for sent in self._sent for request in sent.requests if request.expired(now) and not request.done
        ]
        self.worker.cancel([request.job.request_id for request in late])
        fail_all(late, lambda _: RequestTimeout(TOO_LATE))
        for sent in self._sent:
            sent.update_deadline()
        if self._sent:
            self._set_timeout()


def _fit(batch: list[PendingRequest], items: list[Item]) -> bool:
    """Return whether there is one item for each request, in order."""
    if len(items) != len(batch):
        return False
    for request, item in zip(batch, items, strict=True):  # noqa: SIM110 - a generator costs more than the loop
        if item.request_id != request.job.request_id:
            return False
    return True
