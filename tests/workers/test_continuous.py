# SPDX-License-Identifier: Apache-2.0
"""Tests for pools with continuous batching: who is in a batch from call to call, and what its clients get."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.batching.sequences import SequenceLimits
from twisted_serve.errors import ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.interfaces import WorkerSpec
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.metrics.timing import Timing
from twisted_serve.models.version import ModelSettings
from twisted_serve.testing.fakes import FakeProvider, FakeWorker, Respond
from twisted_serve.wire.codec import UnsendableError
from twisted_serve.wire.messages import Item, Job, Part
from twisted_serve.workers.pool import Pool

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


@define(eq=False)
class Client:
    """Who has asked for some pieces, and what has come of it."""

    request_id: str
    wanted: int
    pieces: list[bytes] = field(factory=list)
    answers: list[Any] = field(factory=list)
    answer: Deferred[Any] = field(factory=Deferred)
    producer: IPushProducer | None = None

    @property
    def text(self) -> bytes:
        """What it has got so far, pieces and last answer."""
        return b"".join([*self.pieces, *(each.body for each in self.answers if isinstance(each, Item))])

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        self.producer = producer
        self.pieces.append(item.body)

    def done(self, result: Any) -> None:
        self.answers.append(getattr(result, "value", result))


class Generator:
    """A handler: gives each request as many letters as its body says, one for each call."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.given: dict[str, int] = {}

    def __call__(self, jobs: list[Job]) -> list[Item]:
        # Who is not there any more has gone.
        self.left = {each: left for each, left in self.left.items() if each in {job.request_id for job in jobs}}
        items = []
        for job in jobs:
            if job.parts:
                assert job.request_id not in self.left, "given its inputs twice"
                self.left[job.request_id] = int(job.parts[0].value)
                self.given[job.request_id] = 0
            letter = b"%c" % (97 + self.given[job.request_id])
            self.given[job.request_id] += 1
            self.left[job.request_id] -= 1
            items.append(Item(job.request_id, 200, "", {}, letter, more=self.left[job.request_id] > 0))
        return items


class Seen(PoolObserver):
    """Keeps the sizes of batches, and what is said of requests that are finished."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.finished: list[tuple[float | None, float | None]] = []

    def batch_sent(self, batch: Sequence[Timing], overhead: float, going: int = 0) -> None:
        self.sizes.append(len(batch) + going)

    def batch_answered(self, batch: Sequence[Timing], overhead: float) -> None:
        self.finished += [(timing.waited, timing.worked) for timing in batch]


class Scene:
    """A pool of workers which keep what they are given until told otherwise, each with a handler of its own."""

    def __init__(self, workers: int = 1, holding: bool = True, respond: Respond | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.handlers: dict[FakeWorker, Generator] = {}
        self.provider = FakeProvider(self.clock, respond=respond or Generator())
        self.provider.holding = holding
        self.observer = Seen()
        ids, self.ids = count(9000), count(1)
        self.pool = Pool(
            WorkerSpec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 120.0, continuous=True),
            ModelSettings(**{"min_workers": workers, "max_workers": workers, "continuous": True, **settings}),
            self.provider,
            self.clock,
            lambda: EPOCH + timedelta(seconds=self.clock.seconds()),
            worker_ids=lambda: str(next(ids)),
            observer=self.observer,
        )
        self.pool.start()

    def ask(self, wanted: int, headers: dict[str, str] | None = None) -> Client:
        client = Client(f"r{next(self.ids)}", wanted)
        job = Job(client.request_id, headers or {}, [Part("body", "", b"%d" % wanted)])
        client.answer = self.pool.submit(job, client.chunk)
        client.answer.addBoth(client.done)
        return client

    def step(self, number: int = 0) -> None:
        """Let a worker make one call of its handler."""
        worker = self.provider.alive[number]
        if worker.busy:
            worker.answer(self.handlers.setdefault(worker, Generator())(worker.batches[-1]))

    def running(self, number: int = 0) -> list[str]:
        """Who is at a worker."""
        worker = self.provider.alive[number]
        return [job.request_id for job in worker.batches[-1]] if worker.busy else []


class ContinuousTests(SynchronousTestCase):
    """What clients and handlers see."""

    def make(self, *arguments: Any, **settings: Any) -> Scene:
        scene = Scene(*arguments, **settings)
        self.addCleanup(scene.pool.retire, 0.0)
        return scene

    def test_join_and_leave(self) -> None:
        """Requests join at the next call, up to ``batchSize``, and leave when they are finished; each gets its text."""
        scene = self.make(batch_size=2)
        long, short = scene.ask(4), scene.ask(2)
        self.assertEqual(scene.running(), ["r1"])
        scene.step()
        self.assertEqual(scene.running(), ["r1", "r2"])
        third = scene.ask(1)
        scene.step()
        self.assertEqual(scene.running(), ["r1", "r2"])
        scene.step()
        self.assertEqual(scene.running(), ["r1", "r3"])
        self.assertEqual((short.pieces, short.text), ([b"a"], b"ab"))
        scene.step()
        self.assertEqual(scene.running(), [])
        self.assertEqual((long.pieces, long.text), ([b"a", b"b", b"c"], b"abcd"))
        self.assertEqual((third.pieces, third.text), ([], b"a"))
        status = scene.pool.status()
        self.assertEqual((status.running, status.pending), (0, 0))

    def test_observed(self) -> None:
        """The size of each batch is seen, and each request once: how long it waited, and how long its calls took."""
        scene = self.make(batch_size=2)
        scene.ask(3)
        scene.ask(1)
        for _ in range(3):
            scene.clock.advance(1.0)
            scene.step()
        self.assertEqual(scene.observer.sizes, [1, 2, 1])
        self.assertEqual(scene.observer.finished, [(1.0, 1.0), (0.0, 3.0)])

    def test_inputs_once(self) -> None:
        """A request's inputs are sent with its first call only, its headers with each."""
        scene = self.make()
        scene.ask(2, {"x": "y"})
        scene.step()
        scene.step()
        [[first], [second]] = scene.provider.batches
        self.assertEqual((first.parts, first.headers), ([Part("body", "", b"2")], {"x": "y"}))
        self.assertEqual((second.parts, second.headers), ([], {"x": "y"}))

    def test_client_gone(self) -> None:
        """A client that has gone is not in the next call, while the others go on; with the last one the calls end."""
        scene = self.make(batch_size=2)
        first, second = scene.ask(9), scene.ask(9)
        scene.step()
        first.answer.cancel()
        self.assertEqual(scene.provider.workers[0].cancelled, ["r1"])
        scene.step()
        self.assertEqual(scene.running(), ["r2"])
        second.answer.cancel()
        scene.step()
        self.assertEqual(scene.running(), [])
        self.assertEqual([len(client.answers) for client in (first, second)], [1, 1])
        third = scene.ask(1)
        scene.step()
        self.assertEqual(third.text, b"a")

    def test_gone_while_waiting(self) -> None:
        """A client that goes before its request has joined leaves nothing behind."""
        scene = self.make(batch_size=1)
        scene.ask(2)
        waiting = scene.ask(2)
        waiting.answer.cancel()
        scene.step()
        scene.step()
        self.assertEqual(scene.running(), [])
        self.assertIsInstance(waiting.answers[0], CancelledError)

    def test_failure(self) -> None:
        """A call that fails fails all that are in it, once; nothing is tried again, and who waits is next."""
        scene = self.make(batch_size=2)
        clients = [scene.ask(9), scene.ask(9), scene.ask(1)]
        scene.step()
        [worker] = scene.provider.workers
        worker.answer(WorkerFailed(503, "Prediction failed"))
        for client in clients[:2]:
            [error] = client.answers
            self.assertEqual((error.status, error.message), (503, "Prediction failed"))
        self.assertEqual(scene.running(), ["r3"])
        scene.step()
        self.assertEqual(clients[2].text, b"a")

    def test_worker_dies(self) -> None:
        """All that a worker was at get an error when it dies, those without a sign so far as well; others go on."""
        scene = self.make(workers=2, batch_size=2)
        clients = [scene.ask(3) for _ in range(4)]
        scene.step(0)
        scene.step(1)
        self.assertEqual([len(scene.running(number)) for number in (0, 1)], [2, 2])
        dying = set(scene.running(0))
        scene.provider.alive[0].kill()
        for client in clients:
            if client.request_id in dying:
                self.assertIsInstance(client.answers[0], WorkerDied)
        for _ in range(3):
            scene.step(0)
        self.assertEqual(sorted(c.text for c in clients if c.request_id not in dying), [b"abc", b"abc"])

    def test_response_timeout(self) -> None:
        """``responseTimeout`` is for each call: a long answer may take longer, a call may not."""
        scene = self.make(response_timeout=10)
        client = scene.ask(9)
        for _ in range(3):
            scene.clock.advance(9.0)
            scene.step()
        self.assertEqual(client.pieces, [b"a", b"b", b"c"])
        scene.clock.advance(10.0)
        self.assertIsInstance(client.answers[0], WorkerDied)

    def test_slow_client(self) -> None:
        """A client that reads slowly holds up neither the others nor ``responseTimeout``."""
        scene = self.make(batch_size=2, response_timeout=10)
        slow = scene.ask(9)
        scene.step()
        assert slow.producer is not None
        slow.producer.pauseProducing()
        quick = scene.ask(2)
        for _ in range(3):
            scene.step()
        self.assertEqual(quick.text, b"ab")
        self.assertEqual(scene.provider.workers[0].paused, set())
        scene.clock.advance(10.0)
        self.assertIsInstance(slow.answers[0], WorkerDied)

    def test_describe(self) -> None:
        """A description is asked for alone: when the batch has ended, before those that came later, once."""
        scene = self.make(batch_size=3)
        scene.ask(2)
        scene.pool.submit(Job("d", {"describe": "True"}, [Part("body", "", b"1")]))
        scene.ask(1)
        scene.step()
        self.assertEqual(scene.running(), ["r1"])
        scene.step()
        self.assertEqual(scene.running(), ["d"])
        scene.step()
        self.assertEqual(scene.running(), ["r2"])

    def test_sent_away(self) -> None:
        """A worker that is sent away finishes what goes on, takes nothing new, and then ends."""
        scene = self.make(batch_size=2)
        client = scene.ask(4)
        scene.step()
        [worker] = scene.provider.workers
        gone = scene.pool.retire(30.0)
        late = scene.ask(1)
        self.assertIsInstance(late.answers[0], ServiceUnavailable)
        for text in (b"ab", b"abc", b"abcd"):
            self.assertTrue(worker.alive)
            worker.answer(scene.handlers[worker](worker.batches[-1]))
            self.assertEqual(client.text, text)
        self.assertFalse(worker.alive)
        self.successResultOf(gone)

    def test_nobody_joins_who_leaves(self) -> None:
        """Who waits joins a worker that stays, and not one that was sent away, whoever of them answers first."""
        scene = self.make(workers=2, batch_size=2)
        clients = [scene.ask(3), scene.ask(3), scene.ask(1)]
        scene.pool.scale(1, 1)
        staying, leaving = scene.provider.alive
        before = leaving.batches[-1][0].request_id
        scene.step(1)
        self.assertEqual(scene.running(1), [before])
        scene.step(0)
        self.assertEqual(scene.running(0)[1:], ["r3"])
        for _ in range(2):
            scene.step(1)
            scene.step(0)
        self.assertEqual([client.text for client in clients], [b"abc", b"abc", b"a"])
        self.assertEqual((staying.alive, leaving.alive), (True, False))

    def test_grace(self) -> None:
        """What is not finished when the grace is over is answered with an error."""
        scene = self.make()
        client = scene.ask(9)
        scene.step()
        gone = scene.pool.retire(5.0)
        [worker] = scene.provider.workers
        worker.answer(scene.handlers[worker](worker.batches[-1]))
        self.assertEqual(client.answers, [])
        scene.clock.advance(5.0)
        self.assertIsInstance(client.answers[0], WorkerDied)
        self.successResultOf(gone)

    def test_at_once(self) -> None:
        """Pieces keep their order also from a worker that answers before it returns."""
        scene = self.make(holding=False, batch_size=2)
        client = scene.ask(20)
        self.assertEqual(client.text, b"abcdefghijklmnopqrst")
        self.assertEqual(len(client.pieces), 19)

    def test_more_without_leave(self) -> None:
        """A worker whose model does not batch continuously has no say in it: its answer is the last one."""
        scene = self.make(continuous=False)
        client = scene.ask(3)
        scene.step()
        self.assertEqual((scene.running(), client.text), ([], b"a"))

    def test_adaptive(self) -> None:
        """Where late requests join, there is nothing to learn or to wait for."""
        scene = self.make(batch_size=2, batch_policy=ClosePolicy.ADAPTIVE, max_batch_delay=1000)
        client = scene.ask(2)
        scene.step()
        scene.step()
        self.assertEqual(client.text, b"ab")

    def test_window(self) -> None:
        """Under ``window`` a batch waits for company when it begins, and not when it goes on."""
        scene = self.make(batch_size=3, batch_policy=ClosePolicy.WINDOW, max_batch_delay=1000)
        scene.ask(5)
        self.assertEqual(scene.running(), [])
        scene.clock.advance(1.0)
        self.assertEqual(scene.running(), ["r1"])
        scene.ask(5)
        scene.step()
        self.assertEqual(scene.running(), ["r1", "r2"])

    def test_worker_lost_unseen(self) -> None:
        """Where a worker turns out to have gone between two calls, who was at it is told, and who waits is not lost."""
        scene = self.make(batch_size=2)
        going = scene.ask(9)
        waiting = scene.ask(1)
        [worker] = scene.provider.workers

        def gone(*_arguments: object) -> Deferred[Any]:
            raise WorkerDied

        self.patch(worker, "run", gone)
        scene.step()
        self.assertIsInstance(going.answers[-1], WorkerDied)
        self.assertEqual(waiting.answers, [])
        worker.kill()
        scene.clock.advance(5.0)
        scene.step()
        self.assertEqual(waiting.text, b"a")

    def test_unsendable(self) -> None:
        """Where a call cannot be sent, all that would have been in it are told."""
        scene = self.make(batch_size=2)
        clients = [scene.ask(9), scene.ask(1)]
        [worker] = scene.provider.workers

        def unsendable(*_arguments: object) -> Deferred[Any]:
            patched.restore()
            raise UnsendableError("too long")

        patched = self.patch(worker, "run", unsendable)
        scene.step()
        for client in clients:
            self.assertIsInstance(client.answers[-1], WorkerFailed)
        self.flushLoggedErrors(UnsendableError)
        again = scene.ask(1)
        scene.step()
        self.assertEqual(again.text, b"a")


class SequenceTests(SynchronousTestCase):
    """Continuous batching of a stateful model."""

    def setUp(self) -> None:
        limits = SequenceLimits(sequences=4, waiting=1, idle=10.0, life=100.0)
        self.scene = Scene(batch_size=2, sequences=limits)
        self.addCleanup(self.scene.pool.retire, 0.0)

    def ask(self, sequence: str, wanted: int = 9) -> Client:
        return self.scene.ask(wanted, {"ts_request_sequence_id": sequence})

    def test_cancel(self) -> None:
        """Another request of a sequence joins while the first goes on, also when the batch is full."""
        first, _second = self.ask("a"), self.ask("b")
        self.scene.step()
        third, fourth = self.ask("c", 1), self.ask("a", 1)
        self.scene.step()
        self.assertEqual(self.scene.running(), ["r1", "r2", "r4"])
        first.answer.cancel()
        self.scene.step()
        self.assertEqual(fourth.text, b"a")
        self.assertEqual(self.scene.running(), ["r2", "r3"])
        self.scene.step()
        self.assertEqual(third.text, b"a")

    def test_at_most(self) -> None:
        """There are never more than twice ``batchSize`` in a call, and one new one of each sequence."""
        self.ask("a")
        self.scene.step()
        for expected in (["r1", "r2"], ["r1", "r2", "r3"], ["r1", "r2", "r3", "r4"], ["r1", "r2", "r3", "r4"]):
            self.ask("a")
            self.scene.step()
            self.assertEqual(self.scene.running(), expected)

    def test_end(self) -> None:
        """The handler ends sequences, which makes room at once; what waits of one begins anew."""
        [worker] = self.scene.provider.workers
        clients = [self.ask(name, 1) for name in "abcd"]
        self.scene.step()
        self.scene.step()
        self.scene.step()
        refused = self.ask("e")
        self.assertIsInstance(refused.answers[0], ServiceUnavailable)
        self.ask("a")
        self.assertEqual(self.scene.running(), ["r6"])
        worker.answer([Item("r6", 200, "", {"Ts_Request_Sequence_End": "b; c;;unknown"}, b"", more=True)])
        self.assertEqual([client.text for client in clients], [b"a"] * 4)
        fifth, sixth = self.ask("e", 1), self.ask("f", 1)
        self.assertEqual(fifth.answers + sixth.answers, [])
        self.assertIsInstance(self.ask("g").answers[0], ServiceUnavailable)

    def test_end_of_its_own(self) -> None:
        """A request that waits while its sequence is ended is answered all the same."""
        [worker] = self.scene.provider.workers
        self.ask("a")
        waiting = self.ask("a", 1)
        worker.answer([Item("r1", 200, "", {"ts_request_sequence_end": "a"}, b"")])
        self.assertEqual(self.scene.running(), ["r2"])
        self.scene.step()
        self.assertEqual(waiting.text, b"a")

    def test_goes_on_past_its_time(self) -> None:
        """A sequence is not over while a request of it goes on, however long that has been idle otherwise."""
        self.ask("a", 5)
        self.scene.step()
        self.scene.clock.advance(20.0)
        for name in "bcd":
            self.ask(name, 1)
        self.assertIsInstance(self.ask("e").answers[0], ServiceUnavailable)


class Continuous(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing is lost, nothing comes twice, batches are never too large."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(workers=2, batch_size=3, job_queue_size=5)
        self.clients: list[Client] = []
        self.gone: set[str] = set()

    @rule(wanted=st.integers(1, 5))
    def ask(self, wanted: int) -> None:
        self.clients.append(self.scene.ask(wanted))

    @rule(number=st.integers(0, 1))
    def step(self, number: int) -> None:
        if number < len(self.scene.provider.alive):
            self.scene.step(number)

    @rule(number=st.integers(0, 1))
    def fail(self, number: int) -> None:
        if number < len(self.scene.provider.alive) and self.scene.provider.alive[number].busy:
            self.scene.provider.alive[number].answer(WorkerFailed(503, "Prediction failed"))

    @rule(number=st.integers(0, 1))
    def die(self, number: int) -> None:
        if number < len(self.scene.provider.alive):
            self.scene.provider.alive[number].kill()

    @rule(number=st.integers(0, 50))
    def leave(self, number: int) -> None:
        unanswered = [client for client in self.clients if not client.answers]
        if unanswered:
            client = unanswered[number % len(unanswered)]
            self.gone.add(client.request_id)
            client.answer.cancel()

    @rule(seconds=st.sampled_from([0.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.scene.clock.advance(seconds)

    @invariant()
    def promises(self) -> None:
        everybody = [client for client in self.clients if not client.answers]
        there = [name for number in range(len(self.scene.provider.alive)) for name in self.scene.running(number)]
        assert all(len(batch) <= 3 for batch in self.scene.provider.batches)
        assert len(there) == len(set(there)), "at two workers"
        assert {client.request_id for client in everybody} >= set(there) - self.gone
        status = self.scene.pool.status()
        assert status.running + status.pending >= len(everybody), "lost"
        for client in self.clients:
            assert len(client.answers) <= 1
            assert b"abcde".startswith(client.text), "out of order"
            if client.answers and isinstance(client.answers[0], Item):
                assert len(client.text) == client.wanted

    def teardown(self) -> None:
        for _ in range(40):
            self.scene.clock.advance(1.0)
            for number in range(len(self.scene.provider.alive)):
                self.scene.step(number)
        assert all(client.answers for client in self.clients), "left without an answer"
        assert self.scene.pool.status().running == 0
        self.scene.pool.retire(0.0)
        assert self.scene.clock.getDelayedCalls() == []


ContinuousMachineTests = Continuous.TestCase
