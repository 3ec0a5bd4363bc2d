# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.pid_file`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import psutil
from hypothesis import given
from hypothesis.strategies import binary
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.pid_file import NAME, AlreadyRunningError, PidFile, is_server

# More than any pid on Linux.
NOBODY = 2**22 + 1


class Process:
    """A process, as psutil shows it."""

    def __init__(self, pid: int, *command: str, status: str = psutil.STATUS_SLEEPING) -> None:
        self.pid = pid
        self._command = list(command)
        self._status = status

    def cmdline(self) -> list[str]:
        return self._command

    def status(self) -> str:
        return self._status


def process(*command: str, pid: int = 7, status: str = psutil.STATUS_SLEEPING) -> psutil.Process:
    """Make a process."""
    return cast(psutil.Process, Process(pid, *command, status=status))


SERVER = ("/venv/bin/python3", "/venv/bin/twisted-serve", "--start")


class PidFileTests(SynchronousTestCase):
    """How a server is found."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / NAME
        self.processes: dict[int, psutil.Process] = {}
        self.pid_file = PidFile(self.directory, self.find)

    def find(self, pid: int) -> psutil.Process:
        """Find one of the processes of the test."""
        if pid not in self.processes:
            raise psutil.NoSuchProcess(pid)
        return self.processes[pid]

    def test_claim(self) -> None:
        """The file has the pid alone, and everybody may read it; nothing else is left in the directory."""
        self.pid_file.claim()
        self.assertEqual(self.path.read_bytes(), str(os.getpid()).encode())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)
        self.assertEqual(os.listdir(self.directory), [NAME])

    def test_claim_twice(self) -> None:
        """A server that claims again has it still."""
        self.pid_file.claim()
        self.processes[os.getpid()] = process(*SERVER, pid=os.getpid())
        self.pid_file.claim()
        self.assertEqual(self.path.read_text(), str(os.getpid()))

    def test_taken(self) -> None:
        """There is one server at a time: the other's claim stays."""
        self.path.write_text("7")
        self.processes[7] = process(*SERVER)
        self.assertRaises(AlreadyRunningError, self.pid_file.claim)
        self.assertEqual(self.path.read_text(), "7")
        self.assertEqual(os.listdir(self.directory), [NAME])

    def test_replaces(self) -> None:
        """What names no living server is replaced, be it garbage, a link, or another program's pid."""
        for content in ("", "x", "8", str(NOBODY)):
            self.path.write_text(content)
            self.processes[8] = process("/usr/bin/vim", "notes")
            self.pid_file.claim()
            self.assertEqual(self.path.read_text(), str(os.getpid()))

    def test_link(self) -> None:
        """A link in a directory that everybody can write to leads nowhere: it is neither read nor written through."""
        victim = self.directory / "victim"
        victim.write_text("7")
        self.processes[7] = process(*SERVER)
        self.path.symlink_to(victim.absolute())
        self.assertIsNone(self.pid_file.server())
        self.pid_file.claim()
        self.assertEqual(victim.read_text(), "7")
        self.assertFalse(self.path.is_symlink())

    def test_directory(self) -> None:
        """A directory in the file's place is none of a server."""
        self.path.mkdir()
        self.assertIsNone(self.pid_file.server())
        self.assertRaises(OSError, self.pid_file.claim)
        self.assertEqual(os.listdir(self.directory), [NAME])

    def test_fifo(self) -> None:
        """A pipe does not hold us up."""
        os.mkfifo(self.path)
        self.assertIsNone(self.pid_file.server())

    def test_not_writable(self) -> None:
        """A directory which is not there is an error."""
        self.assertRaises(OSError, PidFile(self.directory / "none").claim)

    def test_server(self) -> None:
        """The living server is found."""
        self.assertIsNone(self.pid_file.server())
        self.path.write_text("7\n")
        self.assertIsNone(self.pid_file.server())
        self.processes[7] = process(*SERVER)
        server = self.pid_file.server()
        self.assertEqual(server and server.pid, 7)

    def test_orphaned(self) -> None:
        """A file whose process is gone is an orphan; no file, and a living process, is not."""
        self.assertFalse(self.pid_file.orphaned())
        self.path.write_text(str(NOBODY))
        self.assertTrue(self.pid_file.orphaned())
        self.path.write_text(str(os.getpid()))
        self.assertFalse(self.pid_file.orphaned())

    def test_release(self) -> None:
        """A server removes its own file and no other's."""
        self.path.write_text("7")
        self.pid_file.release()
        self.assertTrue(self.path.exists())
        self.pid_file.claim()
        self.pid_file.release()
        self.assertEqual(os.listdir(self.directory), [])
        self.pid_file.release()

    def test_remove(self) -> None:
        """Removing what is not there is no error."""
        self.pid_file.remove()

    @given(binary(max_size=40))
    def test_any_content(self, content: bytes) -> None:
        """No content names a group of processes, or does anything but be read or not."""
        self.path.write_bytes(content)
        asked: list[int] = []

        def find(pid: int) -> psutil.Process:
            asked.append(pid)
            raise psutil.NoSuchProcess(pid)

        self.assertIsNone(PidFile(self.directory, find).server())
        self.assertTrue(all(pid > 0 for pid in asked))
        if asked:
            self.assertEqual(int(content), asked[0])


class IsServerTests(SynchronousTestCase):
    """Which processes are servers."""

    def test_servers(self) -> None:
        """Those which were started by the command, or by its module."""
        self.assertTrue(is_server(process(*SERVER)))
        self.assertTrue(is_server(process("python", "-m", "twisted_serve.cli", "--foreground")))
        self.assertTrue(is_server(process("/usr/bin/pypy3", "-X", "dev", "/x/twisted-serve")))

    def test_others(self) -> None:
        """Other programs are not, also if they are about a server; nor what has ended."""
        self.assertFalse(is_server(process("vim", "twisted-serve")))
        self.assertFalse(is_server(process("python", "x.py", "a", "b", "c", "d", "e", "twisted-serve")))
        self.assertFalse(is_server(process("python", "/x/not-twisted-serve")))
        self.assertFalse(is_server(process()))
        self.assertFalse(is_server(process(*SERVER, status=psutil.STATUS_ZOMBIE)))
