# SPDX-License-Identifier: Apache-2.0
"""Tests for the server's own template, from which all others are forked."""

from __future__ import annotations

import sys
from signal import SIGKILL

from attrs import evolve

from tests.workers.template.forking_case import SPEC, ForkingTestCase
from twisted_serve.errors import WorkerFailed
from twisted_serve.wire.control import (
    Exited,
    Forked,
)
from twisted_serve.workers.process.launch import module_command


class RootTemplateTests(ForkingTestCase):
    """The server's own template."""

    def test_command(self) -> None:
        """It is started once, in the server's interpreter, with one thread and nothing of any model."""
        first, second = self.start(), self.start(9001, evolve(SPEC))
        [root] = self.reactor.roots
        self.assertEqual(
            root.command, module_command(sys.executable, "twisted_serve.backend.template.root", "--fd", "3")
        )
        self.assertEqual((root.env["HOME"], root.env["OMP_NUM_THREADS"]), ("/h", "1"))
        self.assertNotIn("/models/m", root.env.get("PYTHONPATH", ""))
        self.assertIsNone(first.pid)
        self.assertNoResult(second.loaded)

    def test_prepared(self) -> None:
        """It can be started before there is a worker."""
        self.provider.prepare()
        self.assertEqual(1, len(self.reactor.roots))
        self.provider.prepare()
        self.root()
        self.start()
        self.assertEqual(1, len(self.reactor.roots))

    def test_cannot_start(self) -> None:
        """If it cannot start, workers start without it, with one line in the log; it is tried again after a while."""
        first = self.start()
        self.reactor.roots[0].die(SIGKILL, b"no torch today\n")
        self.assertEqual(1, len(self.reactor.spawned))
        second = self.start(9001)
        self.assertEqual(2, len(self.reactor.spawned))
        self.assertEqual(1, len(self.reactor.roots))
        self.loaded(self.reactor.frames[0])
        self.successResultOf(first.loaded)
        self.assertFalse(first.shares_weights)
        self.reactor.advance(60.0)
        self.failureResultOf(second.loaded, WorkerFailed)
        self.start(9002)
        self.assertEqual(2, len(self.reactor.roots))

    def test_too_slow(self) -> None:
        """A template that does not get ready is killed."""
        self.start()
        self.reactor.advance(60.0)
        [root] = self.reactor.roots
        self.assertEqual(["KILL"], root.signals)
        root.die(SIGKILL)
        self.assertEqual(1, len(self.reactor.spawned))

    def test_dies(self) -> None:
        """When it dies, so do its workers, as if killed; the next worker gets another one."""
        worker, root, _ = self.shared()
        alone = self.start(9001, evolve(SPEC, share_weights=False))
        [number] = root.forks()
        root.say(Forked(number, 102))
        self.assertEqual(102, alone.pid)
        root.die(SIGKILL)
        self.reactor.frames[-1].end()
        self.reactor.read_all()
        self.assertEqual("it was ended by SIGKILL", self.successResultOf(alone.lost))
        self.failureResultOf(alone.loaded, WorkerFailed)
        self.assertNoResult(worker.lost)
        self.start(9002, evolve(SPEC))
        self.assertEqual(2, len(self.reactor.roots))

    def test_stop(self) -> None:
        """It ends with the provider, and is killed if it does not exit."""
        worker, root, model = self.shared()
        stopped = self.provider.stop()
        self.reactor.advance(0)
        self.assertTrue(self.reactor.frames[0].closed)
        model.say(Exited(1, 0))
        self.reactor.read_all()
        self.successResultOf(worker.lost)
        self.reactor.advance(0)
        self.assertTrue(root.wire.closed)
        self.assertTrue(model.wire.closed)
        self.assertNoResult(stopped)
        self.reactor.advance(5.0)
        self.assertIn("KILL", root.signals)
        root.die(SIGKILL)
        self.successResultOf(stopped)
        self.assertEqual([], self.reactor.getDelayedCalls())
        self.assert_nothing_open()

    def test_stop_while_it_starts(self) -> None:
        """A provider can be stopped at any time."""
        worker = self.start()
        stopped = self.provider.stop()
        self.assertEqual("The worker was stopped before it had loaded.", self.failed(worker).message)
        self.reactor.roots[0].die()
        self.successResultOf(stopped)
        self.reactor.advance(0)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_nonsense(self) -> None:
        """A template that violates the protocol is killed."""
        self.start()
        root = self.root()
        root.forks()
        root.wire.protocol.dataReceived(b"\xff\xff\xff\xff")
        self.assertEqual(["KILL"], root.signals)

    def test_own_interpreter(self) -> None:
        """A model with its own interpreter is not forked from the server's."""
        self.start(spec=evolve(SPEC, python="/venv/bin/python"))
        self.assertEqual([], self.reactor.roots)
        self.assertEqual("/venv/bin/python", self.reactor.spawned[0][0])
