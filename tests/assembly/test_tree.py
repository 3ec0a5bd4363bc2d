# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.assembly.tree`."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.assembly.tree import Closing, Deadline, ServiceTree


class Child(Service):
    """A service that records its calls, and stops when it is told to."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.setName(name)
        self.calls = calls
        self.refuses: set[str] = set()
        self.stopped: Deferred[None] | None = None

    def record(self, call: str) -> None:
        self.calls.append(f"{call} {self.name}")
        if call in self.refuses:
            raise ZeroDivisionError(self.name)

    def privilegedStartService(self) -> None:
        self.record("prepare")

    def startService(self) -> None:
        super().startService()
        self.record("start")

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self.record("stop")
        return self.stopped


class HurriedChild(Child):
    """A child with a stop that can be shortened."""

    def hurry(self) -> None:
        self.record("hurry")


class TreeTests(SynchronousTestCase):
    """Tests for `ServiceTree` with three children; the stop of the second can be shortened."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        self.tree = ServiceTree()
        self.children = [Child("a", self.calls), HurriedChild("b", self.calls), Child("c", self.calls)]
        for child in self.children:
            child.setServiceParent(self.tree)

    def start(self) -> None:
        self.tree.privilegedStartService()
        self.tree.startService()
        self.calls.clear()

    def test_start(self) -> None:
        """All children are prepared in order, and then all are started in order."""
        self.tree.privilegedStartService()
        self.tree.startService()
        self.assertEqual(self.calls, ["prepare a", "prepare b", "prepare c", "start a", "start b", "start c"])
        self.assertTrue(self.tree.running)
        self.assertIs(self.tree.getServiceNamed("b"), self.children[1])

    def test_stop(self) -> None:
        """The children are stopped in the reverse order, each when the one before has stopped."""
        self.start()
        waits = [Deferred[None](), Deferred[None](), Deferred[None]()]
        for child, wait in zip(self.children, waits, strict=True):
            child.stopped = wait
        stopped = self.tree.stopService()
        self.assertFalse(self.tree.running)
        expected = ["stop c", "stop b", "stop a"]
        for number in range(3):
            self.assertEqual(self.calls, expected[: number + 1])
            self.assertNoResult(stopped)
            waits.pop().callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.calls, expected)

    def test_refused(self) -> None:
        """When a child cannot be prepared, those before it are stopped without waiting; the others are left alone."""
        self.children[2].refuses = {"prepare"}
        self.children[1].stopped = Deferred()
        self.assertRaises(ZeroDivisionError, self.tree.privilegedStartService)
        self.assertEqual(self.calls, ["prepare a", "prepare b", "prepare c", "stop b", "stop a"])
        self.assertFalse(self.tree.running)

    def test_refused_start(self) -> None:
        """When a child cannot be started, all that were prepared are stopped; a failure of that is logged."""
        self.children[1].refuses = {"start", "stop"}
        self.tree.privilegedStartService()
        self.calls.clear()
        self.assertRaises(ZeroDivisionError, self.tree.startService)
        self.assertEqual(self.calls, ["start a", "start b", "stop c", "stop b", "stop a"])
        self.assertFalse(self.tree.running)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failing_stop(self) -> None:
        """All children are stopped although some fail; the first failure is returned, and the second logged."""
        self.start()
        self.children[2].refuses = self.children[1].refuses = {"stop"}
        failure = self.failureResultOf(self.tree.stopService(), ZeroDivisionError)
        self.assertEqual(failure.getErrorMessage(), "c")
        self.assertEqual(self.calls, ["stop c", "stop b", "stop a"])
        [logged] = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(logged.getErrorMessage(), "b")

    def test_cancel(self) -> None:
        """Cancelling a stop stops the children that are left, without waiting for any."""
        self.start()
        for child in self.children:
            child.stopped = Deferred()
        stopped = self.tree.stopService()
        stopped.cancel()
        self.failureResultOf(stopped, CancelledError)
        self.assertEqual(self.calls, ["stop c", "stop b", "stop a"])

    def test_cancel_after_failure(self) -> None:
        """A failure before the stop is cancelled is returned, not lost."""
        self.start()
        self.children[2].refuses = {"stop"}
        self.children[1].stopped = Deferred()
        stopped = self.tree.stopService()
        stopped.cancel()
        self.failureResultOf(stopped, ZeroDivisionError)
        self.assertEqual(self.calls, ["stop c", "stop b", "stop a"])

    def test_hurry(self) -> None:
        """Only a child with a stop that can be shortened is told to hurry."""
        self.start()
        self.tree.hurry()
        self.assertEqual(self.calls, ["hurry b"])


class ClosingTests(SynchronousTestCase):
    """Tests for `Closing`."""

    def setUp(self) -> None:
        self.closed: Deferred[None] = Deferred()
        self.calls = 0
        self.service = Closing("resource", self.close)

    async def close(self) -> None:
        self.calls += 1
        await self.closed

    def test_close(self) -> None:
        """The stop closes the resource, and waits until it is closed; a second stop does nothing."""
        self.service.startService()
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        self.closed.callback(None)
        self.successResultOf(stopped)
        self.successResultOf(self.service.stopService())
        self.assertEqual((self.service.name, self.calls), ("resource", 1))

    def test_never_started(self) -> None:
        """A service that was never started closes nothing."""
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.calls, 0)


class DeadlineTests(SynchronousTestCase):
    """Tests for `Deadline`."""

    def test_left(self) -> None:
        """The time passes from the beginning on, and does not become negative."""
        clock = Clock()
        deadline = Deadline(clock, 5)
        clock.advance(3)
        self.assertEqual(deadline.left(), 5)
        deadline.begin()
        clock.advance(3)
        deadline.begin()
        self.assertEqual(deadline.left(), 2)
        clock.advance(3)
        self.assertEqual(deadline.left(), 0)
