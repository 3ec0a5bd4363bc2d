# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.planes.management`: models that need something to be installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.planes.plane_case import PlaneTestCase
from twisted_serve.errors import Conflict, NotInstalled, ServiceUnavailable, WorkerFailed
from twisted_serve.testing.processes import ProcessReactor
from twisted_serve.workers.packages import Installer


class InstallationTests(PlaneTestCase):
    """Tests for models that need something to be installed."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = ProcessReactor()
        reactor: Any = self.reactor
        installer = Installer(reactor, self.work_dir, "python", {}, 60.0, self.threads)
        self.use_registrar(installer)
        self.patch(os, "killpg", lambda pid, number: None)
        self.archive("m.mar", requirementsFile="handler.py")

    def installed(self) -> list[Path]:
        return list((self.work_dir / "packages").glob("*"))

    def test_registered(self) -> None:
        """A version is registered when pip is done, with what was installed; unregistering removes it."""
        coming = self.register()
        self.assertNoResult(coming)
        self.assertEqual(list(self.catalogue), [])
        self.reactor.children[0].end()
        self.successResultOf(coming)
        self.assertEqual(self.catalogue.resolve("m", None).packages, self.installed()[0] / "packages")
        self.successResultOf(self.unregister())
        self.assertEqual((self.installed(), self.unpacked()), ([], []))

    def test_failed(self) -> None:
        """When pip fails, nothing is registered; the next attempt is as good as the first."""
        for _ in range(2):
            coming = self.register()
            self.reactor.children[-1].end(1)
            self.failureResultOf(coming, NotInstalled)
            self.assertEqual((list(self.catalogue), self.installed(), self.unpacked()), ([], [], []))

    def test_registered_already(self) -> None:
        """Nothing is installed for a version that is registered already."""
        coming = self.register()
        self.reactor.children[0].end()
        self.successResultOf(coming)
        self.failureResultOf(self.register(), Conflict)
        self.assertEqual((len(self.reactor.children), len(self.installed())), (1, 1))

    def test_two_at_once(self) -> None:
        """Of two that are installed at once, the later one is refused and leaves nothing."""
        both = [self.register(), self.register()]
        for child in self.reactor.children:
            child.end()
        self.successResultOf(both[0])
        self.failureResultOf(both[1], Conflict)
        self.assertEqual((len(self.installed()), len(self.unpacked())), (1, 1))

    def test_stopped(self) -> None:
        """A server that stops waits for no pip, and nothing is registered."""
        coming = self.register()
        self.catalogue.stopping = True
        self.successResultOf(Deferred.fromCoroutine(self.plane.retire_all(0.0)))
        self.failureResultOf(coming, ServiceUnavailable)
        self.reactor.children[0].end(None, 9)
        self.assertEqual((list(self.catalogue), self.installed(), self.unpacked()), ([], [], []))

    def test_failed_workers(self) -> None:
        """Workers that cannot start take with them what was installed for them."""
        self.provider.load_delay = None
        coming = self.register()
        self.reactor.children[0].end()
        self.provider.workers[0].kill()
        self.failureResultOf(coming, WorkerFailed)
        self.assertEqual((self.installed(), self.unpacked()), ([], []))
