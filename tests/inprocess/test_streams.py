# SPDX-License-Identifier: Apache-2.0
"""Tests for responses that arrive in parts: their order, their pace, their end."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_serve import Role
from twisted_serve.errors import ModelNotFound, ServiceUnavailable, WorkerFailed
from twisted_serve.inprocess.streams import Stream
from twisted_serve.testing.fakes import FakeWorker
from twisted_serve.testing.server import MemoryServer
from twisted_serve.wire.messages import Item


@implementer(IConsumer)
class Consumer:
    """Takes so many parts, and pauses until it is told to go on."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.parts: list[bytes] = []
        self.producer: Any = None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        assert self.left, "written to although paused"
        self.parts.append(data)
        self.left -= 1
        if not self.left:
            self.producer.pauseProducing()

    def go_on(self, most: int) -> None:
        """Take more parts."""
        self.left = most
        if self.producer is not None:
            self.producer.resumeProducing()


class StreamTests(SynchronousTestCase):
    """Streams of a server in memory."""

    def setUp(self) -> None:
        self.memory = MemoryServer({"max_response_size": 1000}, models={"m": {}})
        self.addCleanup(self.memory.close)
        self.worker: FakeWorker
        [self.worker] = self.memory.provider.workers
        self.worker.holding = True
        self.stream: Stream

    def start(self) -> None:
        """Begin a prediction, and read nothing yet."""
        self.stream = self.memory.server.stream("m", b"tell")

    def chunk(self, body: bytes, status: int = 200) -> None:
        """Send a part."""
        self.worker.chunk(Item(self.request_id, status, "", {"X": "1"}, body))

    def end(self, body: bytes = b"") -> None:
        """Send the last part."""
        self.worker.answer([Item(self.request_id, 200, "", {}, body)])

    @property
    def request_id(self) -> str:
        """The id of the job."""
        return self.worker.batches[-1][0].request_id

    def read(self) -> Deferred[list[bytes]]:
        """Read all parts."""

        async def read() -> list[bytes]:
            return [part async for part in self.stream]

        return Deferred.fromCoroutine(read())

    def next_part(self) -> Deferred[bytes]:
        """Read one part."""
        return Deferred.fromCoroutine(self.stream.__anext__())

    @given(st.lists(st.binary(max_size=5), max_size=8), st.binary(max_size=5), st.integers(0, 8))
    def test_parts(self, parts: list[bytes], last: bytes, before: int) -> None:
        """All parts arrive in order, whether the reader comes before, between, or after them; none is empty."""
        self.start()
        for part in parts[:before]:
            self.chunk(part)
        reading = self.read()
        for part in parts[before:]:
            self.chunk(part)
        self.end(last)
        self.assertEqual(self.successResultOf(reading), [part for part in (*parts, last) if part])
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.stream.head())).body, b"")

    def test_head(self) -> None:
        """Status and headers are those of the first part, as soon as it is there."""
        self.start()
        head = Deferred.fromCoroutine(self.stream.head())
        self.assertNoResult(head)
        self.chunk(b"", 206)
        answer = self.successResultOf(head)
        self.assertEqual((answer.status, answer.headers), (206, {"X": "1"}))

    def test_pace(self) -> None:
        """The handler is paused while a part is unread, and continues when the reader waits for more."""
        self.start()
        self.chunk(b"1")
        self.assertEqual(self.worker.paused, {self.request_id})
        self.assertEqual(self.successResultOf(self.next_part()), b"1")
        self.assertEqual(self.worker.paused, {self.request_id})
        more = self.next_part()
        self.assertEqual(self.worker.paused, set())
        self.chunk(b"2")
        self.assertEqual(self.successResultOf(more), b"2")
        self.assertEqual(self.worker.paused, {self.request_id})

    def test_consumer(self) -> None:
        """A consumer's pace is that of the handler, and nothing is written while it pauses."""
        self.start()
        self.chunk(b"0")
        consumer = Consumer(2)
        writing = Deferred.fromCoroutine(self.stream.write_to(consumer))
        self.assertEqual(self.worker.paused, set())
        for part in (b"1", b"2", b"3"):
            self.chunk(part)
        self.assertEqual(consumer.parts, [b"0", b"1"])
        self.assertEqual(self.worker.paused, {self.request_id})
        consumer.go_on(10)
        self.assertEqual(consumer.parts, [b"0", b"1", b"2", b"3"])
        self.assertEqual(self.worker.paused, set())
        self.end(b"4")
        self.assertEqual(self.successResultOf(writing).status, 200)
        self.assertEqual((consumer.parts[-1], consumer.producer), (b"4", None))

    def test_consumer_pauses_at_the_end(self) -> None:
        """What has arrived when the handler ends waits for the consumer, too."""
        self.start()
        consumer = Consumer(1)
        writing = Deferred.fromCoroutine(self.stream.write_to(consumer))
        self.chunk(b"1")
        self.chunk(b"2")
        self.end(b"3")
        self.assertNoResult(writing)
        consumer.go_on(1)
        self.assertEqual(consumer.parts, [b"1", b"2"])
        consumer.go_on(2)
        self.successResultOf(writing)
        self.assertEqual(consumer.parts, [b"1", b"2", b"3"])

    def test_consumer_stops(self) -> None:
        """A consumer that stops cancels the prediction, before its end or after."""
        for ended in (False, True):
            self.start()
            consumer = Consumer(1)
            writing = Deferred.fromCoroutine(self.stream.write_to(consumer))
            self.chunk(b"1")
            self.chunk(b"2")
            if ended:
                self.end()
            consumer.producer.stopProducing()
            self.failureResultOf(writing, CancelledError)
            self.assertEqual(self.request_id in self.worker.cancelled, not ended)
            if not ended:
                self.worker.answer()

    def test_cancel(self) -> None:
        """Cancelling twice is as cancelling once: the worker is told, the reader gets no more parts."""
        self.start()
        self.chunk(b"1")
        self.stream.cancel()
        self.stream.cancel()
        self.chunk(b"2")
        self.failureResultOf(self.read(), CancelledError)
        self.assertEqual(self.worker.cancelled, [self.request_id])

    def test_cancelled_reader(self) -> None:
        """A reader that is cancelled leaves the stream to the next."""
        self.start()
        reading = self.next_part()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.chunk(b"1")
        self.assertEqual(self.successResultOf(self.next_part()), b"1")

    def test_fails_in_mid_stream(self) -> None:
        """A handler that raises after some parts: the reader gets these, then the error."""
        self.start()
        self.chunk(b"1")
        self.worker.answer(WorkerFailed(500, "in mid-stream"))
        self.assertEqual(self.successResultOf(self.next_part()), b"1")
        for _ in range(2):
            self.failureResultOf(self.next_part(), WorkerFailed)

    def test_dies(self) -> None:
        """A worker that dies ends the stream with an error."""
        self.start()
        reading = self.read()
        self.chunk(b"1")
        self.worker.kill()
        self.failureResultOf(reading, WorkerFailed)

    def test_fails_at_once(self) -> None:
        """A prediction that is not possible fails where the stream is read; an unread one is not logged."""
        self.stream = self.memory.server.stream("unknown")
        self.failureResultOf(Deferred.fromCoroutine(self.stream.head()), ModelNotFound)
        self.failureResultOf(self.read(), ModelNotFound)
        del self.stream
        self.memory.server.stream("unknown")

    def test_does_not_wait(self) -> None:
        """A handler that produces although it is paused is cancelled at a bound."""
        self.start()
        bound = self.memory.server.site_of(Role.INFERENCE).limits.unsent
        self.chunk(b"x" * bound)
        self.assertEqual(self.worker.cancelled, [])
        self.chunk(b"x")
        self.assertEqual(self.worker.cancelled, [self.request_id])
        failure = self.failureResultOf(self.read().addCallback(lambda parts: None), ServiceUnavailable)
        self.assertIn("too slow", str(failure.value))
