# SPDX-License-Identifier: Apache-2.0
"""Tests for batches that fail, and for batches whose workers die."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers, sets
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.scheduling.pool_bench import Bench, PoolTestCase, job
from twisted_serve.errors import RequestTimeout, ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.scheduling.status import BackingOff
from twisted_serve.testing.fakes import echo
from twisted_serve.wire.codec import UnsendableError
from twisted_serve.wire.messages import Item, Job


class FailureTests(PoolTestCase):
    """The errors that clients get when a worker cannot answer."""

    def test_handler_raised(self) -> None:
        """A handler's error is the response to each request of the batch, and the worker stays."""
        bench = self.running()
        bench.provider.respond = lambda jobs: WorkerFailed(503, "Prediction failed")
        error = self.failed(bench.pool.submit(job()), WorkerFailed)
        self.assertEqual((503, "Prediction failed"), (error.status, error.message))
        bench.provider.respond = echo
        self.successResultOf(bench.pool.submit(job()))
        self.assertEqual(1, len(bench.provider.workers))

    def test_codes_of_handlers(self) -> None:
        """A handler's error code is the client's status, whatever it is, including 413."""
        bench = self.running()
        for code in (400, 404, 413, 422, 429, 507, 599):
            bench.provider.respond = lambda jobs, code=code: WorkerFailed(code, "too much")  # type: ignore[misc]
            self.assertEqual(code, self.failed(bench.pool.submit(job()), WorkerFailed).status)

    def test_worker_dies(self) -> None:
        """The batch of a lost worker fails; queued requests are answered by its successor, a second later."""
        bench = self.running(holding=True, retry_on_worker_death=False)
        first, second = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        bench.provider.holding = False
        bench.worker.kill()
        error = self.failed(first, WorkerDied)
        self.assertEqual((500, "Worker died."), (error.status, error.message))
        self.assertNoResult(second)
        bench.clock.advance(1.0)
        self.successResultOf(second)
        self.assertEqual(["9000", "9000"], [worker.worker_id for worker in bench.provider.workers])

    def test_worker_killed(self) -> None:
        """A worker that was killed with SIGKILL has probably used too much memory: 507."""
        bench = self.running(holding=True, retry_on_worker_death=False)
        answer = bench.pool.submit(job())
        bench.worker.kill(killed=True)
        self.assertEqual(507, self.failed(answer, WorkerDied).status)

    def test_idle_worker_dies(self) -> None:
        """An idle worker that dies is replaced; no request is sent to it."""
        bench = self.running()
        bench.worker.kill()
        answer = bench.pool.submit(job())
        self.assertNoResult(answer)
        bench.clock.advance(1.0)
        self.successResultOf(answer)

    def test_worker_died_unnoticed(self) -> None:
        """Requests sent to a worker that turns out to be dead have not been begun: another worker answers them."""
        bench = self.running()
        bench.worker._stopping = True
        answer = bench.pool.submit(job())
        self.assertNoResult(answer)
        self.assertEqual(1, bench.pool.status().pending)
        bench.clock.advance(1.0)
        self.successResultOf(answer)

    def test_worker_died_unnoticed_and_for_good(self) -> None:
        """If it was the last worker and is not replaced, the requests are refused."""
        bench = self.running(max_retry_timeout=0)
        bench.worker._stopping = True
        message = self.failed(bench.pool.submit(job()), ServiceUnavailable).message
        self.assertIn(
            "exceeds maxSequenceJobQueueSize. Its workers have failed for too long and are not started again.", message
        )

    def test_lost_without_a_word(self) -> None:
        """A worker that is lost without failing its batch leaves no request without a response."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job())
        bench.worker.lost.callback("gone")
        bench.worker.alive = False
        self.successResultOf(bench.pool.retire(1.0))
        self.failed(answer, WorkerDied)

    def test_answers_after_all(self) -> None:
        """A late response of a discarded worker is ignored."""
        bench = self.running(holding=True, response_timeout=5)
        bench.pool._replicas[0]._core.end_worker = lambda grace: None
        parts: list[Item] = []
        answer = bench.pool.submit(job("1"), lambda item, _producer: parts.append(item))
        bench.clock.advance(5.0)
        self.failed(answer, WorkerDied)
        bench.worker.chunk(Item("1", 200, "", {}, b""))
        bench.worker.answer()
        self.assertEqual([], parts)

    def test_response_timeout(self) -> None:
        """A worker that exceeds the response timeout is killed and replaced, and its requests fail."""
        bench = self.running(holding=True, response_timeout=5)
        answer = bench.pool.submit(job())
        bench.clock.advance(4.9)
        self.assertNoResult(answer)
        bench.clock.advance(0.1)
        self.assertEqual("Worker died.", self.failed(answer, WorkerDied).message)
        self.assertEqual([], bench.provider.alive)
        status = bench.pool.status().workers[0].status
        assert isinstance(status, BackingOff)
        self.assertEqual("it did not answer within 5 seconds", status.reason)
        bench.clock.advance(1.0)
        self.assertEqual(["READY"], bench.words())

    def test_busy_for_long(self) -> None:
        """The response timeout of a batch does not include earlier batches."""
        bench = self.running(holding=True, response_timeout=5)
        for n in range(4):
            answer = bench.pool.submit(job(str(n)))
            bench.clock.advance(4.0)
            bench.worker.answer()
            self.successResultOf(answer)
        self.assertEqual(1, len(bench.provider.workers))

    def test_answers_that_fit_no_request(self) -> None:
        """A worker whose responses do not match the requests is replaced."""
        for wrong in ([], [Item("x", 200, "", {}, b"")], echo([job("r"), job("r")])):
            bench = self.running(holding=True)
            answer = bench.pool.submit(job("r"))
            bench.worker.answer(wrong)
            self.failed(answer, WorkerDied)
            bench.clock.advance(1.0)
            self.assertEqual(2, len(bench.provider.workers))

    def test_cannot_be_sent(self) -> None:
        """A request that cannot be sent to a worker fails, and affects no other."""
        bench = self.running()
        run = bench.worker.run

        def picky(batch_id: int, jobs: list[Job], on_chunk: Any) -> Any:
            if jobs[0].request_id == "bad":
                raise UnsendableError("not this one")
            return run(batch_id, jobs, on_chunk)

        bench.worker.run = picky  # type: ignore[method-assign]
        error = self.failed(bench.pool.submit(job("bad")), WorkerFailed)
        self.assertEqual((500, "The request could not be sent to a worker."), (error.status, error.message))
        self.assertEqual(1, len(self.flushLoggedErrors(UnsendableError)))
        self.successResultOf(bench.pool.submit(job("good")))

    def test_unknown_error(self) -> None:
        """An unexpected exception in a worker is logged and not shown to clients; the worker is replaced."""
        bench = self.running()
        bench.provider.respond = lambda jobs: ZeroDivisionError("secret")
        self.assertEqual("Worker died.", self.failed(bench.pool.submit(job()), WorkerDied).message)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


def raising(*faulty: str) -> Callable[[list[Job]], list[Item] | Exception]:
    """Make a handler that raises when one of ``faulty`` is in the batch."""

    def respond(jobs: list[Job]) -> list[Item] | Exception:
        if {one.request_id for one in jobs} & set(faulty):
            return WorkerFailed(503, "Prediction failed")
        return echo(jobs)

    return respond


class IsolationTests(PoolTestCase):
    """Batches whose handler raised."""

    def batch(self, size: int, **settings: Any) -> tuple[Bench, list[Deferred[Item]]]:
        """Make a pool with a batch of ``size`` requests at its worker."""
        bench = self.running(holding=True, **{"batch_size": size, **settings})
        bench.pool.submit(job("first"))
        answers = [bench.pool.submit(job(str(n), str(n).encode())) for n in range(size)]
        bench.worker.answer()
        bench.worker.holding = False
        return bench, answers

    def test_only_the_faulty_request_fails(self) -> None:
        """A batch is split until the faulty request is alone; the others are answered."""
        bench, answers = self.batch(8)
        bench.provider.respond = raising("5")
        later = bench.pool.submit(job("later"))
        bench.worker.answer()
        error = self.failed(answers.pop(5), WorkerFailed)
        self.assertEqual((503, "Prediction failed"), (error.status, error.message))
        self.assertEqual([str(n) for n in range(8) if n != 5], [self.successResultOf(a).request_id for a in answers])
        self.successResultOf(later)
        ids = ["".join(one.request_id for one in batch) for batch in bench.provider.batches[2:]]
        self.assertEqual(["0123", "4567", "45", "4", "5", "67", "later"], ids)

    def test_memory(self) -> None:
        """A batch that is too large for the memory is answered in halves."""
        bench, answers = self.batch(4)
        bench.provider.respond = lambda jobs: WorkerFailed(507, "Out of resources") if len(jobs) > 2 else echo(jobs)
        bench.worker.answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_switched_off(self) -> None:
        """Without isolation all requests of a batch share its error, and the handler sees each once."""
        bench, answers = self.batch(4, isolate_failures=False)
        bench.worker.answer(WorkerFailed(503, "Prediction failed"))
        errors = [self.failed(answer, WorkerFailed) for answer in answers]
        self.assertEqual(4, len({id(error) for error in errors}))
        self.assertEqual(2, len(bench.provider.batches))

    def test_what_has_begun_is_not_tried_again(self) -> None:
        """A request whose client has received a chunk is not retried; the rest of its batch is."""
        bench = self.running(holding=True, batch_size=3)
        bench.pool.submit(job("first"))
        parts: list[Item] = []
        stream = bench.pool.submit(job("s"), lambda item, _producer: parts.append(item))
        others = [bench.pool.submit(job(name)) for name in "ab"]
        bench.worker.answer()
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        bench.worker.answer(WorkerFailed(503, "Prediction failed"))
        self.failed(stream, WorkerFailed)
        self.assertEqual(["a", "b"], [one.request_id for one in bench.worker.batches[-1]])
        bench.worker.answer()
        for answer in others:
            self.successResultOf(answer)

    def test_gone_or_late_meanwhile(self) -> None:
        """A request whose client has disconnected, or whose deadline is over, is not retried."""
        bench = self.running(holding=True, batch_size=4)
        bench.pool.submit(job("first"))
        gone, late = bench.pool.submit(job("gone")), bench.pool.submit(job("late"), deadline=3.0)
        stay = [bench.pool.submit(job(name)) for name in "ab"]
        bench.worker.answer()
        bench.clock.advance(1.0)
        bench.worker.answer(WorkerFailed(503, "Prediction failed"))
        self.assertEqual(["gone", "late"], [one.request_id for one in bench.worker.batches[-1]])
        gone.addErrback(lambda _: None).cancel()
        bench.worker.answer(WorkerFailed(503, "Prediction failed"))
        self.assertEqual(["late"], [one.request_id for one in bench.worker.batches[-1]])
        bench.clock.advance(2.0)
        self.failed(late, RequestTimeout)
        bench.worker.holding = False
        bench.worker.answer()
        for answer in stay:
            self.successResultOf(answer)

    def test_cannot_be_sent(self) -> None:
        """A request that cannot be sent does not fail the rest of its batch."""
        bench, _ = self.batch(2)
        run = bench.worker.run

        def picky(batch_id: int, jobs: list[Job], on_chunk: Any) -> Any:
            if any(one.request_id == "bad" for one in jobs):
                raise UnsendableError("not this one")
            return run(batch_id, jobs, on_chunk)

        bench.worker.run = picky  # type: ignore[method-assign]
        bad, good = bench.pool.submit(job("bad")), bench.pool.submit(job("good"))
        bench.worker.answer()
        self.failed(bad, WorkerFailed)
        self.successResultOf(good)
        self.assertEqual(2, len(self.flushLoggedErrors(UnsendableError)))

    @given(integers(2, 40), sets(integers(0, 39), max_size=6))
    def test_bounded(self, size: int, faulty: set[int]) -> None:
        """Faulty requests fail, the others succeed if only one is faulty, and the number of calls is bounded."""
        bench, answers = self.batch(size)
        bench.provider.respond = raising(*map(str, faulty))
        bench.worker.answer()
        expected = {n for n in faulty if n < size}
        failed = {n for n, answer in enumerate(answers) if isinstance(answer.result, Failure)}
        for answer in answers:
            answer.addErrback(lambda _: None)
        self.assertLessEqual(expected, failed)
        doublings = (size - 1).bit_length()
        self.assertLessEqual(len(bench.provider.batches) - 2, (2 if len(expected) == 1 else 4) * doublings)
        if len(expected) < 2:
            self.assertEqual(expected, failed)
        self.assertEqual((0, 0), (bench.pool.status().pending, bench.pool.status().running))


class WorkerDeathTests(PoolTestCase):
    """Requests whose worker died."""

    def test_another_worker_answers(self) -> None:
        """The requests of a dead worker are retried at another one, one by one and before all queued requests."""
        bench = self.running(holding=True, min_workers=2, batch_size=2)
        one, other = bench.provider.workers
        answers = [bench.pool.submit(job(str(n))) for n in range(6)]
        other.answer()
        self.assertEqual([["0"], ["2", "3"]], [[a.request_id for a in batch] for batch in other.batches])
        other.kill()
        self.assertEqual(4, bench.pool.status().pending)
        one.holding = False
        one.answer()
        for answer in answers:
            self.successResultOf(answer)
        self.assertEqual([["1"], ["2"], ["3"], ["4", "5"]], [[a.request_id for a in batch] for batch in one.batches])

    def test_waits_for_the_successor(self) -> None:
        """If there is no other worker, the request waits for the next."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job())
        bench.provider.holding = False
        bench.worker.kill()
        self.assertNoResult(answer)
        bench.clock.advance(1.0)
        self.successResultOf(answer)

    def test_no_successor(self) -> None:
        """If there will be no worker, the request fails with the error of the last one."""
        bench = self.running(holding=True, max_retry_timeout=0)
        answer = bench.pool.submit(job())
        bench.worker.kill(killed=True)
        error = self.failed(answer, WorkerDied)
        self.assertEqual((507, "Worker died."), (error.status, error.message))

    def test_kills_twice(self) -> None:
        """A request that kills two workers fails and is quarantined; others are not."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job("1", b"deadly"))
        bench.worker.kill(killed=True)
        bench.clock.advance(1.0)
        bench.worker.kill(killed=True)
        self.assertEqual(507, self.failed(answer, WorkerDied).status)
        bench.provider.holding = False
        bench.clock.advance(1.0)
        error = self.failed(bench.pool.submit(job("2", b"deadly")), ServiceUnavailable)
        self.assertEqual("This request has killed 2 workers; it is not tried again for 299 seconds.", error.message)
        self.assertEqual(299, error.retry_after)
        self.successResultOf(bench.pool.submit(job("3", b"harmless")))
        bench.clock.advance(299.0)
        self.successResultOf(bench.pool.submit(job("4", b"deadly")))

    def test_rest_of_a_poisoned_batch(self) -> None:
        """Only the poison request of a batch fails, and only it is quarantined."""
        bench = self.running(holding=True, batch_size=3)
        bench.pool.submit(job("first"))
        answers = [bench.pool.submit(job(body.decode(), body)) for body in (b"a", b"deadly", b"b")]
        bench.worker.answer()
        bench.worker.kill()
        bench.clock.advance(1.0)
        bench.worker.answer()
        self.assertEqual(["deadly"], [one.request_id for one in bench.worker.batches[-1]])
        bench.worker.kill()
        bench.provider.holding = False
        bench.clock.advance(1.0)
        self.failed(answers[1], WorkerDied)
        for answer in (answers[0], answers[2]):
            self.successResultOf(answer)
        self.successResultOf(bench.pool.submit(job("again", b"a")))
        self.failed(bench.pool.submit(job("again", b"deadly")), ServiceUnavailable)

    def test_not_after_a_part(self) -> None:
        """A request whose client has received a chunk fails and is not retried."""
        bench = self.running(holding=True)
        stream = bench.pool.submit(job("s"), lambda _item, _producer: None)
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        bench.worker.kill()
        self.failed(stream, WorkerDied)

    def test_not_after_a_timeout(self) -> None:
        """A batch that timed out is not retried, as it might hang a second worker."""
        bench = self.running(holding=True, response_timeout=5)
        answer = bench.pool.submit(job())
        bench.clock.advance(5.0)
        self.failed(answer, WorkerDied)

    def test_ended_by_us(self) -> None:
        """A request whose worker was killed after its grace is retried and not blamed."""
        bench = self.running(holding=True, min_workers=2)
        stays, goes = bench.provider.workers
        answer, _ = bench.pool.submit(job("0", b"long")), bench.pool.submit(job("1"))
        self.assertTrue(goes.busy)
        bench.pool.scale(1, 1, grace=2.0)
        bench.clock.advance(2.0)
        stays.answer()
        self.assertEqual("0", stays.batches[-1][0].request_id)
        stays.kill()
        bench.provider.holding = False
        bench.clock.advance(1.0)
        self.successResultOf(answer)
        self.successResultOf(bench.pool.submit(job("again", b"long")))
