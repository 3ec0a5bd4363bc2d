# SPDX-License-Identifier: Apache-2.0
"""
Make predictions for the application that runs the server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from typing import TypeAlias

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.metrics.timing import Timing
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.planes.inputs import parts_of
from twisted_serve.planes.job_headers import EXPLAIN, PREDICT
from twisted_serve.wire.messages import Item, Job, Part

#: The input of a prediction: a body, or the fields of a form by name.
Input: TypeAlias = "bytes | Mapping[str, bytes | str]"


@frozen
class Answer:
    """
    The response of a handler.

    :ivar status: The HTTP status that the handler has set, or 200.
    :ivar reason: The reason that the handler has set for the status, or ``""``.
    :ivar headers: The headers that the handler has set, as it has spelled them.
    :ivar body: The bytes that the handler has returned; of a stream, its last part.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = field(repr=lambda body: f"<{len(body)} bytes>")


@implementer(IPushProducer)
class Stream:
    """
    A response that arrives in parts, to be taken one by one or written to a consumer.

    ::

        stream = server.stream("story", b"Once upon a time")
        async for part in stream:
            ...

    A handler that waits for its client is held back while parts are waiting here; one that does not wait goes on.
    Of its two ways to be read, use one, and once.
    """

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._head: Answer | None = None
        self._end: Failure | bool = False
        self._answer: Deferred[Item] | None = None
        self._producer: IPushProducer | None = None
        self._waiting: list[Deferred[None]] = []
        self._consumer: IConsumer | None = None
        self._held = False

    async def head(self) -> Answer:
        """
        Return status and headers, and no body, as soon as they are known.

        :raise ServeError: if the prediction failed before.
        """
        while self._head is None:
            if isinstance(self._end, Failure):
                self._end.raiseException()
            await self._news()
        return self._head

    def __aiter__(self) -> Stream:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> bytes:
        """
        Return the next part, in order and never empty.

        :raise ServeError: if the prediction failed.
        """
        while not self._parts:
            if isinstance(self._end, Failure):
                self._end.raiseException()
            if self._end:
                raise StopAsyncIteration
            self._hold(False)
            await self._news()
        return self._parts.popleft()

    async def write_to(self, consumer: IConsumer) -> Answer:
        """
        Write all parts to a consumer, at its pace, and return the head.

        :raise ServeError: if the prediction failed, possibly after parts were written.
        """
        consumer.registerProducer(self, True)
        try:
            self._consumer = consumer
            async for part in self:
                consumer.write(part)
                while self._held and not self._end:
                    await self._news()
        finally:
            self._consumer = None
            consumer.unregisterProducer()
        return await self.head()

    def cancel(self) -> None:
        """Give the prediction up; a reader gets `CancelledError <twisted.internet.defer.CancelledError>`."""
        if self._answer is not None:
            self._answer.cancel()

    def pauseProducing(self) -> None:
        """Hold the handler back; called by a consumer."""
        self._hold(True)

    def resumeProducing(self) -> None:
        """Let the handler go on; called by a consumer."""
        self._hold(False)
        self._tell()

    def stopProducing(self) -> None:
        """Give the prediction up: the consumer takes no more."""
        self.cancel()

    def follow(self, answer: Deferred[Item]) -> None:
        """Take the last part, or the failure, from the answer of a pool."""
        self._answer = answer
        answer.addCallbacks(self._finished, self._failed)

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Take a part."""
        self._producer = producer
        self._take(item)
        if self._consumer is None:
            self._hold(True)
        self._tell()

    def _finished(self, item: Item) -> None:
        self._take(item)
        self._end = True
        self._tell()

    def _failed(self, failure: Failure) -> None:
        self._end = failure
        self._tell()

    def _take(self, item: Item) -> None:
        if self._head is None:
            self._head = Answer(item.status, item.phrase, dict(item.headers), b"")
        if item.body:
            self._parts.append(item.body)

    def _hold(self, held: bool) -> None:
        if held == self._held:
            return
        self._held = held
        if self._producer is not None and not self._end:
            (self._producer.pauseProducing if held else self._producer.resumeProducing)()

    def _news(self) -> Deferred[None]:
        news: Deferred[None] = Deferred()
        self._waiting.append(news)
        return news

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.called:
                news.callback(None)


class Predictions:
    """
    The predictions of one run of a server.

    :param seconds: Return the time in seconds.
    """

    def __init__(self, plane: InferencePlane, seconds: Callable[[], float]) -> None:
        self._plane = plane
        self._seconds = seconds
        self._numbers = count(1)

    def predict(
        self,
        model: str,
        data: Input,
        content_type: str,
        version: str | None,
        headers: Mapping[str, str],
        timeout: float | None,
        explain: bool,
    ) -> Deferred[Answer]:
        """
        Submit a request; the intermediate responses of a streaming handler are joined.

        :raise ServeError: as `InferencePlane.predict`, and for a form that cannot be parsed.
        """
        items: list[Item] = []
        answer = self._submit(
            model, data, content_type, version, headers, timeout, explain, lambda item, _producer: items.append(item)
        )

        def whole(last: Item) -> Answer:
            first = items[0] if items else last
            body = b"".join([item.body for item in (*items, last)])
            return Answer(first.status, first.phrase, dict(first.headers), body)

        return answer.addCallback(whole)

    def stream(
        self,
        model: str,
        data: Input,
        content_type: str,
        version: str | None,
        headers: Mapping[str, str],
        timeout: float | None,
        explain: bool,
    ) -> Stream:
        """
        Submit a request; as `predict`, but return the response part by part.

        :raise ServeError: as `predict`.
        """
        stream = Stream()
        stream.follow(self._submit(model, data, content_type, version, headers, timeout, explain, stream.chunk))
        return stream

    def _submit(
        self,
        model: str,
        data: Input,
        content_type: str,
        version: str | None,
        headers: Mapping[str, str],
        timeout: float | None,
        explain: bool,
        on_chunk: Callable[[Item, IPushProducer], None],
    ) -> Deferred[Item]:
        now = self._seconds()
        sent = {**headers, **(EXPLAIN if explain else PREDICT)}
        if content_type:
            sent["Content-Type"] = content_type
        job = Job(f"in-process-{next(self._numbers)}", sent, _parts(data, content_type))
        deadline = None if timeout is None else now + timeout
        return self._plane.predict(model, version, job, on_chunk, deadline, Timing(now))


def _parts(data: Input, content_type: str) -> list[Part]:
    if isinstance(data, bytes):
        return parts_of(content_type, data)
    return [
        Part(name, "", value.encode() if isinstance(value, str) else value, decode=False)
        for name, value in data.items()
    ]
