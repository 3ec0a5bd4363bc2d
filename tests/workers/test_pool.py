# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workers.pool`, with the modules under it and fake workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import count, pairwise
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import example, given, settings
from hypothesis.strategies import integers, sampled_from, sets
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.batching.ahead import MOST
from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.errors import (
    BadRequest,
    RequestTimeout,
    ServeError,
    ServiceUnavailable,
    WorkerDied,
    WorkerFailed,
)
from twisted_serve.interfaces import WorkerSpec
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.metrics.timing import Timing
from twisted_serve.models.version import ModelSettings
from twisted_serve.testing.fakes import FakeProvider, FakeWorker, echo
from twisted_serve.testing.strategies.workers import (
    Break,
    Chunk,
    Die,
    Hold,
    Leave,
    Misanswer,
    Pass,
    Raise,
    Scale,
    Submit,
    WorkerEvent,
    model_settings,
    worker_events,
)
from twisted_serve.wire.codec import UnsendableError
from twisted_serve.wire.messages import Item, Job, Part
from twisted_serve.workers.pool import Pool
from twisted_serve.workers.status import BackingOff, GivenUp, Ready, ScaleResult, Starting

E = TypeVar("E", bound=ServeError)

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)

NO_WORKER = (
    'Model "m" has no worker to serve inference request. Please use scale workers API to add workers. '
    "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)


def job(request_id: str = "r", body: bytes = b"hi", headers: dict[str, str] | None = None) -> Job:
    """Make a request."""
    return Job(request_id, headers or {}, [Part("body", "", body)])


def spec() -> WorkerSpec:
    """Make what a worker is to serve."""
    return WorkerSpec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 10.0)


class Seen(PoolObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.waited: list[float | None] = []
        self.worked: list[float | None] = []
        self.told: list[object] = []

    def batch_sent(self, batch: Sequence[Timing], overhead: float, going: int = 0) -> None:
        self.waited += [timing.waited for timing in batch]

    def batch_answered(self, batch: Sequence[Timing], overhead: float) -> None:
        self.worked += [timing.worked for timing in batch]

    def failed(self, status: int) -> None:
        self.told.append(status)

    def refused(self, reason: str) -> None:
        self.told.append(reason)

    def worker_loaded(self, name: str, seconds: float) -> None:
        self.told.append((name, seconds))

    def worker_died(self) -> None:
        self.told.append("died")

    def worker_restarted(self) -> None:
        self.told.append("restarted")

    def retired(self) -> None:
        self.told.append("retired")


class Bench:
    """A pool, its clock and its fake workers."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.provider = FakeProvider(self.clock)
        self.seen = Seen()
        ids = count(9000)
        self.pool = Pool(
            spec(),
            ModelSettings(**{"max_workers": settings.get("min_workers", 1), "circuit_retry": 0, **settings}),
            self.provider,
            self.clock,
            lambda: EPOCH + timedelta(seconds=self.clock.seconds()),
            worker_ids=lambda: str(next(ids)),
            observer=self.seen,
        )

    @property
    def worker(self) -> FakeWorker:
        """The newest worker."""
        return self.provider.workers[-1]

    def words(self) -> list[str]:
        """What describe shows as status of each worker."""
        return [worker.status.word for worker in self.pool.status().workers]


class PoolTestCase(SynchronousTestCase):
    """What the tests below share."""

    def failed(self, answer: Deferred[Any], kind: type[E]) -> E:
        """Give the error of exactly ``kind`` with which ``answer`` has failed."""
        error = self.failureResultOf(answer).value
        self.assertIs(kind, type(error))
        assert isinstance(error, kind)
        return error

    def running(self, holding: bool = False, **settings: Any) -> Bench:
        """Make a pool whose workers are ready."""
        bench = Bench(**settings)
        bench.provider.holding = holding
        self.successResultOf(bench.pool.start())
        return bench


class ObserverTests(PoolTestCase):
    """What an observer is told."""

    def test_answers_and_refusals(self) -> None:
        """Batches with their times, and each refusal with its reason and its status."""
        bench = self.running(holding=True, job_queue_size=1)
        first, second = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        bench.clock.advance(2.0)
        self.failed(bench.pool.submit(job("3")), ServiceUnavailable)
        bench.worker.answer()
        self.successResultOf(first)
        bench.clock.advance(1.0)
        bench.worker.answer()
        self.successResultOf(second)
        self.assertEqual((bench.seen.waited, bench.seen.worked), ([0.0, 2.0], [2.0, 1.0]))
        self.assertEqual(bench.seen.told[1:], ["queue_full", 503])
        self.successResultOf(bench.pool.retire(0.0))
        self.failed(bench.pool.submit(job("4")), ServiceUnavailable)
        self.assertEqual(bench.seen.told[3:], ["retired", "no_worker", 503])

    def test_workers(self) -> None:
        """A worker's loading, its death, and its successor."""
        bench = Bench(min_workers=1)
        bench.provider.load_delay = 1.5
        bench.pool.start()
        bench.clock.advance(1.5)
        self.assertEqual(bench.seen.told, [("W-9000-m_1.0", 1.5)])
        bench.worker.kill()
        self.assertEqual(bench.seen.told[1:], ["died"])
        for _ in range(20):
            bench.clock.advance(0.5)
        self.assertEqual(bench.seen.told[2:], ["restarted", ("W-9000-m_1.0", 1.5)])
        self.successResultOf(bench.pool.retire(0.0))
        self.assertEqual(bench.seen.told[4:], ["retired"])


class SubmitTests(PoolTestCase):
    """A request's way through a pool."""

    def test_answered(self) -> None:
        """A request gets the answer of a worker."""
        bench = self.running()
        item = self.successResultOf(bench.pool.submit(job("a", b"hello")))
        self.assertEqual(("a", b"hello"), (item.request_id, item.body))
        self.assertEqual([0.0], bench.seen.waited)

    def test_no_worker(self) -> None:
        """Without a worker a request is refused at once, in the predecessor's words, odd quote included."""
        pool = Bench().pool
        self.assertEqual(NO_WORKER, self.failed(pool.submit(job()), ServiceUnavailable).message)
        versioned = self.failed(pool.submit(job(), versioned=True), ServiceUnavailable)
        self.assertEqual(NO_WORKER.replace('"m"', '"m" Version 1.0"'), versioned.message)
        self.assertIsNone(versioned.retry_after)

    def test_waits_while_loading(self) -> None:
        """A request that comes while the first worker loads is answered when it has loaded."""
        bench = Bench()
        bench.provider.load_delay = 3.0
        bench.pool.start()
        answer = bench.pool.submit(job())
        self.assertNoResult(answer)
        self.assertEqual((1, 99, 0), (bench.pool.status().pending, bench.pool.status().remaining, 0))
        bench.clock.advance(3.0)
        self.successResultOf(answer)
        self.assertEqual([3.0], bench.seen.waited)

    def test_queue_full(self) -> None:
        """A request that finds the queue full is told so, in a sentence after the predecessor's, and when to retry."""
        bench = self.running(holding=True, job_queue_size=1)
        first, second = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        error = self.failed(bench.pool.submit(job("3")), ServiceUnavailable)
        opening = 'Model "m" has no worker to serve inference request. '
        self.assertTrue(error.message.startswith(opening + "The request queue is full (1 waiting). "))
        self.assertEqual(1, error.retry_after)
        versioned = self.failed(bench.pool.submit(job("3"), versioned=True), ServiceUnavailable)
        self.assertTrue(versioned.message.startswith('Model "m" Version 1.0" has no worker'))
        bench.worker.answer()
        bench.worker.answer()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_the_expired_make_room(self) -> None:
        """A request whose time is over takes nobody's place in a full queue."""
        bench = self.running(holding=True, job_queue_size=1)
        bench.pool.submit(job("1"))
        late = bench.pool.submit(job("2"), deadline=0.0)
        bench.pool.submit(job("3"))
        self.failed(late, RequestTimeout)
        self.assertEqual(1, bench.pool.status().pending)

    def test_batches_grow_while_workers_are_busy(self) -> None:
        """What comes while all workers are busy goes together, up to the batch size, in order."""
        bench = self.running(holding=True, batch_size=3)
        answers = [bench.pool.submit(job(str(n))) for n in range(6)]
        for _ in range(3):
            bench.worker.answer()
        ids = [[one.request_id for one in batch] for batch in bench.provider.batches]
        self.assertEqual([["0"], ["1", "2", "3"], ["4", "5"]], ids)
        self.assertEqual([str(n) for n in range(6)], [self.successResultOf(a).request_id for a in answers])

    def test_window(self) -> None:
        """Under the predecessor's rule a batch waits for company, as long as the version allows."""
        bench = self.running(batch_policy=ClosePolicy.WINDOW, batch_size=3, max_batch_delay=100)
        first = bench.pool.submit(job("1"))
        bench.clock.advance(0.05)
        second = bench.pool.submit(job("2"))
        self.assertNoResult(first)
        bench.clock.advance(0.05)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(1, len(bench.provider.batches))

    def test_adaptive(self) -> None:
        """A version that learns what a batch costs makes a request wait when that pays, and only then."""
        bench = self.running(batch_policy=ClosePolicy.ADAPTIVE, batch_size=4, max_batch_delay=1000)
        bench.provider.answer_delay = 1.0
        for number, gap in enumerate([0.1] * 20):
            bench.pool.submit(job(str(number)))
            bench.clock.advance(gap)
        bench.clock.pump([1.0] * 10)
        before = len(bench.provider.batches)
        self.assertGreater(before, 1)
        for number in range(3):
            bench.pool.submit(job(f"last {number}"))
            bench.clock.advance(0.1)
        bench.clock.advance(5.0)
        self.assertEqual([3], [len(batch) for batch in bench.provider.batches[before:]])

    def test_refused_for_its_deadline(self) -> None:
        """A request that cannot be answered in time is refused before it waits, and told so."""
        bench = self.running(batch_policy=ClosePolicy.ADAPTIVE)
        bench.provider.answer_delay = 1.0
        for number in range(4):
            bench.pool.submit(job(str(number)))
            bench.clock.advance(1.0)
        bench.pool.submit(job("running"))
        hasty = bench.pool.submit(job("hasty"), deadline=bench.clock.seconds() + 0.5)
        error = self.failed(hasty, ServiceUnavailable)
        self.assertIn("cannot be answered before its deadline", error.message)
        self.assertEqual((1, 0), (error.retry_after, bench.pool.status().pending))
        patient = bench.pool.submit(job("patient"), deadline=bench.clock.seconds() + 2.5)
        bench.clock.advance(1.0)
        bench.clock.advance(1.0)
        self.successResultOf(patient)

    def test_descriptions_and_explanations_go_apart(self) -> None:
        """A batch never mixes predictions with anything: descriptions and explanations go alone."""
        bench = self.running(holding=True, batch_size=4)
        bench.pool.submit(job("0"))
        explain, describe = {"explain": "True"}, {"describe": "True"}
        for n, headers in enumerate([None, {"explain": "False"}, explain, explain, describe, describe]):
            bench.pool.submit(job(str(n + 1), headers=headers))
        for _ in range(6):
            bench.worker.answer()
        ids = [[one.request_id for one in batch] for batch in bench.provider.batches]
        self.assertEqual([["0"], ["1", "2"], ["3"], ["4"], ["5"], ["6"]], ids)

    def test_many_waiting_are_no_recursion(self) -> None:
        """Hundreds of requests that waited for the first worker are answered."""
        bench = Bench(job_queue_size=2000)
        bench.provider.load_delay = 1.0
        bench.pool.start()
        answers = [bench.pool.submit(job(str(n))) for n in range(2000)]
        bench.clock.advance(1.0)
        self.assertEqual(2000, len([self.successResultOf(answer) for answer in answers]))

    def test_two_workers(self) -> None:
        """Each worker has one batch at a time, and all work."""
        bench = self.running(holding=True, min_workers=2)
        for n in range(3):
            bench.pool.submit(job(str(n)))
        self.assertEqual([1, 1], [len(worker.batches) for worker in bench.provider.workers])
        self.assertEqual((1, 2), (bench.pool.status().pending, bench.pool.status().running))


class FailureTests(PoolTestCase):
    """What clients are told when a worker cannot answer."""

    def test_handler_raised(self) -> None:
        """A handler's error is the answer to each request of the batch, and the worker lives on."""
        bench = self.running()
        bench.provider.respond = lambda jobs: WorkerFailed(503, "Prediction failed")
        error = self.failed(bench.pool.submit(job()), WorkerFailed)
        self.assertEqual((503, "Prediction failed"), (error.status, error.message))
        bench.provider.respond = echo
        self.successResultOf(bench.pool.submit(job()))
        self.assertEqual(1, len(bench.provider.workers))

    def test_413_becomes_507(self) -> None:
        """A handler's 413 is shown as 507, as ever."""
        bench = self.running()
        bench.provider.respond = lambda jobs: WorkerFailed(413, "too much")
        self.assertEqual(507, self.failed(bench.pool.submit(job()), WorkerFailed).status)

    def test_worker_dies(self) -> None:
        """What a lost worker had is answered; what waits is answered by its successor, a second later."""
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
        """A worker that dies with nothing to do is replaced; no request goes to it."""
        bench = self.running()
        bench.worker.kill()
        answer = bench.pool.submit(job())
        self.assertNoResult(answer)
        bench.clock.advance(1.0)
        self.successResultOf(answer)

    def test_worker_died_unnoticed(self) -> None:
        """Requests given to a worker that turns out to be dead have not been begun: another worker answers them."""
        bench = self.running()
        bench.worker._stopping = True
        answer = bench.pool.submit(job())
        self.assertNoResult(answer)
        self.assertEqual(1, bench.pool.status().pending)
        bench.clock.advance(1.0)
        self.successResultOf(answer)

    def test_worker_died_unnoticed_and_for_good(self) -> None:
        """If it was the last worker, and will not be replaced, they are refused."""
        bench = self.running(max_retry_timeout=0)
        bench.worker._stopping = True
        message = self.failed(bench.pool.submit(job()), ServiceUnavailable).message
        self.assertIn(" Its workers have failed for too long and are not started again. ", message)

    def test_lost_without_a_word(self) -> None:
        """A worker that is lost without having said what becomes of its batch leaves nobody without an answer."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job())
        bench.worker.lost.callback("gone")
        bench.worker.alive = False
        self.successResultOf(bench.pool.retire(1.0))
        self.failed(answer, WorkerDied)

    def test_answers_after_all(self) -> None:
        """What a worker says after it was given up is not heard."""
        bench = self.running(holding=True, response_timeout=5)
        bench.pool._slots[0]._core.end_worker = lambda grace: None
        parts: list[Item] = []
        answer = bench.pool.submit(job("1"), lambda item, _producer: parts.append(item))
        bench.clock.advance(5.0)
        self.failed(answer, WorkerDied)
        bench.worker.chunk(Item("1", 200, "", {}, b""))
        bench.worker.answer()
        self.assertEqual([], parts)

    def test_response_timeout(self) -> None:
        """A worker that does not answer in time is ended and replaced, and its clients are told."""
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
        """The time for an answer counts from its own batch, not from earlier ones."""
        bench = self.running(holding=True, response_timeout=5)
        for n in range(4):
            answer = bench.pool.submit(job(str(n)))
            bench.clock.advance(4.0)
            bench.worker.answer()
            self.successResultOf(answer)
        self.assertEqual(1, len(bench.provider.workers))

    def test_answers_that_fit_no_request(self) -> None:
        """A worker whose answers do not fit the requests is not believed, and replaced."""
        for wrong in ([], [Item("x", 200, "", {}, b"")], echo([job("r"), job("r")])):
            bench = self.running(holding=True)
            answer = bench.pool.submit(job("r"))
            bench.worker.answer(wrong)
            self.failed(answer, WorkerDied)
            bench.clock.advance(1.0)
            self.assertEqual(2, len(bench.provider.workers))

    def test_cannot_be_sent(self) -> None:
        """A request that cannot be sent to a worker is answered, and harms no other."""
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
        """An error of our own in a worker is logged, not shown; the worker is replaced."""
        bench = self.running()
        bench.provider.respond = lambda jobs: ZeroDivisionError("secret")
        self.assertEqual("Worker died.", self.failed(bench.pool.submit(job()), WorkerDied).message)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


def raising(*culprits: str) -> Callable[[list[Job]], list[Item] | Exception]:
    """Make a handler that raises when one of ``culprits`` is in the batch."""

    def respond(jobs: list[Job]) -> list[Item] | Exception:
        if {one.request_id for one in jobs} & set(culprits):
            return WorkerFailed(503, "Prediction failed")
        return echo(jobs)

    return respond


class IsolationTests(PoolTestCase):
    """Batches whose handler raised."""

    def batch(self, size: int, **settings: Any) -> tuple[Bench, list[Deferred[Item]]]:
        """Make a pool which has a batch of ``size`` requests at its worker."""
        bench = self.running(holding=True, **{"batch_size": size, **settings})
        bench.pool.submit(job("first"))
        answers = [bench.pool.submit(job(str(n), str(n).encode())) for n in range(size)]
        bench.worker.answer()
        bench.worker.holding = False
        return bench, answers

    def test_only_the_culprit_fails(self) -> None:
        """A batch is split until the one who makes the handler raise is alone; the others get their answers."""
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
        """A client that has a part of its answer gets no second beginning; the rest of its batch is tried again."""
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
        """Who has gone, or is too late, is not tried again."""
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
        """A request that cannot be sent takes nobody of its batch with it."""
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
    def test_bounded(self, size: int, culprits: set[int]) -> None:
        """Culprits fail, innocents of one culprit do not, and the handler is not called out of all proportion."""
        bench, answers = self.batch(size)
        bench.provider.respond = raising(*map(str, culprits))
        bench.worker.answer()
        guilty = {n for n in culprits if n < size}
        failed = {n for n, answer in enumerate(answers) if isinstance(answer.result, Failure)}
        for answer in answers:
            answer.addErrback(lambda _: None)
        self.assertLessEqual(guilty, failed)
        doublings = (size - 1).bit_length()
        self.assertLessEqual(len(bench.provider.batches) - 2, (2 if len(guilty) == 1 else 4) * doublings)
        if len(guilty) < 2:
            self.assertEqual(guilty, failed)
        self.assertEqual((0, 0), (bench.pool.status().pending, bench.pool.status().running))


class WorkerDeathTests(PoolTestCase):
    """Requests whose worker died."""

    def test_another_worker_answers(self) -> None:
        """What a worker that died had is given to another, before all that waits, request by request."""
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
        """If there is no other worker it waits for the next."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job())
        bench.provider.holding = False
        bench.worker.kill()
        self.assertNoResult(answer)
        bench.clock.advance(1.0)
        self.successResultOf(answer)

    def test_no_successor(self) -> None:
        """If there will be none it is answered with what has happened."""
        bench = self.running(holding=True, max_retry_timeout=0)
        answer = bench.pool.submit(job())
        bench.worker.kill(killed=True)
        error = self.failed(answer, WorkerDied)
        self.assertEqual((507, "Worker died."), (error.status, error.message))

    def test_kills_twice(self) -> None:
        """A request that kills two workers is answered, and refused for a while; others are not."""
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

    def test_innocents_of_a_deadly_batch(self) -> None:
        """Only the culprit of a batch is left without an answer, and only it is refused later."""
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
        """A client that has a part of its answer is told that there is no more; nothing is begun anew."""
        bench = self.running(holding=True)
        stream = bench.pool.submit(job("s"), lambda _item, _producer: None)
        bench.worker.chunk(Item("s", 200, "", {}, b"1"))
        bench.worker.kill()
        self.failed(stream, WorkerDied)

    def test_not_after_a_timeout(self) -> None:
        """What a worker did not answer in time is not given to a second one, to hang there, too."""
        bench = self.running(holding=True, response_timeout=5)
        answer = bench.pool.submit(job())
        bench.clock.advance(5.0)
        self.failed(answer, WorkerDied)

    def test_ended_by_us(self) -> None:
        """A request whose worker was sent away in the end goes to another, and is not to blame."""
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


class ScaleTests(PoolTestCase):
    """More and fewer workers."""

    def test_up_and_down(self) -> None:
        """Scaling starts workers, and sends the newest away."""
        bench = self.running()
        up = self.successResultOf(bench.pool.scale(3, 3))
        self.assertEqual(ScaleResult(3, ("9001", "9002"), ()), up)
        down = self.successResultOf(bench.pool.scale(1, 2))
        self.assertEqual(ScaleResult(2, (), ("9002",)), down)
        self.assertEqual(["9000", "9001"], [worker.worker_id for worker in bench.provider.alive])
        self.assertEqual((1, 2), (bench.pool.min_workers, bench.pool.max_workers))

    def test_waits_for_loading(self) -> None:
        """Scaling is done when all new workers have loaded."""
        bench = self.running()
        bench.provider.load_delay = None
        scaled = bench.pool.scale(3, 3)
        self.assertEqual(["READY", "LOADING", "LOADING"], bench.words())
        bench.provider.workers[1].load()
        self.assertNoResult(scaled)
        self.assertFalse(bench.pool.ready())
        bench.provider.workers[2].load()
        self.successResultOf(scaled)
        self.assertTrue(bench.pool.ready())

    def test_first_failure(self) -> None:
        """Scaling fails with the first worker that cannot load, and with its reason."""
        bench = Bench(min_workers=2)
        bench.provider.load_delay = None
        scaled = bench.pool.start()
        bench.provider.workers[1].fail_to_load(WorkerFailed(507, "System out of memory"))
        error = self.failed(scaled, WorkerFailed)
        self.assertEqual((507, "System out of memory"), (error.status, error.message))
        self.assertNoResult(bench.pool.settled)
        bench.provider.workers[0].load()
        self.successResultOf(bench.pool.settled)

    def test_drains(self) -> None:
        """A worker that is sent away finishes what it has; scaling is done when it is gone."""
        bench = self.running(holding=True, min_workers=2)
        answers = [bench.pool.submit(job(str(n))) for n in range(3)]
        scaled = bench.pool.scale(1, 1)
        self.assertEqual(["READY", "UNLOADING"], bench.words())
        self.assertNoResult(scaled)
        bench.worker.answer()
        self.successResultOf(scaled)
        self.assertEqual(["READY"], bench.words())
        bench.worker.holding = False
        bench.provider.workers[0].answer()
        bench.provider.workers[0].answer()
        for answer in answers:
            self.successResultOf(answer)

    def test_drain_takes_too_long(self) -> None:
        """A worker that does not finish in the time it was given is terminated; its clients are told."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job())
        scaled = bench.pool.scale(0, 0, grace=10.0)
        bench.clock.advance(10.0)
        self.failed(answer, WorkerDied)
        self.successResultOf(scaled)
        self.assertEqual((), bench.pool.status().workers)

    def test_hangs_while_draining(self) -> None:
        """A worker that exceeds the response timeout while it drains is ended there and then."""
        bench = self.running(holding=True, response_timeout=5)
        answer = bench.pool.submit(job())
        scaled = bench.pool.scale(0, 0, grace=100.0)
        bench.clock.advance(5.0)
        self.failed(answer, WorkerDied)
        self.successResultOf(scaled)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_gone_while_draining(self) -> None:
        """A client that goes while its worker drains is told to that worker."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job("1"))
        bench.pool.scale(0, 0)
        answer.addErrback(lambda _: None).cancel()
        self.assertEqual(["1"], bench.worker.cancelled)

    def test_to_nothing(self) -> None:
        """Without workers nothing waits: the queue is answered, and whoever comes is refused; no worker is left."""
        bench = self.running(holding=True)
        running, waiting = bench.pool.submit(job("1")), bench.pool.submit(job("2"), versioned=True)
        bench.pool.scale(0, 0)
        message = self.failed(waiting, ServiceUnavailable).message
        self.assertTrue(message.startswith('Model "m" Version 1.0" has no worker to serve inference request. '))
        self.assertIn(" It is scaled to zero workers. ", message)
        self.failed(bench.pool.submit(job("3")), ServiceUnavailable)
        bench.worker.answer()
        self.successResultOf(running)
        self.assertEqual([], bench.provider.alive)
        self.assertTrue(bench.pool.healthy())

    def test_impossible_numbers(self) -> None:
        """Impossible numbers are refused before anything is changed."""
        bench = self.running()
        error = self.failed(bench.pool.scale(2, 1), BadRequest)
        self.assertEqual("max_worker cannot be less than min_worker.", error.message)
        self.assertIn("-1", self.failed(bench.pool.scale(-1, 1), BadRequest).message)
        self.assertEqual(1, len(bench.provider.alive))

    def test_same_number_revives(self) -> None:
        """Scaling to the number there should be replaces workers which were given up."""
        bench = self.running(max_retry_timeout=0)
        bench.worker.kill()
        self.assertIsInstance(bench.pool.status().workers[0].status, GivenUp)
        self.failed(bench.pool.submit(job()), ServiceUnavailable)
        result = self.successResultOf(bench.pool.scale(1, 1))
        self.assertEqual(("9000",), result.started)
        self.successResultOf(bench.pool.submit(job()))

    def test_same_number_hurries(self) -> None:
        """Scaling does not wait for a restart that is due later."""
        bench = self.running()
        bench.worker.kill()
        self.assertIsInstance(bench.pool.status().workers[0].status, BackingOff)
        self.successResultOf(bench.pool.scale(1, 1))
        self.assertTrue(bench.pool.ready())

    def test_down_while_waiting_to_retry(self) -> None:
        """A worker that waits for its restart, or was given up, can be sent away."""
        for window in (0, 300):
            bench = self.running(max_retry_timeout=window)
            bench.worker.kill()
            self.successResultOf(bench.pool.scale(0, 0))
            self.assertEqual([], bench.clock.getDelayedCalls())

    def test_down_while_loading(self) -> None:
        """A worker that is sent away before it has loaded fails who waits for it."""
        bench = Bench()
        bench.provider.load_delay = None
        started = bench.pool.start()
        self.successResultOf(bench.pool.scale(0, 0))
        self.failed(started, WorkerFailed)
        self.successResultOf(bench.pool.settled)

    def test_gpus(self) -> None:
        """Each worker is placed on the device that it is given."""
        bench = Bench()
        gpus = iter([1, 0])
        bench.pool._next_gpu = lambda: next(gpus)
        self.successResultOf(bench.pool.scale(2, 2))
        self.assertEqual([1, 0], [worker.gpu_id for worker in bench.pool.status().workers])
        self.assertEqual([1, 0], [worker.placement.gpu_id for worker in bench.provider.workers])


class ElasticTests(PoolTestCase):
    """Between the bounds the number of workers follows the load."""

    def elastic(self, least: int = 1, most: int = 4, **settings: Any) -> Bench:
        """Make a pool that starts a worker after 1 s of waiting and ends one after 60 s of rest."""
        bench = Bench(min_workers=least, max_workers=most, scale_idle_time=60.0, **settings)
        bench.provider.answer_delay = 1.0
        self.successResultOf(bench.pool.start())
        return bench

    def busy(self, bench: Bench, seconds: int, each: int) -> list[Deferred[Item]]:
        """Let ``each`` requests come every second."""
        answers = []
        for second in range(seconds):
            answers += [bench.pool.submit(job(f"{second}.{n}")) for n in range(each)]
            bench.clock.advance(1.0)
        return answers

    def test_up_and_down(self) -> None:
        """Load brings workers, rest ends them one by one; nobody who was let in is left without an answer."""
        bench = self.elastic()
        answers = self.busy(bench, 30, 3)
        self.assertGreaterEqual(len(bench.provider.alive), 3)
        bench.clock.pump([1.0] * 30)
        for answer in answers:
            self.successResultOf(answer)
        bench.clock.pump([1.0] * 100)
        self.assertEqual(1, len(bench.provider.alive))
        self.assertEqual((1, 4), (bench.pool.min_workers, bench.pool.max_workers))
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_steady_load_settles(self) -> None:
        """Under steady load workers do not come and go."""
        bench = self.elastic()
        self.busy(bench, 30, 2)
        before = len(bench.provider.workers)
        self.busy(bench, 300, 2)
        self.assertEqual(before, len(bench.provider.workers))

    def test_never_beyond_the_most(self) -> None:
        """However great the load is, there are never more than there may be."""
        bench = self.elastic(most=3, job_queue_size=50)
        for answer in self.busy(bench, 60, 9):
            answer.addErrback(lambda _: None)
        self.assertEqual(3, len(bench.provider.alive))

    def test_to_nothing_and_back(self) -> None:
        """With no least number all workers end after a rest; the next request waits for one, and is answered."""
        bench = self.elastic(least=0)
        self.assertEqual([], bench.provider.alive)
        bench.provider.load_delay = 5.0
        answer = bench.pool.submit(job("1"))
        self.assertEqual((["LOADING"], True, True), (bench.words(), bench.pool.ready(), bench.pool.healthy()))
        bench.clock.advance(5.0)
        bench.clock.advance(1.0)
        self.successResultOf(answer)
        bench.clock.advance(60.0)
        self.assertEqual(([], []), (bench.provider.alive, bench.clock.getDelayedCalls()))
        self.assertEqual((True, True), (bench.pool.ready(), bench.pool.healthy()))
        again = bench.pool.submit(job("2"))
        bench.clock.pump([5.0, 1.0])
        self.successResultOf(again)

    def test_not_started_before(self) -> None:
        """A version which may have none is never started by hand: the first request does it."""
        bench = Bench(min_workers=0, max_workers=1)
        self.successResultOf(bench.pool.submit(job()))

    def test_a_broken_model(self) -> None:
        """A worker that cannot load brings no further ones; who waits is told why."""
        bench = self.elastic(least=0, max_retry_timeout=0)
        bench.provider.load_error = WorkerFailed(500, "broken")
        error = self.failed(bench.pool.submit(job()), ServiceUnavailable)
        self.assertEqual("broken", error.reason)
        self.assertEqual(1, len(bench.provider.workers))

    def test_scaled_by_hand(self) -> None:
        """Scaling sets the bounds; with no least number those that run stay until they have rested."""
        bench = self.elastic()
        self.successResultOf(bench.pool.scale(3, 3))
        self.successResultOf(bench.pool.scale(0, 2))
        self.assertEqual(2, len(bench.provider.alive))
        bench.clock.pump([30.0, 30.0, 1.0])
        self.assertEqual([], bench.provider.alive)
        self.successResultOf(bench.pool.scale(0, 0))
        self.failed(bench.pool.submit(job()), ServiceUnavailable)

    def test_retired(self) -> None:
        """A pool that is retired starts nothing more and leaves no timer."""
        bench = self.elastic(least=0)
        answer = bench.pool.submit(job())
        self.successResultOf(bench.pool.retire(0.0))
        self.failed(answer, WorkerDied)
        error = self.failed(bench.pool.submit(job()), ServiceUnavailable)
        self.assertIn(" The model is being removed. ", error.message)
        self.assertEqual([], bench.clock.getDelayedCalls())


class CircuitTests(PoolTestCase):
    """A version whose workers die at start again and again."""

    def test_recovers_by_itself(self) -> None:
        """It is given up after a while, says why and until when, is tried again, and serves when it is repaired."""
        bench = Bench(max_retry_timeout=5, circuit_retry=100.0)
        bench.provider.load_error = WorkerFailed(500, "SyntaxError: invalid syntax (h.py, line 1)")
        self.failed(bench.pool.start(), WorkerFailed)
        bench.clock.pump([1.0] * 10)
        (info,) = bench.pool.status().workers
        assert isinstance(info.status, GivenUp)
        self.assertEqual(timedelta(seconds=100), (info.status.until or EPOCH) - info.status.since)
        tries = len(bench.provider.workers)
        error = self.failed(bench.pool.submit(job()), ServiceUnavailable)
        self.assertIn(" Its workers keep failing; the next attempt is in ", error.message)
        self.assertEqual("SyntaxError: invalid syntax (h.py, line 1)", error.reason)
        bench.clock.advance(100.0)
        self.assertEqual(tries + 1, len(bench.provider.workers))
        self.assertIsInstance(bench.pool.status().workers[0].status, GivenUp)
        bench.provider.load_error = None
        bench.clock.advance(100.0)
        self.assertIsNone(bench.pool.status().circuit)
        self.successResultOf(bench.pool.submit(job()))
        self.assertEqual((True, True), (bench.pool.healthy(), bench.pool.ready()))

    def test_half_open(self) -> None:
        """While it is being tried again nobody waits for what will most likely fail."""
        bench = Bench(max_retry_timeout=0, circuit_retry=100.0)
        bench.provider.load_error = WorkerFailed(500, "broken")
        self.failed(bench.pool.start(), WorkerFailed)
        bench.provider.load_delay = 10.0
        bench.clock.advance(100.0)
        circuit = bench.pool.status().circuit
        assert circuit is not None
        self.assertTrue(circuit.trying)
        self.failed(bench.pool.submit(job()), ServiceUnavailable)

    def test_scaling_tries_now(self) -> None:
        """Whoever scales has it tried at once, and the recovery window begins anew."""
        bench = Bench(max_retry_timeout=0, circuit_retry=100.0)
        bench.provider.load_error = WorkerFailed(500, "broken")
        self.failed(bench.pool.start(), WorkerFailed)
        bench.provider.load_error = None
        self.successResultOf(bench.pool.scale(1, 1))
        self.assertEqual([], bench.clock.getDelayedCalls())
        self.successResultOf(bench.pool.submit(job()))

    def test_another_worker_answers(self) -> None:
        """As long as one worker is well nothing is refused."""
        bench = self.running(min_workers=2, max_retry_timeout=0, circuit_retry=100.0)
        bench.worker.kill()
        self.assertIsNone(bench.pool.status().circuit)
        self.successResultOf(bench.pool.submit(job()))

    def test_queue_full_while_loading(self) -> None:
        """Who finds the queue full before the first worker has loaded is told that as well."""
        bench = Bench(job_queue_size=1)
        bench.provider.load_delay = 5.0
        bench.pool.start()
        bench.pool.submit(job("1"))
        error = self.failed(bench.pool.submit(job("2")), ServiceUnavailable)
        self.assertIn("The request queue is full (1 waiting for a worker that is still loading). ", error.message)


class RecoveryTests(PoolTestCase):
    """Workers which fail again and again."""

    def test_back_off(self) -> None:
        """Restarts come after 1, 1, 2, 3, 5 … seconds until the window has passed; then requests are refused."""
        bench = Bench(max_retry_timeout=300)
        bench.provider.load_error = WorkerFailed(500, "SyntaxError: invalid syntax (h.py, line 1)")
        self.failed(bench.pool.start(), WorkerFailed)
        self.successResultOf(bench.pool.settled)
        waiting = bench.pool.submit(job())
        starts = [0.0]
        while bench.clock.getDelayedCalls():
            bench.clock.advance(min(call.getTime() for call in bench.clock.getDelayedCalls()) - bench.clock.seconds())
            if len(bench.provider.workers) > len(starts):
                starts.append(bench.clock.seconds())
                last = bench.pool.status().workers[0].status
                self.assertEqual(not isinstance(last, GivenUp), bench.pool.healthy())
        gaps = [after - before for before, after in pairwise(starts)]
        self.assertEqual([1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144], gaps)
        assert isinstance(last, GivenUp)
        self.assertEqual("SyntaxError: invalid syntax (h.py, line 1)", last.reason)
        self.failed(waiting, ServiceUnavailable)
        self.assertEqual((False, False), (bench.pool.healthy(), bench.pool.ready()))

    def test_nobody_waits_for_what_keeps_failing(self) -> None:
        """A request waits for the first attempts of a worker to come back, not for the later ones, minutes apart."""
        bench = Bench(max_retry_timeout=300)
        bench.provider.load_error = WorkerFailed(500, "broken")
        self.failed(bench.pool.start(), WorkerFailed)
        waiting = bench.pool.submit(job("1"))
        bench.clock.advance(1.0)
        self.assertNoResult(waiting)
        bench.clock.advance(1.0)
        error = self.failed(waiting, ServiceUnavailable)
        self.assertIn(" Its workers keep failing; the next attempt is in 2 seconds. ", error.message)
        self.assertEqual(("broken", 2), (error.reason, error.retry_after))
        self.failed(bench.pool.submit(job("2")), ServiceUnavailable)
        bench.provider.load_error = None
        bench.clock.advance(2.0)
        self.assertEqual(b"hi", self.successResultOf(bench.pool.submit(job("3"))).body)

    def test_window_zero(self) -> None:
        """With no recovery window a worker that fails is never started again."""
        bench = self.running(holding=True, max_retry_timeout=0)
        bench.pool.submit(job("1")).addErrback(lambda _: None)
        waiting = bench.pool.submit(job("2"))
        bench.worker.kill()
        self.failed(waiting, ServiceUnavailable)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_loading_resets(self) -> None:
        """A worker that has loaded begins anew with the shortest delay."""
        bench = self.running()
        for _ in range(5):
            bench.worker.kill()
            status = bench.pool.status().workers[0].status
            assert isinstance(status, BackingOff)
            self.assertEqual(timedelta(seconds=1), status.until - status.since)
            bench.clock.advance(1.0)
        self.assertEqual(6, len(bench.provider.workers))

    def test_others_answer(self) -> None:
        """While one worker is given up the other answers."""
        bench = self.running(min_workers=2, max_retry_timeout=0)
        bench.worker.kill()
        self.successResultOf(bench.pool.submit(job()))
        self.assertEqual((False, False), (bench.pool.healthy(), bench.pool.ready()))

    def test_health_while_loading(self) -> None:
        """A model whose workers load is healthy, as ever, but not ready."""
        bench = Bench()
        bench.provider.load_delay = 1.0
        bench.pool.start()
        self.assertEqual((True, False), (bench.pool.healthy(), bench.pool.ready()))

    def test_describe(self) -> None:
        """The status of a worker says since when, and its process."""
        bench = Bench()
        bench.provider.load_delay = 1.0
        bench.pool.start()
        bench.clock.advance(0.5)
        (info,) = bench.pool.status().workers
        self.assertEqual(Starting(EPOCH), info.status)
        bench.clock.advance(0.5)
        (info,) = bench.pool.status().workers
        self.assertEqual(("9000", EPOCH, 1000, None), (info.worker_id, info.started, info.pid, info.gpu_id))
        self.assertEqual(
            (Ready(EPOCH + timedelta(seconds=1), 1000), EPOCH + timedelta(seconds=1)), (info.status, info.since)
        )


class RetireTests(PoolTestCase):
    """The end of a pool."""

    def test_retire(self) -> None:
        """Nobody is let in, who is in is answered, and then nothing is left."""
        bench = self.running(holding=True)
        running, waiting = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        retired = bench.pool.retire(30.0)
        self.failed(bench.pool.submit(job("3")), ServiceUnavailable)
        for answer in (running, waiting):
            self.assertNoResult(retired)
            bench.worker.answer()
            self.successResultOf(answer)
        self.successResultOf(retired)
        self.assertEqual(([], []), (bench.clock.getDelayedCalls(), bench.provider.alive))

    def test_grace_is_over(self) -> None:
        """What does not finish in time is answered all the same."""
        bench = self.running(holding=True)
        answer = bench.pool.submit(job())
        retired = bench.pool.retire(30.0)
        bench.clock.advance(30.0)
        self.failed(answer, WorkerDied)
        self.successResultOf(retired)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_what_waits_when_the_grace_is_over(self) -> None:
        """What has not come to a worker by then is refused; so is everything if there is no worker."""
        bench = self.running(holding=True)
        running, waiting = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        retired = bench.pool.retire(30.0)
        bench.clock.advance(30.0)
        self.failed(running, WorkerDied)
        self.failed(waiting, ServiceUnavailable)
        self.successResultOf(retired)
        self.assertEqual([], bench.clock.getDelayedCalls())
        loading = Bench()
        loading.provider.load_delay = None
        loading.pool.start().addErrback(lambda _: None)
        waiting = loading.pool.submit(job())
        self.successResultOf(loading.pool.retire(30.0))
        self.failed(waiting, ServiceUnavailable)

    def test_dies_while_retiring(self) -> None:
        """If the last worker is lost on the way out nobody waits for another."""
        bench = self.running(holding=True)
        running, waiting = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        retired = bench.pool.retire(30.0)
        bench.worker.kill()
        self.failed(running, WorkerDied)
        self.failed(waiting, ServiceUnavailable)
        self.successResultOf(retired)
        self.assertEqual([], bench.clock.getDelayedCalls())

    def test_hurry(self) -> None:
        """Retiring a second time with less grace ends the first."""
        bench = self.running(holding=True)
        bench.pool.submit(job()).addErrback(lambda _: None)
        first = bench.pool.retire(30.0)
        self.successResultOf(bench.pool.retire(0.0))
        self.successResultOf(first)
        self.successResultOf(bench.pool.retire(0.0))

    def test_no_scaling_after(self) -> None:
        """A pool that is retired is not brought back to life."""
        bench = self.running()
        self.successResultOf(bench.pool.retire(0.0))
        self.failed(bench.pool.scale(1, 1), ServiceUnavailable)
        self.assertEqual([], bench.provider.alive)

    def test_while_everything_happens(self) -> None:
        """A pool may be retired, scaled and used by whoever gets an answer of it."""
        bench = self.running(holding=True, batch_size=2, min_workers=2)
        ends: list[Deferred[Any]] = []

        def on_answer(item: Item) -> None:
            ends.append(bench.pool.scale(3, 3).addErrback(lambda _: None))
            ends.append(bench.pool.submit(job("more")).addErrback(lambda _: None))
            ends.append(bench.pool.retire(0.0))

        answers = [bench.pool.submit(job(str(n))).addCallback(on_answer) for n in range(4)]
        bench.worker.answer()
        for end in ends:
            self.successResultOf(end)
        for answer in answers:
            answer.addErrback(lambda _: None)
            self.successResultOf(answer)
        self.assertEqual(([], []), (bench.clock.getDelayedCalls(), bench.provider.alive))


class PoolProperties(SynchronousTestCase):
    """What holds whatever happens."""

    # Its rarest paths take more examples than a profile gives.
    @settings(max_examples=max(300, settings().max_examples))
    @given(
        model_settings(),
        sampled_from([0.0, 0.0, 0.3, None]),
        sampled_from([0.0, 0.7]),
        sampled_from([0.0, 0.0005]),
        worker_events(),
    )
    # A worker that has loaded, died and been sent away in one and the same turn.
    @example(
        ModelSettings(
            min_workers=2,
            max_workers=2,
            batch_size=2,
            max_batch_delay=3000,
            batch_policy=ClosePolicy.WINDOW,
            isolate_failures=False,
            retry_on_worker_death=False,
            response_timeout=120,
            job_queue_size=2,
            max_retry_timeout=300,
            client_timeout=0,
        ),
        0.0,
        0.0,
        0.0,
        [*[Submit(None)] * 13, Pass(0.0), Die(0, False)],
    )
    def test_every_request_is_answered_once(  # noqa: PLR0912 - one branch for each kind of event
        self,
        given_settings: ModelSettings,
        load_delay: float | None,
        answer_delay: float,
        seconds: float,
        events: list[WorkerEvent],
    ) -> None:
        """Each request gets one answer; workers never exceed their number; after the end nothing is left."""
        bench = Bench()
        clock, provider = bench.clock, bench.provider
        provider.load_delay, provider.answer_delay, provider.seconds = load_delay, answer_delay, seconds
        # What a worker that died had not begun comes back, whatever the queue holds.
        at_workers = given_settings.batch_size * (1 + (3 * MOST if seconds else 0))
        ids = count(9000)
        pool = Pool(spec(), given_settings, provider, clock, lambda: EPOCH, worker_ids=lambda: str(next(ids)))
        answers: list[Deferred[Item]] = []
        outcomes: list[list[object]] = []
        deadlines: list[float | None] = []
        streamed: set[int] = set()

        def submit(patience: float | None) -> None:
            deadline = None if patience is None else clock.seconds() + patience
            outcome: list[object] = []
            number = len(answers)
            answer = pool.submit(job(str(number)), lambda _item, _producer: streamed.add(number), deadline)
            if given_settings.client_timeout:
                own = clock.seconds() + given_settings.client_timeout / 1000
                deadline = own if deadline is None else min(own, deadline)
            deadlines.append(deadline)
            answer.addBoth(outcome.append)
            answers.append(answer)
            outcomes.append(outcome)

        def worker(number: int, act: Callable[[FakeWorker], object]) -> None:
            if provider.alive:
                act(provider.alive[number % len(provider.alive)])

        def chunk(one: FakeWorker) -> None:
            if one.busy:
                one.chunk(Item(one.running[0][0].request_id, 200, "", {}, b""))

        def hold(one: FakeWorker, holding: bool) -> None:
            one.holding = holding
            while one.busy and not one.holding:
                one.answer()

        waiting: list[Deferred[Any]] = [pool.start().addErrback(lambda _: None)]
        for event in events:
            if isinstance(event, Submit):
                submit(event.patience)
            elif isinstance(event, Pass):
                clock.advance(event.seconds)
            elif isinstance(event, Leave) and answers:
                answers[event.request % len(answers)].cancel()
            elif isinstance(event, Die):
                worker(event.worker, lambda one: one.kill(event.killed))  # noqa: B023
            elif isinstance(event, Hold):
                worker(event.worker, lambda one: hold(one, event.holding))  # noqa: B023
            elif isinstance(event, Misanswer):
                worker(event.worker, lambda one: one.answer([Item("?", 200, "", {}, b"")]))
            elif isinstance(event, Raise):
                worker(event.worker, lambda one: one.answer(WorkerFailed(503, "Prediction failed")))
            elif isinstance(event, Chunk):
                worker(event.worker, chunk)
            elif isinstance(event, Break):
                provider.load_error = WorkerFailed(500, "broken") if event.broken else None
            elif isinstance(event, Scale):
                scaled = pool.scale(event.min_workers, event.min_workers + event.extra)
                waiting.append(scaled.addErrback(lambda _: None))
            status = pool.status()
            self.assertLessEqual(len(provider.alive), len(status.workers))
            self.assertLessEqual(status.pending, given_settings.job_queue_size + at_workers)
            self.assertLessEqual({info.status.word for info in status.workers}, {"READY", "LOADING", "UNLOADING"})
            for number, (outcome, deadline) in enumerate(zip(outcomes, deadlines, strict=True)):
                self.assertLessEqual(len(outcome), 1)
                if deadline is not None and clock.seconds() > deadline and number not in streamed:
                    self.assertEqual(1, len(outcome))

        retired = pool.retire(5.0)
        clock.advance(5.0)
        self.successResultOf(retired)
        self.assertEqual([1] * len(answers), [len(outcome) for outcome in outcomes])
        for scaled in waiting:
            self.successResultOf(scaled)
        self.successResultOf(pool.settled)
        self.assertEqual([], provider.alive)
        self.assertEqual([], clock.getDelayedCalls())
        self.assertEqual(((), 0, 0), (pool.status().workers, pool.status().pending, pool.status().running))
