# SPDX-License-Identifier: Apache-2.0
"""Tests for clients of a pool that disconnect, read slowly, or have a deadline."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer

from tests.scheduling.pool_bench import PoolTestCase, job
from twisted_serve.errors import RequestTimeout, WorkerDied
from twisted_serve.wire.messages import Item


class ClientTests(PoolTestCase):
    """Clients that disconnect or stop waiting."""

    def test_gone_while_waiting(self) -> None:
        """The request of a client that disconnects is removed from the queue."""
        bench = self.running(holding=True)
        bench.pool.submit(job("1"))
        gone = bench.pool.submit(job("2"))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(0, bench.pool.status().pending)
        bench.worker.answer()
        self.assertEqual(1, len(bench.worker.batches))

    def test_gone_while_running(self) -> None:
        """A request at a worker is cancelled when its client disconnects; the rest of its batch is answered."""
        bench = self.running(holding=True, batch_size=2)
        bench.pool.submit(job("0"))
        gone, stays = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        bench.worker.answer()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(["1"], bench.worker.cancelled)
        bench.worker.answer()
        self.assertEqual("2", self.successResultOf(stays).request_id)

    def test_gone_after_the_answer(self) -> None:
        """A client that disconnects after its response has no effect."""
        bench = self.running()
        bench.pool.submit(job()).cancel()
        self.assertEqual([], bench.worker.cancelled)

    def test_client_timeout_in_the_queue(self) -> None:
        """A request that has waited as long as the version allows fails, and is not sent to a worker."""
        bench = self.running(holding=True, client_timeout=1500)
        bench.pool.submit(job("1")).addErrback(lambda _: None)
        late = bench.pool.submit(job("2"))
        bench.clock.advance(1.5)
        self.assertEqual(408, self.failed(late, RequestTimeout).status)
        bench.worker.answer()
        self.assertEqual(1, len(bench.worker.batches))

    def test_client_timeout_at_a_worker(self) -> None:
        """A request at a worker fails at its deadline, too; the worker's response is dropped."""
        bench = self.running(holding=True, client_timeout=1500)
        late = bench.pool.submit(job("1"))
        bench.clock.advance(1.5)
        self.failed(late, RequestTimeout)
        self.assertEqual(["1"], bench.worker.cancelled)
        bench.worker.answer()
        bench.worker.holding = False
        self.successResultOf(bench.pool.submit(job("2")))

    def test_own_deadline(self) -> None:
        """A client's deadline may be earlier than the version's; the rest of its batch is not affected."""
        bench = self.running(holding=True, batch_size=2, client_timeout=9000)
        bench.pool.submit(job("0"))
        hasty, patient = bench.pool.submit(job("1"), deadline=2.0), bench.pool.submit(job("2"))
        bench.worker.answer()
        bench.clock.advance(2.0)
        self.failed(hasty, RequestTimeout)
        self.assertNoResult(patient)
        bench.clock.advance(7.0)
        self.failed(patient, RequestTimeout)

    def test_everything_ends_with_a_timeout(self) -> None:
        """A callback of a request that timed out may retire the pool."""
        bench = self.running(holding=True, batch_size=2)
        bench.pool.submit(job("0"))
        hasty = bench.pool.submit(job("1"), deadline=2.0)
        patient = bench.pool.submit(job("2"))
        bench.worker.answer()
        hasty.addErrback(lambda _: bench.pool.retire(0.0))
        bench.clock.advance(2.0)
        self.successResultOf(hasty)
        self.failed(patient, WorkerDied)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_stream(self) -> None:
        """Chunks are passed on in order, before the response; each one restarts the response timeout."""
        bench = self.running(holding=True, response_timeout=5, client_timeout=6000)
        parts: list[bytes] = []
        answer = bench.pool.submit(job("s"), lambda item, _producer: parts.append(item.body))
        for part in (b"1", b"2", b"3"):
            bench.clock.advance(4.0)
            bench.worker.chunk(Item("s", 200, "", {}, part))
        bench.worker.answer([Item("s", 200, "", {}, b"end")])
        self.assertEqual([b"1", b"2", b"3"], parts)
        self.assertEqual(b"end", self.successResultOf(answer).body)

    def test_stream_stops(self) -> None:
        """A stream that stops half-way fails, and its worker is replaced."""
        bench = self.running(holding=True, response_timeout=5)
        answer = bench.pool.submit(job("s"), lambda _item, _producer: None)
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        bench.clock.advance(5.0)
        self.failed(answer, WorkerDied)

    def test_slow_client(self) -> None:
        """While a client is not reading, the worker is paused and its response timeout does not run."""
        bench = self.running(holding=True, response_timeout=5, batch_size=2)
        producers: list[IPushProducer] = []
        answer = bench.pool.submit(job("s"), lambda _item, producer: producers.append(producer))
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        [producer] = producers
        producer.pauseProducing()
        producer.pauseProducing()
        self.assertEqual({"s"}, bench.worker.paused)
        bench.clock.advance(1000.0)
        producer.resumeProducing()
        self.assertEqual(set(), bench.worker.paused)
        bench.clock.advance(4.0)
        self.assertNoResult(answer)
        bench.clock.advance(1.0)
        self.failed(answer, WorkerDied)
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertEqual(set(), bench.worker.paused)

    def test_slow_client_leaves(self) -> None:
        """A paused client that disconnects frees its worker like any other client."""
        bench = self.running(holding=True, response_timeout=5)
        producers: list[IPushProducer] = []
        answer = bench.pool.submit(job("s"), lambda _item, producer: producers.append(producer))
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        producers[0].pauseProducing()
        bench.clock.advance(1000.0)
        answer.addErrback(lambda _: None).cancel()
        self.assertEqual(["s"], bench.worker.cancelled)
        bench.clock.advance(5.0)
        self.assertFalse(bench.provider.workers[0].alive)

    def test_slow_client_among_others(self) -> None:
        """A slow client does not postpone another's deadline, even in the same batch."""
        bench = self.running(holding=True, response_timeout=50, batch_size=2)
        producers: list[IPushProducer] = []
        first = bench.pool.submit(job("first"))
        slow = bench.pool.submit(job("slow"), lambda _item, producer: producers.append(producer))
        other = bench.pool.submit(job("other"), deadline=bench.clock.seconds() + 10.0)
        bench.worker.answer()
        self.successResultOf(first)
        bench.worker.chunk(Item("slow", 200, "", {}, b"1"))
        producers[0].pauseProducing()
        bench.clock.advance(10.0)
        self.failed(other, RequestTimeout)
        self.assertNoResult(slow)
        bench.worker.answer()
        self.successResultOf(slow)

    def test_dropped_chunks(self) -> None:
        """Chunks for a client that does not stream, or has disconnected, are dropped."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job("s"))
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        parts: list[Item] = []
        bench.worker.answer()
        self.successResultOf(answer)
        gone = bench.pool.submit(job("g"), lambda item, _producer: parts.append(item))
        gone.addErrback(lambda _: None).cancel()
        bench.worker.chunk(Item("g", 200, "", {}, b"1"))
        bench.worker.answer()
        bench.worker.chunk(Item("g", 200, "", {}, b"after the end"))
        self.assertEqual([], parts)

    def test_chunk_for_a_stranger(self) -> None:
        """A worker that answers an unknown request is replaced."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job("s"))
        bench.worker.chunk(Item("another's", 200, "", {}, b"1"))
        self.failed(answer, WorkerDied)

    def test_chunk_not_taken(self) -> None:
        """An exception of the consumer of chunks is logged and affects no other request."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job("s"), lambda _item, _producer: 1 / 0)  # type: ignore[arg-type]
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        bench.worker.answer()
        self.successResultOf(answer)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
