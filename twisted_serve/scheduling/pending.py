# SPDX-License-Identifier: Apache-2.0
"""
This module implements one request's stay in a pool, and the promise that it is answered exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeAlias

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

#: Gets an intermediate answer, and whom to pause while the client takes no more of them.
OnChunk: TypeAlias = Callable[[Item, IPushProducer], None]


def _nobody(_ticket: PendingRequest) -> None:
    """Tell nobody: the request is at no worker."""


@define(eq=False)
class RetryBudget:
    """The number of batches that may still be spent on one that failed; shared by all requests of that batch."""

    left: int


@frozen(eq=False)
class RetryState:
    """
    The failures of one request so far.

    :ivar error: The error that its client gets if it is not tried again.
    :ivar deaths: The number of workers that died of it.
    :ivar allowance: ``None`` before the first batch that failed.
    """

    error: WorkerFailed
    deaths: int = 0
    allowance: RetryBudget | None = None


@implementer(IPushProducer)
class PendingRequest:
    """
    A request which waits for a worker or is at one; it is what produces the chunks of its answer.

    :ivar answer: Fires with the answer, fails with `ServeError`.  Cancelling it says that the client has gone.
    :ivar deadline: The moment at which the client is told that it took too long.
    :ivar streaming: Whether the client has got a part of its answer already.
    :ivar paused: Whether the client takes no more of it at the moment.
    :ivar on_flow: Told when that changes.
    :ivar setback: What has gone wrong with it so far; ``None`` for nothing.
    :ivar timing: Its moments, of which the pool sets some.
    :param on_chunk: Gets the intermediate answers; ``None``: nobody wants them.
    :param forget: Called with the ticket when the client has gone.
    :param observer: Told when it fails.
    """

    __slots__ = (
        "_done",
        "_forget",
        "_observer",
        "_on_chunk",
        "answer",
        "deadline",
        "job",
        "on_flow",
        "paused",
        "setback",
        "streaming",
        "timing",
        "versioned",
    )

    _log = Logger("twisted_serve.scheduling")

    def __init__(
        self,
        job: Job,
        on_chunk: OnChunk | None,
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
        self.on_flow: Callable[[PendingRequest], None] = _nobody
        self.setback: RetryState | None = None
        self.timing = timing
        self._observer = observer
        self.answer: Deferred[Item] = Deferred(self._cancelled)
        self._on_chunk = on_chunk
        self._forget = forget
        self._done = False

    @property
    def kind(self) -> Hashable:
        """
        What may share a batch with this job.

        Handlers look at the first job of a batch to see what is asked for, and of which class to explain
        (``docs/torchserve/rest_api.md`` §19, W27): a description is asked for alone, and so is an explanation.
        """
        headers = self.job.headers
        return self if "describe" in headers or headers.get("explain") == "True" else None

    @property
    def done(self) -> bool:
        """Whether the client has its answer, or has gone."""
        return self._done

    def expired(self, now: float) -> bool:
        """Say whether the client has waited too long for a first sign."""
        return self.deadline is not None and self.deadline <= now and not self.streaming

    def chunk(self, item: Item) -> None:
        """Pass an intermediate answer on."""
        if self._done or self._on_chunk is None:
            return
        self.streaming = True
        try:
            self._on_chunk(item, self)
        except Exception:
            self._log.failure("An intermediate answer could not be passed on.")

    def begun(self) -> None:
        """The worker has its inputs, and goes on with it: what it is sent from now on is that the request is there."""
        if self.job.parts:
            self.job = replace(self.job, parts=[])

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        if not self.paused and not self._done:
            self.paused = True
            self.on_flow(self)

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        if self.paused:
            self.paused = False
            if not self._done:
                self.on_flow(self)

    def stopProducing(self) -> None:
        """See `IProducer`: the client has gone, which whoever cancels `answer` says as well."""

    def succeed(self, item: Item) -> None:
        """Answer, with an error if the request is at fault, unless the client has been answered or has gone."""
        if item.flaw:
            self.fail(BadRequest(item.flaw))
        elif not self._done:
            self._done = True
            self.answer.callback(item)

    def fail(self, error: ServeError) -> None:
        """Answer with an error, unless the client has been answered or has gone."""
        if not self._done:
            self._done = True
            try:
                self._observer.failed(error.status)
            except Exception:
                self._log.failure("A failed request could not be counted.")
            self.answer.errback(error)

    def _cancelled(self, _answer: Deferred[Item]) -> None:
        self._done = True
        try:
            self._forget(self)
        except Exception:
            self._log.failure("A request whose client has gone could not be called back.")


def fail_all(tickets: Iterable[PendingRequest], error_of: Callable[[PendingRequest], ServeError]) -> None:
    """
    Answer requests, each with an error of its own; what is raised over one of them costs the others nothing.

    :param error_of: Makes the error of a request.
    """
    for ticket in tickets:
        try:
            ticket.fail(error_of(ticket))
        except Exception:  # noqa: PERF203 - each for itself
            PendingRequest._log.failure("An error could not be told to a client; the client is told so.")
            ticket.fail(WorkerFailed(500, "The request could not be answered."))
