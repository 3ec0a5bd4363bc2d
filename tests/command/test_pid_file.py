# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.command.pid_file`.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import psutil
from hypothesis import given
from hypothesis.strategies import binary
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.command.pid_file import NAME, AlreadyRunningError, PidFile

# More than any pid on Linux.
NOBODY = 2**22 + 1


class Process:
    """A process, as psutil shows it: of one user, with a command line."""

    def __init__(self, pid: int, *command: str, user: int | None = None) -> None:
        self.pid = pid
        self._command = list(command)
        self._user = os.getuid() if user is None else user

    def cmdline(self) -> list[str]:
        return self._command

    def uids(self) -> Any:
        return SimpleNamespace(real=self._user)


def process(*command: str, pid: int = 7, user: int | None = None) -> psutil.Process:
    """Make a process."""
    return cast(psutil.Process, Process(pid, *command, user=user))


# What a server is called does not matter.
SERVER = ("./torchserve", "--foreground")

TORCHSERVE = ("/usr/bin/java", "-cp", "x", "org.pytorch.serve.ModelServer", "--python", "/usr/bin/python3")


class PidFileTests(SynchronousTestCase):
    """How a server is found."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / NAME
        self.processes: dict[int, psutil.Process] = {}
        self.locked_by: int | None = None
        self.pid_file = PidFile(self.directory, self.find, lambda descriptor: self.locked_by)

    def find(self, pid: int) -> psutil.Process:
        """Find one of the processes of the test."""
        if pid not in self.processes:
            raise psutil.NoSuchProcess(pid)
        return self.processes[pid]

    def serving(self, pid: int = 7) -> None:
        """Have a server live that has locked the file and named itself in it."""
        self.path.write_text(str(pid))
        self.processes[pid] = process(*SERVER, pid=pid)
        self.locked_by = pid

    def claim(self) -> None:
        """Claim the file without waiting."""
        self.pid_file.claim(lambda _seconds: None)

    def test_claim(self) -> None:
        """The file has the pid alone, and everybody may read it; nothing else is left in the directory."""
        self.addCleanup(os.umask, os.umask(0o077))
        self.pid_file.claim()
        self.assertEqual(self.path.read_bytes(), str(os.getpid()).encode())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)
        self.assertEqual(os.listdir(self.directory), [NAME])

    def test_claim_twice(self) -> None:
        """A server that claims again has it still."""
        self.pid_file.claim()
        self.pid_file.claim()
        self.assertEqual(self.path.read_text(), str(os.getpid()))

    def test_taken(self) -> None:
        """There is one server at a time: the other's claim stays, whatever the other is called."""
        self.serving()
        self.assertRaises(AlreadyRunningError, self.claim)
        self.assertEqual(self.path.read_text(), "7")
        self.assertEqual(os.listdir(self.directory), [NAME])

    def test_locked_for_a_moment(self) -> None:
        """A command that removes a stale file, or is about to name itself, is waited for."""
        self.path.write_text("8")
        self.locked_by = 9
        slept = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                self.locked_by = None

        self.pid_file.claim(sleep)
        self.assertEqual(self.path.read_text(), str(os.getpid()))
        self.assertEqual(len(slept), 3)

    def test_locked_for_good(self) -> None:
        """A process of another container, which has no pid here, is not displaced."""
        self.path.write_text("8")
        self.locked_by = 0
        self.assertIn("TMPDIR", str(self.assertRaises(OSError, self.claim)))
        self.assertEqual(self.path.read_text(), "8")

    def test_replaces(self) -> None:
        """What nothing has locked is replaced, be it garbage, or a pid that belongs to another program now."""
        self.processes[8] = process("/usr/bin/vim", "notes", pid=8)
        for content in ("", "x", "8", str(NOBODY), "1234567890" * 9):
            self.path.write_text(content)
            self.claim()
            self.assertEqual(self.path.read_text(), str(os.getpid()))
            self.pid_file.release()

    def test_torchserve(self) -> None:
        """The file of a TorchServe that runs, which locks nothing, stays, and the error names its process."""
        self.path.write_text("7")
        self.processes[7] = process(*TORCHSERVE)
        self.assertEqual(self.pid_file.torchserve(), 7)
        error = self.assertRaises(OSError, self.claim)
        self.assertIn("TorchServe, which runs as process 7", str(error))
        self.assertEqual(self.path.read_text(), "7")
        self.assertIsNone(self.pid_file.server())

    def test_no_torchserve(self) -> None:
        """A server of ours that has TorchServe's word is none, nor is another program, nor one that is gone."""
        self.assertIsNone(self.pid_file.torchserve())
        self.serving()
        self.processes[7] = process(*TORCHSERVE)
        self.assertIsNone(self.pid_file.torchserve())
        self.locked_by = None
        self.processes[7] = process("vim", "org.pytorch.serve.ModelServer.java")
        self.assertIsNone(self.pid_file.torchserve())
        del self.processes[7]
        self.assertIsNone(self.pid_file.torchserve())

    def test_link(self) -> None:
        """A link in a directory that everybody can write to leads nowhere: it is neither read nor written through."""
        for make in (Path.symlink_to, Path.hardlink_to):
            victim = self.directory / "victim"
            victim.write_text("8")
            make(self.path, victim)
            self.assertIsNone(self.pid_file.server())
            self.assertFalse(self.path.is_symlink() and self.pid_file.remove_orphan())
            self.claim()
            self.assertEqual(victim.read_text(), "8")
            self.assertEqual(self.path.read_text(), str(os.getpid()))
            self.pid_file.release()
            victim.unlink()

    def test_directory(self) -> None:
        """A directory in the file's place is none of a server."""
        self.path.mkdir()
        self.assertIsNone(self.pid_file.server())
        self.assertRaises(OSError, self.claim)
        self.assertEqual(os.listdir(self.directory), [NAME])

    def test_fifo(self) -> None:
        """A pipe or a socket does not hold us up, and is replaced."""
        os.mkfifo(self.path)
        self.assertIsNone(self.pid_file.server())
        self.claim()
        self.pid_file.release()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self.path))
        self.claim()
        self.assertEqual(self.path.read_text(), str(os.getpid()))

    def test_not_writable(self) -> None:
        """A directory which is not there is an error."""
        self.assertRaises(OSError, PidFile(self.directory / "none").claim)

    def test_server(self) -> None:
        """The living server is found by its lock."""
        self.assertIsNone(self.pid_file.server())
        self.serving()
        self.path.write_text("7\n")
        server = self.pid_file.server()
        self.assertEqual(server and server.pid, 7)

    def test_pid_of_another_process(self) -> None:
        """A pid is not believed without the lock, nor if another process holds it: no stranger is ever stopped."""
        self.serving()
        for holder in (None, 0, 9):
            self.locked_by = holder
            self.assertIsNone(self.pid_file.server())

    def test_process_of_another_user(self) -> None:
        """A process is believed only if it is the file's owner's: root stops nothing that a user puts in a file."""
        self.serving()
        self.processes[7] = process(*SERVER, user=os.getuid() + 1)
        self.assertIsNone(self.pid_file.server())

    def test_file_of_another_user(self) -> None:
        """A file of another user is not read, even if all in it fits, and one that is locked is not displaced."""
        self.serving()
        self.patch(os, "geteuid", lambda: os.getuid() + 1)
        self.assertIsNone(self.pid_file.server())
        self.assertIsNone(self.pid_file.torchserve())
        self.assertFalse(self.pid_file.remove_orphan())
        error = self.assertRaises(PermissionError, self.claim)
        self.assertIn("another user's; set TMPDIR", str(error))
        self.assertEqual(self.path.read_text(), "7")

    def test_remove_orphan(self) -> None:
        """A file whose process is gone is removed; no file, a living process, and a locked file are not."""
        self.assertFalse(self.pid_file.remove_orphan())
        self.path.write_text(str(os.getpid()))
        self.assertFalse(self.pid_file.remove_orphan())
        self.path.write_text("x")
        self.assertFalse(self.pid_file.remove_orphan())
        self.assertTrue(self.path.exists())
        self.path.write_text(str(NOBODY))
        self.assertTrue(self.pid_file.remove_orphan())
        self.assertFalse(self.path.exists())

    def test_release(self) -> None:
        """A server removes its own file and no other's."""
        self.path.write_text("7")
        self.pid_file.release()
        self.assertTrue(self.path.exists())
        self.claim()
        self.pid_file.release()
        self.assertEqual(os.listdir(self.directory), [])
        self.pid_file.release()

    def test_release_what_was_replaced(self) -> None:
        """A file that has been put in the place of ours stays."""
        self.claim()
        self.path.unlink()
        self.path.write_text("7")
        self.pid_file.release()
        self.assertEqual(self.path.read_text(), "7")

    @given(binary(max_size=40))
    def test_any_content(self, content: bytes) -> None:
        """No content names a group of processes, or does anything but be read or not."""
        self.path.write_bytes(content)
        asked: list[int] = []

        def find(pid: int) -> psutil.Process:
            asked.append(pid)
            raise psutil.NoSuchProcess(pid)

        self.assertIsNone(PidFile(self.directory, find, lambda descriptor: 7).server())
        self.assertTrue(all(pid > 0 for pid in asked))
        if asked:
            self.assertEqual(int(content), asked[0])
