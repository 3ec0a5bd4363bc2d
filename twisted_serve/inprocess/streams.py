# SPDX-License-Identifier: Apache-2.0
"""
Pass on a response that arrives in parts, at the pace of its reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.errors import ServiceUnavailable
from twisted_serve.wire.messages import Item

TOO_SLOW = "The stream was cancelled: its reader is too slow for a handler that does not wait."


@frozen
class Answer:
    """
    The response of a handler.

    :ivar status: The HTTP status that the handler has set, or 200.
    :ivar reason: The reason phrase that the handler has set, or ``""``.
    :ivar headers: The headers that the handler has set, as it has spelled them.
    :ivar body: The bytes that the handler has returned; empty in the head of a stream.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = field(repr=lambda body: f"<{len(body)} bytes>")


def answer_of(head: Item, body: bytes) -> Answer:
    """Return the response that begins with an item."""
    return Answer(head.status, head.phrase, dict(head.headers), body)


@implementer(IPushProducer)
class Stream:
    """
    A response that arrives in parts, to be read one by one or written to a consumer.

    ::

        stream = server.stream("story", b"Once upon a time")
        async for part in stream:
            ...

    The handler is paused while a part waits for the reader. A reader that stops before the end calls `cancel`; the
    worker waits for the reader otherwise. Read a stream in one way, and once.

    :ivar most_unread: The most bytes that wait for the reader, of a handler that produces although it is paused.
    """

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._unread = 0
        self.most_unread = 0
        self._head: Answer | None = None
        self._end: Failure | bool = False
        self._result: Deferred[Item] | None = None
        self._producer: IPushProducer | None = None
        self._waiting: list[Deferred[None]] = []
        self._consumer: IConsumer | None = None
        self._paused = False

    async def head(self) -> Answer:
        """
        Return status and headers, with an empty body, as soon as they are known.

        :raise ServeError: if the prediction failed before.
        """
        while self._head is None:
            self._raise_failure()
            await self._change()
        return self._head

    def __aiter__(self) -> Stream:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> bytes:
        """
        Return the next part, in order and never empty.

        :raise ServeError: if the prediction failed, after the parts that arrived before.
        """
        while not self._parts:
            self._raise_failure()
            if self._end:
                raise StopAsyncIteration
            if self._consumer is None:
                self._pause(False)
            await self._change()
        part = self._parts.popleft()
        self._unread -= len(part)
        return part

    async def write_to(self, consumer: IConsumer) -> Answer:
        """
        Write all parts to a consumer, at its pace, and return the head.

        :raise ServeError: if the prediction failed, possibly after parts were written.
        :raise CancelledError: if the consumer stopped the stream.
        """
        self._pause(False)
        self._consumer = consumer
        consumer.registerProducer(self, True)
        try:
            async for part in self:
                consumer.write(part)
                while self._paused and not isinstance(self._end, Failure):
                    await self._change()
        finally:
            self._consumer = None
            consumer.unregisterProducer()
        return await self.head()

    def cancel(self) -> None:
        """Cancel the prediction and discard its parts; the reader gets `CancelledError`. Later calls do nothing."""
        self._fail(Failure(CancelledError()))

    def pauseProducing(self) -> None:
        """Pause the handler; called by a consumer."""
        self._pause(True)

    def resumeProducing(self) -> None:
        """Let the handler continue; called by a consumer."""
        self._pause(False)
        self._changed()

    def stopProducing(self) -> None:
        """Cancel the prediction, because the consumer accepts no more."""
        self.cancel()

    def follow(self, result: Deferred[Item]) -> None:
        """Take the last part, or the failure, from the result of a pool."""
        self._result = result
        result.addCallbacks(self._finish, self._fail)

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Add a part."""
        if self._end:
            return
        self._producer = producer
        self._add(item)
        if self._unread > self.most_unread:
            self._fail(Failure(ServiceUnavailable(TOO_SLOW)))
            return
        if self._consumer is None:
            self._pause(True)
        self._changed()

    def _add(self, item: Item) -> None:
        if self._head is None:
            self._head = answer_of(item, b"")
        if item.body:
            self._parts.append(item.body)
            self._unread += len(item.body)

    def _finish(self, item: Item) -> None:
        if not self._end:
            self._add(item)
            self._end = True
            self._changed()

    def _fail(self, failure: Failure) -> None:
        if isinstance(self._end, Failure):
            return
        arrived = self._end
        self._end = failure
        if failure.check(CancelledError):
            self._parts.clear()
        if self._result is not None and not arrived:
            self._result.cancel()
        self._changed()

    def _raise_failure(self) -> None:
        if isinstance(self._end, Failure):
            self._end.raiseException()

    def _pause(self, paused: bool) -> None:
        if paused == self._paused:
            return
        self._paused = paused
        if self._producer is not None and not self._end:
            (self._producer.pauseProducing if paused else self._producer.resumeProducing)()

    def _change(self) -> Deferred[None]:
        change: Deferred[None] = Deferred()
        self._waiting.append(change)
        return change

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            # A reader that was cancelled waits no longer.
            if not change.called:
                change.callback(None)
