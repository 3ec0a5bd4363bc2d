# SPDX-License-Identifier: Apache-2.0
"""
Represent one request in a pool, which is answered exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Final, Protocol, TypeAlias

from attrs import define, frozen
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from twisted_serve.errors import BadRequest, ServeError, WorkerFailed
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.metrics.timing import Timing
from twisted_serve.wire.messages import Item, Job

_log = Logger("twisted_serve.scheduling")

_NOT_CALLED_BACK = "A request whose client has gone could not be called back."

#: Called with a chunk of a streamed response and the producer to pause while the client is not reading.
OnChunk: TypeAlias = Callable[[Item, IPushProducer], None]


class Recipient(Protocol):
    """
    Receives the response to one request: any number of chunks, then exactly one answer or error.

    :ivar streams: Whether it receives chunks; they are dropped otherwise.
    """

    @property
    def streams(self) -> bool:
        """Whether it receives chunks."""

    def answered(self, item: Item) -> None:
        """Receive the response, or the last part of it."""

    def failed(self, error: ServeError) -> None:
        """Receive the error in place of a response."""

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Receive a part of the response, and the producer to pause while the client is not reading."""


class DeferredAnswer:
    """
    A recipient with a Deferred.

    :ivar answer: Fires with the response or fails with `ServeError`. Cancel it when the client has disconnected.
    :ivar answered: Fires ``answer``.
    :ivar failed: Fails ``answer``.
    :param on_chunk: Called with each chunk of the response; ``None`` to drop the chunks.
    """

    __slots__ = ("_on_chunk", "_request", "answer", "answered", "failed")

    def __init__(self, on_chunk: OnChunk | None) -> None:
        self._on_chunk = on_chunk
        self._request: PendingRequest | None = None
        self.answer: Deferred[Item] = Deferred(self._cancelled)
        # Without a call between, which could fail and leave the Deferred without a result.
        self.answered: Callable[[Item], None] = self.answer.callback
        self.failed: Callable[[ServeError], None] = self.answer.errback

    def of(self, request: PendingRequest) -> Deferred[Item]:
        """Return the Deferred of a request that was queued with this recipient."""
        self._request = request
        return self.answer

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Pass a chunk on."""
        if self._on_chunk is not None:
            self._on_chunk(item, producer)

    @property
    def streams(self) -> bool:
        """Whether it receives chunks."""
        return self._on_chunk is not None

    def _cancelled(self, _answer: Deferred[Item]) -> None:
        if self._request is not None:
            try:
                self._request.abandon()
            except Exception:
                _log.failure(_NOT_CALLED_BACK)


class _Nothing:
    """
    The recipient of a request that is done: the request no longer refers to its own.

    Recipients refer to their requests; a cycle would stay in memory, with the request's body, until garbage is
    collected.
    """

    __slots__ = ()

    streams = False

    def answered(self, item: Item) -> None:
        """Do nothing."""

    def failed(self, error: ServeError) -> None:
        """Do nothing."""

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Do nothing."""


_NOTHING: Final = _Nothing()


def _ignore(_request: PendingRequest) -> None:
    """Do nothing: the request is not at a worker."""


@define(eq=False)
class RetryBudget:
    """The number of batches that may still be spent on one that failed; shared by all requests of that batch."""

    left: int


@frozen(eq=False)
class RetryState:
    """
    The failures of one request so far.

    :ivar error: The error that the client gets if the request is not retried.
    :ivar deaths: The number of workers that died while they had the request.
    :ivar budget: The retry budget of the request's batch; ``None`` before a handler has raised.
    """

    error: WorkerFailed
    deaths: int = 0
    budget: RetryBudget | None = None


@implementer(IPushProducer)
class PendingRequest:
    """
    A request that is queued or in flight, and the producer of its response's chunks.

    :ivar deadline: The time at which the request fails, in seconds of the clock; ``None`` for no limit.
    :ivar streaming: Whether the client has received a part of the response.
    :ivar paused: Whether the client is not reading at the moment.
    :ivar on_flow: Called with the request when ``paused`` changes.
    :ivar retry_state: The failures of the request so far; ``None`` for none.
    :ivar timing: The request's timestamps; the pool sets some of them.
    :param recipient: Receives the response.
    :param forget: Called with the request when the client has disconnected.
    :param observer: Called when the request fails.
    """

    __slots__ = (
        "_done",
        "_forget",
        "_observer",
        "_recipient",
        "deadline",
        "job",
        "on_flow",
        "paused",
        "retry_state",
        "streaming",
        "timing",
        "versioned",
    )

    def __init__(
        self,
        job: Job,
        recipient: Recipient,
        deadline: float | None,
        versioned: bool,
        forget: Callable[[PendingRequest], None],
        timing: Timing,
        observer: PoolObserver,
    ) -> None:
        self.job = job
        self.deadline = deadline
        self.versioned = versioned
        self.streaming = False
        self.paused = False
        self.on_flow: Callable[[PendingRequest], None] = _ignore
        self.retry_state: RetryState | None = None
        self.timing = timing
        self._observer = observer
        self._recipient = recipient
        self._forget = forget
        self._done = False

    @property
    def kind(self) -> Hashable:
        """
        The key of requests that may share a batch: only requests of an equal kind do.

        Handlers read from the first job of a batch whether to describe or explain, and which class to explain
        (``docs/torchserve/rest_api.md`` §19, W27), so descriptions and explanations are sent alone.
        """
        headers = self.job.headers
        return self if "describe" in headers or headers.get("explain") == "True" else None

    @property
    def done(self) -> bool:
        """Whether the request is answered or its client has disconnected."""
        return self._done

    def expired(self, now: float) -> bool:
        """Return whether the deadline is over and the client has received nothing yet."""
        return self.deadline is not None and self.deadline <= now and not self.streaming

    def chunk(self, item: Item) -> None:
        """Pass on a chunk of the response."""
        if self._done or not self._recipient.streams:
            return
        self.streaming = True
        try:
            self._recipient.chunk(item, self)
        except Exception:
            _log.failure("An intermediate answer could not be passed on.")

    def drop_inputs(self) -> None:
        """Drop the inputs: the worker has them, and later continuous batches only repeat the request's id."""
        if self.job.parts:
            self.job = replace(self.job, parts=[])

    def pauseProducing(self) -> None:
        """Pause the chunks of the response; see `IPushProducer`."""
        if not self.paused and not self._done:
            self.paused = True
            self.on_flow(self)

    def resumeProducing(self) -> None:
        """Resume the chunks of the response; see `IPushProducer`."""
        if self.paused:
            self.paused = False
            if not self._done:
                self.on_flow(self)

    def stopProducing(self) -> None:
        """Do nothing: the client has disconnected, and the request is abandoned as well; see `IProducer`."""

    def succeed(self, item: Item) -> None:
        """Answer with an item, or with an error if the item has a flaw; do nothing if the request is done."""
        if item.flaw:
            self.fail(BadRequest(item.flaw))
        elif not self._done:
            self._done = True
            recipient, self._recipient = self._recipient, _NOTHING
            try:
                recipient.answered(item)
            except Exception:
                _log.failure("An answer could not be passed on.")

    def fail(self, error: ServeError) -> None:
        """Answer with an error; do nothing if the request is done."""
        if not self._done:
            self._done = True
            recipient, self._recipient = self._recipient, _NOTHING
            try:
                self._observer.failed(error.status)
            except Exception:
                _log.failure("A failed request could not be counted.")
            recipient.failed(error)

    def abandon(self) -> None:
        """Drop the request, because the client has disconnected; do nothing if the request is done."""
        if self._done:
            return
        self._done = True
        self._recipient = _NOTHING
        try:
            self._forget(self)
        except Exception:
            _log.failure(_NOT_CALLED_BACK)


def fail_all(requests: Iterable[PendingRequest], error_of: Callable[[PendingRequest], ServeError]) -> None:
    """
    Fail requests, each with its own error; an exception for one of them does not affect the others.

    :param error_of: Returns the error for a request.
    """
    for request in requests:
        try:
            request.fail(error_of(request))
        except Exception:  # noqa: PERF203 - each for itself
            _log.failure("An error could not be told to a client; the client is told so.")
            request.fail(WorkerFailed(500, "The request could not be answered."))
