# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.command.launching`: starting a server in the background, without a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, cast

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve import launcher
from twisted_serve.command.launching import passed_sockets


class Child:
    """A process that the launcher has started."""

    returncode: int | None = None
    terminated = False

    def wait(self) -> int:
        return 3

    def terminate(self) -> None:
        self.terminated = True


class LaunchTests(SynchronousTestCase):
    """Starting a server in the background."""

    def launch(self, said: bytes) -> tuple[int, str]:
        """Launch a server which says something and closes its descriptor; return the status and stderr."""

        def spawn(command: Sequence[str], pass_fds: Sequence[int], start_new_session: bool) -> Child:
            self.command = command
            self.assertTrue(start_new_session)
            self.assertEqual(pass_fds, (int(command[command.index("--ready-fd") + 1]),))
            os.write(pass_fds[0], said)
            return self.child

        self.child = Child()
        err = StringIO()
        with redirect_stderr(err):
            status = launcher.launch(["python", "server", "--model-store", "m"], cast(Any, spawn))
        return status, err.getvalue()

    def test_ready(self) -> None:
        """A server that is ready goes on, and the launcher ends."""
        self.assertEqual(self.launch(b"ready\n"), (0, ""))
        self.assertEqual(self.child.returncode, 0)

    def test_command(self) -> None:
        """The server is told where to report to."""
        self.launch(b"ready\n")
        self.assertEqual(self.command[:-1], ["python", "server", "--model-store", "m", "--ready-fd"])

    def test_failed(self) -> None:
        """A server that failed is told of with its own words."""
        self.assertEqual(self.launch(b"failed: no port\n"), (1, "no port\n"))

    def test_died(self) -> None:
        """So is one which could not say anything any more."""
        self.assertEqual(self.launch(b""), (1, "The server ended with status 3.\n"))

    def test_interrupted(self) -> None:
        """Whatever ends the launcher while the server loads ends the server as well; ``nohup`` is heeded."""
        before = signal.getsignal(signal.SIGALRM)
        kept: list[int] = []
        number = signal.SIGINT
        self.addCleanup(signal.signal, signal.SIGALRM, before)

        def spawn(_command: object, pass_fds: Sequence[int], start_new_session: bool) -> Child:
            kept.append(os.dup(pass_fds[0]))
            signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return self.child

        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            number, kept = each, []
            self.child = Child()
            self.assertEqual(launcher.launch([], cast(Any, spawn)), 130)
            self.assertTrue(self.child.terminated)
            os.close(kept[0])

    def test_nohup(self) -> None:
        """What the launcher was told to ignore it ignores."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))

        def spawn(_command: object, pass_fds: Sequence[int], start_new_session: bool) -> Child:
            signal.raise_signal(signal.SIGHUP)
            os.write(pass_fds[0], b"ready\n")
            return self.child

        self.child = Child()
        self.assertEqual(launcher.launch([], cast(Any, spawn)), 0)
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)

    def test_no_process(self) -> None:
        """Where no process can be started nothing stays open."""
        given: list[int] = []

        def spawn(_command: object, pass_fds: Sequence[int], start_new_session: bool) -> NoReturn:
            given.extend(pass_fds)
            raise OSError(11, "no more processes")

        self.assertRaises(OSError, launcher.launch, [], spawn)
        self.assertRaises(OSError, os.fstat, given[0])


class PassedSocketsTests(SynchronousTestCase):
    """The variables of systemd that Twisted takes away."""

    def passed(self, content: bytes) -> dict[str, str]:
        """Return what a process finds that was started with an environment."""
        with TemporaryDirectory() as directory:
            (Path(directory) / "environ").write_bytes(content)
            return passed_sockets(Path(directory) / "environ")

    def test_passed(self) -> None:
        """Those that are for this process are found, and no others."""
        ours, theirs = (f"LISTEN_PID={pid}\0".encode() for pid in (os.getpid(), os.getppid()))
        rest = b"A=\xff\0LISTEN_FDS=1\0LISTEN_FDNAMES=a=b\0"
        self.assertEqual(
            self.passed(ours + rest), {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a=b"}
        )
        for others in (theirs + rest, rest, b""):
            self.assertEqual(self.passed(others), {})
        self.assertEqual(passed_sockets(Path("/nowhere")), {})
