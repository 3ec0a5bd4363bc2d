# SPDX-License-Identifier: Apache-2.0
"""Tests for pools with continuous batching: sequences, and random operations."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from tests.scheduling.continuous_case import Client, Scene
from twisted_serve.batching.sequences import SequenceLimits
from twisted_serve.errors import ServiceUnavailable, WorkerFailed
from twisted_serve.wire.messages import Item


class SequenceTests(SynchronousTestCase):
    """Continuous batching of a stateful model."""

    def setUp(self) -> None:
        limits = SequenceLimits(sequences=4, waiting=1, idle=10.0, life=100.0)
        self.scene = Scene(batch_size=2, sequences=limits)
        self.addCleanup(self.scene.pool.retire, 0.0)

    def ask(self, sequence: str, wanted: int = 9) -> Client:
        return self.scene.ask(wanted, {"ts_request_sequence_id": sequence})

    def test_cancel(self) -> None:
        """Another request of a sequence joins while the first continues, even when the batch is full."""
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
        """A call has at most twice ``batchSize`` requests, and one new request of each sequence."""
        self.ask("a")
        self.scene.step()
        for expected in (["r1", "r2"], ["r1", "r2", "r3"], ["r1", "r2", "r3", "r4"], ["r1", "r2", "r3", "r4"]):
            self.ask("a")
            self.scene.step()
            self.assertEqual(self.scene.running(), expected)

    def test_end(self) -> None:
        """When the handler ends a sequence, its place is free immediately; a queued request of it begins it anew."""
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

    def test_idle_for_too_long(self) -> None:
        """A request for a sequence that was idle for too long is refused until the sequence is begun anew."""
        scene = Scene(workers=2, sequences=SequenceLimits(sequences=2, waiting=10, idle=30.0, life=60.0))
        self.addCleanup(scene.pool.retire, 0.0)
        name = {"ts_request_sequence_id": "a"}
        first = scene.ask(1, name)
        scene.step(0)
        scene.step(1)
        self.assertEqual(b"a", first.text)
        scene.clock.advance(31.0)
        [error] = scene.ask(1, name).answers
        self.assertIsInstance(error, ServiceUnavailable)
        self.assertIn("please check if it is closed, or expired", error.message)
        self.assertIn("Its sequence is over", error.message)
        # A sequence with an unused name, one that is begun explicitly, and one without a name.
        for headers in ({"ts_request_sequence_id": "b"}, {**name, "ts_request_sequence_start": "true"}, None):
            asked = scene.ask(1, headers)
            scene.step(0)
            scene.step(1)
            self.assertEqual(b"a", asked.text)
            scene.clock.advance(31.0)

    def test_lasted_too_long(self) -> None:
        """A request for a sequence that has reached its maximum duration is refused, however busy the sequence was."""
        scene = Scene(workers=1, sequences=SequenceLimits(sequences=2, waiting=10, idle=30.0, life=60.0))
        self.addCleanup(scene.pool.retire, 0.0)
        name = {"ts_request_sequence_id": "a"}
        for _ in range(30):
            asked = scene.ask(1, name)
            scene.step()
            self.assertEqual(b"a", asked.text)
            scene.clock.advance(2.0)
        [error] = scene.ask(1, name).answers
        self.assertIsInstance(error, ServiceUnavailable)
        self.assertEqual(0, scene.pool.status().pending)

    def test_not_continuous(self) -> None:
        """Without continuous batching a request for an expired sequence begins it anew."""
        scene = Scene(workers=1, sequences=SequenceLimits(sequences=2, waiting=10, idle=30.0), continuous=False)
        self.addCleanup(scene.pool.retire, 0.0)
        for _ in range(2):
            asked = scene.ask(1, {"ts_request_sequence_id": "a"})
            scene.step()
            self.assertEqual(b"a", asked.text)
            scene.clock.advance(31.0)

    def test_end_of_its_own(self) -> None:
        """A request that is queued while its sequence is ended is still answered."""
        [worker] = self.scene.provider.workers
        self.ask("a")
        waiting = self.ask("a", 1)
        worker.answer([Item("r1", 200, "", {"ts_request_sequence_end": "a"}, b"")])
        self.assertEqual(self.scene.running(), ["r2"])
        self.scene.step()
        self.assertEqual(waiting.text, b"a")

    def test_goes_on_past_its_time(self) -> None:
        """A sequence does not expire while one of its requests continues, however long it has been idle otherwise."""
        self.ask("a", 5)
        self.scene.step()
        self.scene.clock.advance(20.0)
        for name in "bcd":
            self.ask(name, 1)
        self.assertIsInstance(self.ask("e").answers[0], ServiceUnavailable)


class Continuous(RuleBasedStateMachine):
    """After any operations in any order no response is lost or repeated, and no batch is too large."""

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
