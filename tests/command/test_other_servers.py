# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.command.other_servers`.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import cast

import psutil
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.orphans import LOCK, WorkDirectory
from twisted_serve.command.other_servers import described, other_servers


class OtherServersTests(SynchronousTestCase):
    """The servers of a temporary directory; this process has one in it."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.temp = Path(directory.name)

    def found(self, locks: str | None = None) -> list[int]:
        """Return the pids that are found, in the kernel's list of locks or in another one."""
        if locks is None:
            return [process.pid for process in other_servers(self.temp)]
        (self.temp / "locks").write_text(locks)
        return [process.pid for process in other_servers(self.temp, self.temp / "locks")]

    def work_directory(self) -> WorkDirectory:
        """Make the work directory of a server in this process."""
        work = WorkDirectory.make(self.temp)
        self.addCleanup(work.remove)
        return work

    def test_none(self) -> None:
        """There is none where there is no work directory, or no list of locks."""
        self.assertEqual(self.found(), [])
        self.assertEqual(other_servers(self.temp / "nowhere"), [])
        self.work_directory()
        self.assertEqual(other_servers(self.temp, self.temp / "nowhere"), [])

    def test_running(self) -> None:
        """A process is found once while it has a server, or two."""
        first, second = self.work_directory(), self.work_directory()
        self.assertEqual(self.found(), [os.getpid()])
        first.remove()
        self.assertEqual(self.found(), [os.getpid()])
        second.remove()
        self.assertEqual(self.found(), [])

    def test_killed(self) -> None:
        """What a killed server has left names no process."""
        left = self.temp / "twisted_serve-left"
        left.mkdir()
        (left / LOCK).touch()
        self.assertEqual(self.found(), [])

    def test_planted(self) -> None:
        """Links, directories and FIFOs in the place of a work directory or its lock are not followed or opened."""
        elsewhere = self.temp / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / LOCK).touch()
        self.addCleanup(os.close, descriptor := os.open(elsewhere / LOCK, os.O_RDWR))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (self.temp / "twisted_serve-link").symlink_to(elsewhere)
        for name in ("inner", "fifo"):
            (self.temp / f"twisted_serve-{name}").mkdir()
        (self.temp / "twisted_serve-inner" / LOCK).symlink_to(elsewhere / LOCK)
        os.mkfifo(self.temp / "twisted_serve-fifo" / LOCK)
        self.assertEqual(self.found(), [])

    def test_lines(self) -> None:
        """Only a held lock on the whole file counts, of a process that can be seen from here."""
        status = os.stat(self.work_directory().path / LOCK)
        file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        pid = os.getpid()
        self.assertEqual(self.found(f"1: FLOCK  ADVISORY  WRITE {pid} {file} 0 EOF\n"), [pid])
        self.assertEqual(self.found(f"1: -> FLOCK  ADVISORY  WRITE {pid} {file} 0 EOF\n"), [])
        self.assertEqual(self.found(f"1: POSIX  ADVISORY  WRITE {pid} {file} 0 EOF\n"), [])
        self.assertEqual(
            self.found(f"1: FLOCK  ADVISORY  WRITE 0 {file} 0 EOF\n2: FLOCK  ADVISORY  WRITE -1 {file}\n"), []
        )
        self.assertEqual(self.found(f"1: FLOCK  ADVISORY  WRITE {pid} 00:00:{status.st_ino} 0 EOF\n"), [])
        self.assertEqual(self.found(f"1: FLOCK  ADVISORY  WRITE {2**22 + 1} {file} 0 EOF\n"), [])


class DescribedTests(SynchronousTestCase):
    """A process in words."""

    def words(self, *cmdline: str) -> str:
        """Describe a process with a command line."""

        class Process:
            pid = 4711

            def cmdline(self) -> list[str]:
                if not cmdline:
                    raise psutil.NoSuchProcess(4711)
                return list(cmdline)

            def name(self) -> str:
                return "app\x1b"

        return described(cast(psutil.Process, Process()))

    def test_words(self) -> None:
        """It is named by its program; its arguments, which may be secret, are not told."""
        self.assertEqual(self.words("/bin/python", "/bin/twistd", "-n", "secret"), "process 4711 (twistd)")
        self.assertEqual(self.words("/bin/twist", "twisted-serve"), "process 4711 (twist)")
        self.assertEqual(self.words("/bin/python", "app.py", "secret"), r"process 4711 (app\x1b)")
        self.assertEqual(self.words(), "process 4711")
