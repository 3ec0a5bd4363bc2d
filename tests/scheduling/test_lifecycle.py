# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.scheduling.lifecycle`."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from automat import NoTransition
from hypothesis import given
from hypothesis.strategies import lists, sampled_from
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces import IWorker, Placement
from twisted_serve.scheduling.replica import Replica
from twisted_serve.scheduling.status import (
    BackingOff,
    Draining,
    Failing,
    GivenUp,
    Idle,
    Ready,
    Starting,
    Stopped,
)
from twisted_serve.testing.fakes import FakeProvider, FakeWorker

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SPEC = worker_spec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 10.0)


class Owner:
    """An owner that records the events of a replica."""

    def __init__(self) -> None:
        self.ready: list[IWorker] = []
        self.path: list[str] = []

    def replica_ready(self, replica: Replica, worker: IWorker) -> None:
        """See `ReplicaOwner`."""
        self.ready.append(worker)

    def replica_unready(self, replica: Replica, worker: IWorker) -> None:
        """See `ReplicaOwner`."""
        self.ready.remove(worker)

    def replica_changed(self, replica: Replica) -> None:
        """See `ReplicaOwner`."""
        self.path.append(type(replica.status).__name__)


class Harness:
    """A replica with its owner, its clock and its provider."""

    def __init__(self, window: float = 300.0) -> None:
        self.clock = Clock()
        self.provider = FakeProvider(self.clock, load_delay=None)
        self.owner = Owner()
        self.replica = Replica(
            Placement("9000", 2),
            lambda placement: self.provider.start(SPEC, placement),
            self.owner,
            clock=self.clock,
            now=lambda: NOW,
            max_retry_timeout=window,
        )

    @property
    def worker(self) -> FakeWorker:
        """The newest worker."""
        return self.provider.workers[-1]


class ReplicaTests(SynchronousTestCase):
    """The lifecycle of a replica."""

    def test_life(self) -> None:
        """A worker is started, loads, is lost, waits, is started again, and stops."""
        harness = Harness()
        self.assertIsInstance(harness.replica.status, Idle)
        started = harness.replica.start()
        harness.worker.load()
        self.successResultOf(started)
        self.successResultOf(harness.replica.start())
        harness.worker.kill()
        harness.clock.advance(1.0)
        harness.worker.load()
        self.successResultOf(harness.replica.stop(0.0))
        self.successResultOf(harness.replica.stop(0.0))
        self.assertEqual(
            ["Starting", "Ready", "BackingOff", "Starting", "Ready", "Draining", "Stopped"], harness.owner.path
        )

    def test_started_while_loading(self) -> None:
        """A second start while a worker is loading waits for the same worker."""
        harness = Harness()
        first, second = harness.replica.start(), harness.replica.start()
        harness.worker.load()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(1, len(harness.provider.workers))

    def test_discarded_while_loading(self) -> None:
        """A worker discarded before it has loaded is replaced like any other."""
        harness = Harness()
        started = harness.replica.start()
        harness.replica.discard(harness.worker, "it hangs")
        self.failureResultOf(started, WorkerFailed)
        status = harness.replica.status
        assert isinstance(status, BackingOff)
        self.assertEqual("it hangs", status.reason)

    def test_discarded_too_late(self) -> None:
        """A late event of an earlier worker does not affect its successor."""
        harness = Harness()
        harness.replica.start()
        harness.worker.load()
        old = harness.worker
        old.kill()
        harness.clock.advance(1.0)
        harness.worker.load()
        harness.replica.discard(old, "it hangs")
        self.assertIsInstance(harness.replica.status, Ready)

    def test_lost_without_a_word(self) -> None:
        """A worker lost before it has loaded has failed to load."""
        for window, status in ((300.0, BackingOff), (0.0, GivenUp)):
            harness = Harness(window)
            started = harness.replica.start()
            harness.worker.alive = False
            harness.worker.lost.callback("gone")
            self.assertEqual("gone", self.failureResultOf(started, WorkerFailed).value.message)
            self.assertIsInstance(harness.replica.status, status)
            harness.worker.loaded.errback(RuntimeError("late"))
            self.assertIsInstance(harness.replica.status, status)

    def test_strange_failure(self) -> None:
        """Any exception in a provider is a failure to load."""
        harness = Harness()
        started = harness.replica.start()
        harness.worker.loaded.errback(RuntimeError("strange"))
        error = self.failureResultOf(started, WorkerFailed).value
        self.assertEqual((500, "strange"), (error.status, error.message))
        self.assertIsInstance(harness.replica.status, Failing)

    def test_failing_takes_time(self) -> None:
        """A second worker is never started before the first is gone."""
        harness = Harness()
        harness.replica.start()
        harness.worker.load()
        harness.worker.holding = True
        harness.worker.run(1, [], lambda chunk: None).addErrback(lambda _: None)
        stop = harness.worker.stop
        # The worker takes a second to end, whatever the grace.
        harness.replica._core.end_worker = lambda grace: stop(1.0)
        harness.replica.discard(harness.worker, "it hangs")
        self.assertEqual((Failing(NOW, "it hangs"), []), (harness.replica.status, harness.owner.ready))
        again = harness.replica.start()
        harness.replica.discard(harness.worker, "twice")
        harness.clock.advance(1.0)
        self.assertEqual(1, len(harness.provider.workers))
        harness.clock.advance(1.0)
        harness.worker.load()
        self.successResultOf(again)

    def test_stopped_is_the_end(self) -> None:
        """A stopped replica cannot be started again."""
        harness = Harness()
        self.successResultOf(harness.replica.stop(1.0))
        self.assertRaises(NoTransition, harness.replica.start)
        self.assertIsInstance(harness.replica.status, Stopped)

    def test_info(self) -> None:
        """A replica's snapshot has the process id while there is a process."""
        harness = Harness()
        harness.replica.start().addErrback(lambda _: None)
        info = harness.replica.info()
        self.assertEqual(
            ("9000", Starting(NOW), NOW, NOW, 1000, 2),
            (info.worker_id, info.status, info.started, info.since, info.pid, info.gpu_id),
        )
        harness.worker.kill()
        self.assertIsNone(harness.replica.info().pid)


EVENTS = ["start", "stop", "drain", "discard", "load", "fail", "kill", "second", "hour", "hold"]
STATUSES = (Idle, Starting, Ready, Failing, BackingOff, GivenUp, Draining, Stopped)


class ReplicaProperties(SynchronousTestCase):
    """Invariants of a replica."""

    @given(sampled_from([0.0, 2.0, 300.0]), lists(sampled_from(EVENTS), max_size=30))
    def test_always_somewhere(self, window: float, events: list[str]) -> None:
        """After any events a replica is in a named state with at most one worker, and can be stopped completely."""
        harness = Harness(window)
        pending = []
        for event in events:
            if event == "start" and not isinstance(harness.replica.status, (Draining, Stopped)):
                pending.append(harness.replica.start().addErrback(lambda _: None))
            elif event in ("stop", "drain"):
                pending.append(harness.replica.stop(0.0 if event == "stop" else 1.0))
            elif event in ("second", "hour"):
                harness.clock.advance(1.0 if event == "second" else 3600.0)
            elif harness.provider.alive:
                worker = harness.worker
                if event == "discard":
                    harness.replica.discard(worker, "of no use")
                elif event == "load":
                    worker.load()
                elif event == "fail":
                    if isinstance(harness.replica.status, Starting):
                        worker.fail_to_load(WorkerFailed(500, "broken"))
                elif event == "kill":
                    worker.kill()
                elif isinstance(harness.replica.status, Ready) and not worker.busy:
                    worker.holding = True
                    worker.run(1, [], lambda chunk: None).addErrback(lambda _: None)
            self.assertIsInstance(harness.replica.status, STATUSES)
            self.assertLessEqual(len(harness.provider.alive), 1)
            self.assertEqual(
                harness.owner.ready, harness.provider.alive if isinstance(harness.replica.status, Ready) else []
            )
            self.assertTrue(harness.replica.healthy or not isinstance(harness.replica.status, Ready))
        self.successResultOf(harness.replica.stop(0.0))
        for waiter in pending:
            self.successResultOf(waiter)
        self.assertEqual(([], []), (harness.provider.alive, harness.clock.getDelayedCalls()))
