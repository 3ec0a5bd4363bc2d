# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.template.loop`: a template in a process of its own, asked over its socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

import twisted_serve
from tests.integration.process_socket import ProcessSocket, WorkerSocket
from twisted_serve.wire.control import (
    Exited,
    Fork,
    Forked,
    Signal,
    TemplateReady,
    server_control_reader,
)
from twisted_serve.wire.messages import Loaded

pytestmark = pytest.mark.integration

ROOT = Path(twisted_serve.__file__).parents[1]

HANDLER = """
import os

def handle(data, context):
    if data is not None:
        return [repr(eval(bytes(data[0]["body"])))]
"""


class Born(WorkerSocket):
    """A forked worker, by its socket."""

    def evaluate(self, code: str) -> object:
        """Have its handler evaluate something."""
        return eval(self.answer(code))


class TemplateProcessTests(SynchronousTestCase):
    """What only a real template shows."""

    def setUp(self) -> None:
        """Start one."""
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "h.py").write_text(HANDLER)
        control, theirs = socket.socketpair()
        self.template = ProcessSocket(control, server_control_reader())
        self.addCleanup(self.template.close)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "twisted_serve.backend.template.root", "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        self.assertEqual(TemplateReady(), self.template.hear())

    def fork(self, number: int) -> tuple[Born, int]:
        """Have a worker forked that has loaded; give it and its process id."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        nothing = os.open(os.devnull, os.O_WRONLY)
        environment = {"PATH": os.environ["PATH"], "MARK": str(number)}
        self.template.say(Fork(number, f"ts-{number}", environment), theirs.fileno(), nothing, nothing)
        forked = self.template.hear()
        assert isinstance(forked, Forked)
        self.assertEqual(number, forked.number)
        theirs.close()
        os.close(nothing)
        born = Born(ours)
        born.load(self.dir)
        self.assertEqual(Loaded(), born.hear())
        return born, forked.pid

    def test_born(self) -> None:
        """A fork is a worker with an environment of its own, in its model's directory, with nothing of its siblings."""
        first, pid = self.fork(1)
        second, other = self.fork(2)
        self.assertEqual(pid, first.evaluate("os.getpid()"))
        self.assertEqual(self.process.pid, first.evaluate("os.getppid()"))
        self.assertNotEqual(pid, other)
        self.assertEqual({"PATH", "MARK"}, set(first.evaluate("sorted(os.environ)")))  # type: ignore[call-overload]
        self.assertEqual("2", second.evaluate("os.environ['MARK']"))
        self.assertEqual(str(self.dir), second.evaluate("os.getcwd()"))
        self.assertEqual("ts-2", Path(f"/proc/{other}/comm").read_text().strip())
        for born in (first, second):
            links = born.evaluate(
                "[os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd')"
                " if os.path.exists('/proc/self/fd/' + n)]"
            )
            assert isinstance(links, list)
            self.assertEqual(1, sum(link.startswith("socket:") for link in links))
            self.assertEqual(0, sum("pidfd" in link for link in links))

    def test_ends(self) -> None:
        """Each end is reaped and told, with its status; a signal for one that is gone reaches nobody."""
        first, pid = self.fork(1)
        first.close()
        self.assertEqual(Exited(1, 0), self.template.hear())
        self.assertFalse(Path(f"/proc/{pid}").exists())
        self.fork(2)
        self.template.say(Signal(1, signal.SIGKILL))
        self.template.say(Signal(2, signal.SIGKILL))
        self.assertEqual(Exited(2, signal.SIGKILL), self.template.hear())

    def test_server_goes(self) -> None:
        """A template whose server is gone ends, with everything that it forked."""
        _, pid = self.fork(1)
        self.template.close()
        self.assertEqual(0, self.process.wait(60))
        self.assertFalse(Path(f"/proc/{pid}").exists())

    def test_killed(self) -> None:
        """Workers die with their template."""
        born, _ = self.fork(1)
        self.process.kill()
        self.assertIsNone(born.hear())
