# SPDX-License-Identifier: Apache-2.0
"""
Find the servers of a temporary directory that no pid file names: those inside ``twistd`` or another program.

Each server holds a lock on its work directory as long as it lives (`twisted_serve.archives.orphans`), and the kernel
lists locks with the processes that hold them.  A server with another temporary directory is not found.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from twisted_serve.archives.orphans import LOCK, PREFIX
from twisted_serve.logs.characters import printable

#: The kernel's list of locks on files.
LOCKS = Path("/proc/locks")

_NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC


def other_servers(temporary: Path, locks: Path = LOCKS) -> list[psutil.Process]:
    """
    Return the processes with a server, in the order of their pids; root sees the servers of all users.

    :param locks: The list of locks, in the format of :manpage:`proc_locks(5)`.
    """
    held = set(_lock_files(temporary))
    found = {}
    for pid, file in _flocks(locks):
        with suppress(psutil.Error):
            # Another user's process may have locked that user's directory, and then both are not ours.
            if file in held and os.geteuid() in (0, psutil.Process(pid).uids().effective):
                found[pid] = psutil.Process(pid)
    return [found[pid] for pid in sorted(found)]


def described(process: psutil.Process) -> str:
    """Return a process in words: its pid and its program; its arguments, which may be secret, are not told."""
    with suppress(psutil.Error):
        words = [Path(word).name for word in process.cmdline()[:4]]
        program = next((word for word in words if word in ("twistd", "twist")), None) or process.name()
        return f"process {process.pid} ({printable(program)})"
    return f"process {process.pid}"


def _lock_files(temporary: Path) -> Iterator[tuple[int, int, int]]:
    """Yield major and minor number of the device, and number of the inode, of each lock file of ours."""
    with suppress(OSError):
        for entry in os.listdir(temporary):
            if not entry.startswith(PREFIX):
                continue
            with suppress(OSError):
                directory = os.open(temporary / entry, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW)
                try:
                    found = os.stat(LOCK, dir_fd=directory, follow_symlinks=False)
                finally:
                    os.close(directory)
                if stat.S_ISREG(found.st_mode) and os.geteuid() in (0, found.st_uid):
                    yield os.major(found.st_dev), os.minor(found.st_dev), found.st_ino


def _flocks(locks: Path) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Yield the pid and the file of each whole-file lock; the pid of a process in another container is not positive."""
    with suppress(OSError):
        for line in locks.read_text().splitlines():
            # "1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF"; waiting for a lock: "1: -> FLOCK ..."
            match line.split():
                case [_, "FLOCK", _, _, pid, file, *_] if int(pid) > 0:
                    major, minor, inode = file.split(":")
                    yield int(pid), (int(major, 16), int(minor, 16), int(inode))
