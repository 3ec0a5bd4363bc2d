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

# Seconds in which a worker that is not stuck acknowledges a cancellation.
CALL_BACK_TIME = 10.0

_UNCOUNTED = "An answered batch could not be counted."


class InFlightOwner(Protocol):
    """The receiver of the events of an `InFlight`."""

    def desk_free(self, desk: InFlight) -> None:
        """Handle that a batch is done: the next one may be sent, starting with the requests carried over."""

    def desk_heard(self, desk: InFlight, items: list[Item]) -> None:
        """Handle the responses to a continuous batch; `desk_free` follows."""

    def batch_failed(self, desk: InFlight, batch: list[PendingRequest], error: WorkerFailed) -> None:
        """Handle that the handler raised: the batch needs a response, and the worker can take the next one."""

    def desk_broken(self, desk: InFlight, reason: str, tickets: list[PendingRequest]) -> None:
        """
        Discard a worker in an unknown state, after an error on the server's side.

        :param tickets: The requests in flight, including those being sent or answered; all of them need a response.
        """

    def desk_lost(
        self,
        desk: InFlight,
        reason: str,
        batch: list[PendingRequest],
        error: WorkerDied,
        died: bool,
        ahead: list[list[PendingRequest]],
    ) -> None:
        """
        Discard a worker that is lost, and answer or retry its batches.

        :param reason: Why the worker is discarded.
        :param batch: The batch that the worker had begun.
        :param died: Whether the worker died by itself, in which case another worker may be given the batch.
        :param ahead: The prefetched batches, which the worker has not begun.
        """


class _SentBatch:
    """
    A batch that was sent to the worker.

    :ivar size: The size of its inputs in bytes if it was prefetched, else 0.
    :ivar deadline: The earliest deadline among its unanswered requests; infinite if there is none.
    """

    __slots__ = ("batch_id", "deadline", "size", "tickets")

    def __init__(self, batch_id: int, tickets: list[PendingRequest], size: int) -> None:
        self.batch_id = batch_id
        self.tickets = tickets
        self.size = size
        self.see_deadlines()

    def see_deadlines(self) -> None:
        self.deadline = inf
        for ticket in self.tickets:
            if (
                ticket.deadline is not None
                and ticket.deadline < self.deadline
                and not (ticket.done or ticket.streaming)
            ):
                self.deadline = ticket.deadline


class InFlight:
    """
    The batches in flight at a worker, which runs one of them at a time; an asynchronous worker has several `InFlight`.

    Batches may be prefetched: they are sent ahead of time, and the worker begins the next one when it has answered the
    one before it.

    With continuous batching, requests that the handler has not finished are carried over to the next batch.

    :ivar going: Requests carried over to the next batch (continuous batching).
    :ivar idle_since: The time at which it last became free, in seconds of the clock.
    :ivar discard: Called with the worker and a reason when the worker is to be discarded.
    :param response_timeout: Seconds from a batch to its response, or to each chunk of a streamed one.
    :param cancels: Whether a batch that exceeds the timeout can be cancelled; otherwise the worker is discarded.
    :param continuous: Whether batches are continuous.
    :param ahead: Limits how many batches are prefetched; ``None`` for no prefetching.
    :param served: Called for each answered batch with its number of requests and its duration in seconds.
    :param observer: Called with each answered batch.
    :param unanswered: Counts batches that were not answered in time; shared by all `InFlight` of a model.
    """

    _log = Logger("twisted_serve.scheduling")

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
        ahead: Prefetch | None = None,
        unanswered: MissedAnswers | None = None,
    ) -> None:
        self.worker = worker
        self.going: list[PendingRequest] = []
        self.idle_since = 0.0
        self.discard = discard
        self._clock = clock
        self._response_timeout = response_timeout
        self._owner = owner
        self._served = served
        self._cancels = cancels
        self._continuous = continuous
        self._unanswered = unanswered or MissedAnswers()
        self._unsent: deque[tuple[PendingRequest, Item]] = deque()
        self._called_back = False
        self._observer = observer
        self._alarm = Timeout(clock, self._ring)
        self._ahead = ahead
        # In the order in which they were sent; the worker is running the first.
        self._given: deque[_SentBatch] = deque()
        self._lying = 0
        self._begun = 0.0
        self._reply_by = 0.0

    @property
    def running(self) -> int:
        """The number of requests at the worker."""
        return sum([len(given.tickets) for given in self._given]) + len(self.going)

    @property
    def room(self) -> int:
        """The number of further batches that can be sent ahead of time now."""
        if self._ahead is None or self._lying >= MOST_BYTES:
            return 0
        return self._ahead.batches + 1 - len(self._given)

    def give(self, batch_id: int, batch: list[PendingRequest]) -> None:
        """
        Send the worker a batch, together with the requests carried over from the last one.

        :raise WorkerDied: if the worker was lost before; the batch has not been begun.
        """
        going, self.going = self.going, []
        if going:
            batch = [*going, *batch]
        ahead = bool(self._given)
        try:
            for ticket in batch:
                ticket.on_flow = self._flow_changed
            size = sum([len(part.value) for ticket in batch for part in ticket.job.parts]) if ahead else 0
            given = _SentBatch(batch_id, batch, size)
            self._given.append(given)
            self._lying += size
            if ahead:
                self._set_alarm()
            else:
                self._begin()
            try:
                answer = self.worker.run(batch_id, [ticket.job for ticket in batch], self._chunk)
            except WorkerDied:
                # The batch has not been begun: it is returned to the caller without a response.
                self._take_back()
                if ahead:
                    # The worker will fail the batch that it is running by itself, very soon.
                    self._ahead = None
                    raise
                self._lose("it died")
                fail_all(going, lambda _: WorkerDied())
                raise
            except UnsendableError:
                # Requests that cannot be sent are answered all the same.
                self._log.failure("A batch could not be sent to worker {worker_id}", worker_id=self.worker.worker_id)
                self._take_back()
                if not ahead:
                    self._alarm.set(None)
                self._owner.batch_failed(self, batch, WorkerFailed(500, "The request could not be sent to a worker."))
                return
            # A late response to an earlier batch (of a hanging worker, for example) is recognized by the object.
            answer.addCallbacks(self._answered, self._failed, callbackArgs=(given,), errbackArgs=(given,))
        except WorkerDied:
            raise
        except Exception as e:
            self.break_off(e, batch)

    def drop(self, ticket: PendingRequest) -> None:
        """Cancel a request at the worker because its client has disconnected; do nothing if it is not here."""
        if any(ticket in given.tickets for given in self._given):
            try:
                self.worker.cancel([ticket.job.request_id])
                if ticket.paused:
                    self._expect_reply()
            except Exception as e:
                self.break_off(e)

    def close(self) -> None:
        """Cancel the timeout and fail all requests."""
        self._alarm.cancel()
        going, self.going = self.going, []
        for batch in [*self._clear(), going]:
            fail_all(batch, lambda _: WorkerDied())

    def break_off(self, error: Exception, tickets: Iterable[PendingRequest] = ()) -> None:
        """
        Discard the worker and have its requests answered, after an unexpected error.

        Any exception while sending to a worker or handling its response ends here, `MemoryError` included: the state
        of the connection and of the batches is then unknown.

        :param error: The exception that is being handled.
        :param tickets: Requests that were being sent or answered, and may not be in flight here.
        """
        self._log.failure("Something failed on the way to or from worker {id}", id=self.worker.worker_id)
        going, self.going = self.going, []
        theirs = dict.fromkeys([*chain.from_iterable(self._clear()), *going, *tickets])
        self._owner.desk_broken(self, f"its batch failed on our side: {type(error).__name__}", list(theirs))

    def _begin(self) -> None:
        """Start the clock for the first batch: the worker begins it now."""
        self._begun = self._clock.seconds()
        self._called_back = False
        self._expect_reply()

    def _end(self) -> None:
        """Remove the first batch, which is answered; the worker begins the next one if there is one."""
        self._given.popleft()
        if not self._given:
            self._alarm.set(None)
            return
        self._lying -= self._given[0].size
        self._begin()
        for ticket in self._given[0].tickets:
            ticket.timing.sent = self._begun

    def _take_back(self) -> None:
        """Remove the last batch, which was not sent."""
        self._lying -= self._given.pop().size

    def _clear(self) -> list[list[PendingRequest]]:
        self._alarm.set(None)
        self._lying = 0
        batches = [given.tickets for given in self._given]
        self._given.clear()
        return batches

    def _is_first(self, given: _SentBatch) -> bool:
        """
        Return whether a response is to the first batch.

        A response to any other batch in flight is a protocol violation, and the worker is discarded.
        """
        if self._given and self._given[0] is given:
            return True
        if given in self._given:
            self._lose("it answered a batch before the one that it had been given first")
        return False

    def _chunk(self, chunk: StreamChunk) -> None:
        if not self._given or chunk.batch_id != self._given[0].batch_id:
            return
        for ticket in self._given[0].tickets:
            if ticket.job.request_id == chunk.item.request_id:
                self._expect_reply()
                ticket.chunk(chunk.item)
                return
        self._lose("it answered a request that it had not been given")

    def _answered(self, predicted: Predicted, given: _SentBatch) -> None:
        try:
            self._take_answers(predicted, given)
        except Exception as e:
            self.break_off(e, given.tickets)

    def _take_answers(self, predicted: Predicted, given: _SentBatch) -> None:
        if not self._is_first(given):
            return
        items, batch = predicted.items, given.tickets
        if [item.request_id for item in items] != [ticket.job.request_id for ticket in batch]:
            self._lose("its answers did not fit the requests")
            return
        answered, begun = self._clock.seconds(), self._begun
        self._unanswered.count = 0
        self._end()
        if self._continuous:
            self._go_on(batch, items, answered)
            return
        if self._ahead is not None:
            self._ahead.took(predicted.seconds)
        if self._served is not None:
            self._served(len(batch), answered - begun)
        # The next batch is sent before the responses to this one are rendered.
        self._owner.desk_free(self)
        for ticket in batch:
            ticket.timing.answered = answered
        try:
            self._observer.batch_answered([ticket.timing for ticket in batch], self._clock.seconds() - answered)
        except Exception:
            self._log.failure(_UNCOUNTED)
        for ticket, item in zip(batch, items, strict=True):
            ticket.succeed(item)

    def _go_on(self, batch: list[PendingRequest], items: list[Item], answered: float) -> None:
        """Carry over unfinished requests whose clients are connected, then pass on the responses and chunks."""
        answers = list(zip(batch, items, strict=True))
        self._unsent += answers
        self.going = [ticket for ticket, item in answers if item.more and not ticket.done]
        for ticket in self.going:
            ticket.begun()
        for ticket, item in answers:
            if item.more and ticket.done:
                self._log.info(CLIENT_GONE, request_id=ticket.job.request_id)
        self._owner.desk_heard(self, items)
        self._owner.desk_free(self)
        overhead = self._clock.seconds() - answered
        for ticket, item in answers:
            if not item.more:
                # All handler calls of a request count as its own time, although it shared them with others.
                ticket.timing.answered = answered
                try:
                    self._observer.batch_answered([ticket.timing], overhead)
                except Exception:
                    self._log.failure(_UNCOUNTED)
        # A worker that answers before `give` returns has already re-entered here and sent the older responses.
        while self._unsent:
            ticket, item = self._unsent.popleft()
            if item.more:
                ticket.chunk(item)
            else:
                ticket.succeed(item)

    def _failed(self, failure: Failure, given: _SentBatch) -> None:
        try:
            self._take_error(failure, given)
        except Exception as e:
            self.break_off(e, given.tickets)

    def _take_error(self, failure: Failure, given: _SentBatch) -> None:
        if not self._is_first(given):
            return
        error = failure.value
        if isinstance(error, WorkerDied):
            self._lose(error.how, error.killed, died=True)
        elif isinstance(error, WorkerFailed):
            self._end()
            self._owner.batch_failed(self, given.tickets, error)
        else:
            self._log.failure("Worker {worker_id} failed", failure, worker_id=self.worker.worker_id)
            self._lose("it failed")

    def _call_back(self, now: float) -> None:
        """Cancel the requests; a worker that does not acknowledge that is discarded."""
        self._called_back = True
        self._reply_by = now + CALL_BACK_TIME
        self._alarm.set(self._reply_by)
        batch = self._given[0].tickets
        self.worker.cancel([ticket.job.request_id for ticket in batch])
        words = f"The request was not answered within {self._response_timeout:g} seconds."
        fail_all(batch, lambda _: WorkerFailed(500, words))

    def _lose(self, reason: str, killed: bool = False, died: bool = False) -> None:
        batches = self._clear()
        first = batches[0] if batches else []
        try:
            self._owner.desk_lost(self, reason, first, WorkerDied(killed), died, batches[1:])
        except Exception as e:
            self.break_off(e, chain.from_iterable(batches))

    def _flow_changed(self, ticket: PendingRequest) -> None:
        """Pause or resume a request's stream at the worker, as the client's reading demands."""
        if self._continuous or not self._given or ticket not in self._given[0].tickets:
            # A slow client must not hold up the others of a continuous batch; its write buffer is limited elsewhere.
            return
        tell = self.worker.pause if ticket.paused else self.worker.resume
        try:
            tell([ticket.job.request_id])
            self._expect_reply()
        except Exception as e:
            self.break_off(e)

    def _expect_reply(self) -> None:
        """Restart the response timeout; it is infinite while the worker waits for a paused client."""
        self._reply_by = self._clock.seconds() + self._response_timeout
        if not self._continuous:
            for ticket in self._given[0].tickets:
                if ticket.paused and not ticket.done:
                    self._reply_by = inf
        self._set_alarm()

    def _set_alarm(self) -> None:
        first = self._reply_by
        for given in self._given:
            first = min(first, given.deadline)
        self._alarm.set(None if first == inf else first)

    def _ring(self) -> None:
        try:
            self._see_time()
        except Exception as e:
            self.break_off(e)

    def _see_time(self) -> None:
        """Enforce the response timeout and the requests' deadlines."""
        now = self._clock.seconds()
        if now >= self._reply_by and self._cancels and not self._called_back:
            self._call_back(now)
            return
        if now >= self._reply_by:
            self._unanswered.another()
            self._lose(f"it did not answer within {self._response_timeout:g} seconds")
            return
        late = [ticket for given in self._given for ticket in given.tickets if ticket.expired(now) and not ticket.done]
        self.worker.cancel([ticket.job.request_id for ticket in late])
        fail_all(late, lambda _: RequestTimeout(TOO_LATE))
        for given in self._given:
            given.see_deadlines()
        if self._given:
            self._set_alarm()
