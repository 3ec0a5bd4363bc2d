# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.eventloop.threads`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.eventloop.threads import abandonable


class AbandonableTests(SynchronousTestCase):
    """Tests for `abandonable`."""

    def setUp(self) -> None:
        self.work: Deferred[str] = Deferred()
        self.undone: list[str] = []
        self.wait = abandonable(self.work, self.undone.append)

    def test_result(self) -> None:
        """Who waits gets what the work comes to, and nothing is undone."""
        self.work.callback("done")
        self.assertEqual(self.successResultOf(self.wait), "done")
        self.assertEqual(self.undone, [])

    def test_failure(self) -> None:
        """Who waits learns that the work failed."""
        self.work.errback(ValueError("no"))
        self.failureResultOf(self.wait, ValueError)

    def test_cancelled(self) -> None:
        """Cancelling ends the wait immediately; the later result of the work is undone."""
        self.wait.cancel()
        self.failureResultOf(self.wait, CancelledError)
        self.assertEqual(self.undone, [])
        self.work.callback("late")
        self.assertEqual(self.undone, ["late"])

    def test_cancelled_and_failed(self) -> None:
        """After a cancelled wait, failed work is not undone."""
        self.wait.cancel()
        self.failureResultOf(self.wait, CancelledError)
        self.work.errback(ValueError("late"))
        self.assertEqual(self.undone, [])

    def test_cannot_undo(self) -> None:
        """If undoing fails, the log says so."""
        work: Deferred[int] = Deferred()
        wait = abandonable(work, lambda result: 1 // result)
        wait.cancel()
        self.failureResultOf(wait, CancelledError)
        work.callback(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
