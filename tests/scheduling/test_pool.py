# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.scheduling.pool`, with the modules under it and fake workers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from hypothesis import example, given, settings
from hypothesis.strategies import sampled_from
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.scheduling.pool_bench import EPOCH, Bench, PoolTestCase, job, spec
from twisted_serve.batching.prefetch import MOST
from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.errors import RequestTimeout, ServiceUnavailable, WorkerFailed
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeWorker
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
from twisted_serve.wire.messages import Item

NO_WORKER = (
    'Model "m" has no worker to serve inference request. Please use scale workers API to add workers. '
    "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)


class ObserverTests(PoolTestCase):
    """The events that an observer gets."""

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
    """Submitting requests to a pool."""

    def test_answered(self) -> None:
        """A request gets the response of a worker."""
        bench = self.running()
        item = self.successResultOf(bench.pool.submit(job("a", b"hello")))
        self.assertEqual(("a", b"hello"), (item.request_id, item.body))
        self.assertEqual([0.0], bench.seen.waited)

    def test_no_worker(self) -> None:
        """Without a worker a request is refused immediately with TorchServe's text, including its odd quote."""
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
        """A request that finds the queue full is refused with TorchServe's text, a reason and ``Retry-After``."""
        bench = self.running(holding=True, job_queue_size=1)
        first, second = bench.pool.submit(job("1")), bench.pool.submit(job("2"))
        error = self.failed(bench.pool.submit(job("3")), ServiceUnavailable)
        self.assertEqual(f"{NO_WORKER}. The request queue is full (1 waiting).", error.message)
        self.assertEqual(1, error.retry_after)
        versioned = self.failed(bench.pool.submit(job("3"), versioned=True), ServiceUnavailable)
        self.assertTrue(versioned.message.startswith('Model "m" Version 1.0" has no worker'))
        bench.worker.answer()
        bench.worker.answer()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_the_expired_make_room(self) -> None:
        """An expired request does not keep another one out of a full queue."""
        bench = self.running(holding=True, job_queue_size=1)
        bench.pool.submit(job("1"))
        late = bench.pool.submit(job("2"), deadline=0.0)
        bench.pool.submit(job("3"))
        self.failed(late, RequestTimeout)
        self.assertEqual(1, bench.pool.status().pending)

    def test_batches_grow_while_workers_are_busy(self) -> None:
        """Requests that arrive while all workers are busy share a batch, up to the batch size and in order."""
        bench = self.running(holding=True, batch_size=3)
        answers = [bench.pool.submit(job(str(n))) for n in range(6)]
        for _ in range(3):
            bench.worker.answer()
        ids = [[one.request_id for one in batch] for batch in bench.provider.batches]
        self.assertEqual([["0"], ["1", "2", "3"], ["4", "5"]], ids)
        self.assertEqual([str(n) for n in range(6)], [self.successResultOf(a).request_id for a in answers])

    def test_window(self) -> None:
        """Under TorchServe's policy a batch waits for more requests as long as the version allows."""
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
        """A version that learns the cost of a batch makes a request wait if that pays, and only then."""
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
        """A request that cannot be answered before its deadline is refused immediately, with the reason."""
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
        """A batch never mixes predictions with descriptions or explanations, which are sent alone."""
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
        """Each worker has one batch at a time, and all workers are used."""
        bench = self.running(holding=True, min_workers=2)
        for n in range(3):
            bench.pool.submit(job(str(n)))
        self.assertEqual([1, 1], [len(worker.batches) for worker in bench.provider.workers])
        self.assertEqual((1, 2), (bench.pool.status().pending, bench.pool.status().running))


class PoolProperties(SynchronousTestCase):
    """Invariants of a pool."""

    # The rarest paths need more examples than a profile has.
    @settings(max_examples=max(300, settings().max_examples))
    @given(
        model_settings(),
        sampled_from([0.0, 0.0, 0.3, None]),
        sampled_from([0.0, 0.7]),
        sampled_from([0.0, 0.0005]),
        worker_events(),
    )
    # A worker that has loaded, died and been stopped in the same turn.
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
        """Each request gets one response, the number of workers stays within bounds, and nothing is left at the end."""
        bench = Bench()
        clock, provider = bench.clock, bench.provider
        provider.load_delay, provider.answer_delay, provider.seconds = load_delay, answer_delay, seconds
        # Batches that a dead worker had not begun are queued again, whatever the queue's capacity.
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
