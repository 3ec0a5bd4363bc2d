# SPDX-License-Identifier: Apache-2.0
"""Tests for what clients do to a pool: they leave, read slowly, and wait only so long."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer

from tests.scheduling.pool_bench import PoolTestCase, job
from twisted_serve.errors import RequestTimeout, WorkerDied
from twisted_serve.wire.messages import Item


class ClientTests(PoolTestCase):
    """Clients who go away, or do not wait for ever."""

    def test_gone_while_waiting(self) -> None:
        """A client that goes takes its request out of the queue."""
        bench = self.running(holding=True)
        bench.pool.submit(job("1"))
        gone = bench.pool.submit(job("2"))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(0, bench.pool.status().pending)
        bench.worker.answer()
        self.assertEqual(1, len(bench.worker.batches))

    def test_gone_while_running(self) -> None:
        """A worker is told of a client that goes; the others of its batch get their answers."""
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
        """A client that goes after its answer troubles nobody."""
        bench = self.running()
        bench.pool.submit(job()).cancel()
        self.assertEqual([], bench.worker.cancelled)

    def test_client_timeout_in_the_queue(self) -> None:
        """A client that has waited as long as the version allows is told so; its request is not begun."""
        bench = self.running(holding=True, client_timeout=1500)
        bench.pool.submit(job("1")).addErrback(lambda _: None)
        late = bench.pool.submit(job("2"))
        bench.clock.advance(1.5)
        self.assertEqual(408, self.failed(late, RequestTimeout).status)
        bench.worker.answer()
        self.assertEqual(1, len(bench.worker.batches))

    def test_client_timeout_at_a_worker(self) -> None:
        """A client is told in time also when a worker has its request; the worker's answer is dropped."""
        bench = self.running(holding=True, client_timeout=1500)
        late = bench.pool.submit(job("1"))
        bench.clock.advance(1.5)
        self.failed(late, RequestTimeout)
        self.assertEqual(["1"], bench.worker.cancelled)
        bench.worker.answer()
        bench.worker.holding = False
        self.successResultOf(bench.pool.submit(job("2")))

    def test_own_deadline(self) -> None:
        """A client may be in more of a hurry than the version; others of its batch are not touched by that."""
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
        """Whoever is told that it took too long may end the pool there and then."""
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
        """Parts of an answer are passed on in order, before the end; each gives the worker time anew."""
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
        """While a client takes no more the worker is told to wait, and its time stands still."""
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
        """A client that leaves instead of reading on keeps its worker no longer than any other."""
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
        """A slow client does not put off another's deadline, even if they share a batch."""
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

    def test_chunks_nobody_wants(self) -> None:
        """Parts of an answer for a client that takes no stream, or has gone, are dropped."""
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
        """A worker that answers a request it was not given is not believed, and replaced."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job("s"))
        bench.worker.chunk(Item("another's", 200, "", {}, b"1"))
        self.failed(answer, WorkerDied)

    def test_chunk_not_taken(self) -> None:
        """An error of whoever takes the parts is logged and harms nobody else."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job("s"), lambda _item, _producer: 1 / 0)  # type: ignore[arg-type]
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        bench.worker.answer()
        self.successResultOf(answer)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
