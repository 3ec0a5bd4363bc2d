# SPDX-License-Identifier: Apache-2.0
"""
Remove the files of servers that were killed, and no others.

A server locks what it works in (``flock``) for as long as it lives; the kernel ends the lock with the process, however
that ends. A pid would say less: it can be another process's by now, and that of another container means nothing here.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attrs import define

from twisted_serve.archives.publishing import new_file
from twisted_serve.archives.removal import remove_tree

PREFIX = "twisted_serve-"
LOCK = ".lock"

_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.part")

# How often a name is tried that another server removes before it is locked: that takes microseconds, and a start of it.
_ATTEMPTS = 100

_NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC


@define(eq=False)
class WorkDirectory:
    """
    A directory of a running server, below the temporary directory.

    :ivar path: The directory, mode 0700.
    """

    path: Path
    _lock: int

    @classmethod
    def make(cls, parent: Path) -> WorkDirectory:
        """
        Make a directory, and lock it.

        :raise OSError: if it cannot be written.
        """
        for _ in range(_ATTEMPTS):
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            try:
                lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
            except FileNotFoundError:
                continue
            if claimed(lock, path / LOCK):
                return cls(path, lock)
            os.close(lock)
        raise OSError(f"Other servers remove each directory that is made in {parent}.")

    def remove(self) -> None:
        """Remove the directory with all that is in it; it may be gone already."""
        remove_tree(self.path)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def claimed(descriptor: int, path: Path) -> bool:
    """
    Lock a file that was just made, and return whether it is still there: `remove_orphans` may have been faster.

    A file system without locks is no hindrance: nothing is removed from it, either.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def claimed_file(path: Path) -> int:
    """
    Make a file that no other server removes while the descriptor is open.

    :raise OSError: if it cannot be written.
    """
    for _ in range(_ATTEMPTS):
        with new_file(path) as file:
            descriptor = os.dup(file.fileno())
        if claimed(descriptor, path):
            return descriptor
        os.close(descriptor)
    raise OSError(f"Another server removes {path.name}.")


def remove_orphans(temporary: Path, stores: list[Path], stopping: Callable[[], bool]) -> list[str]:
    """
    Remove the work directories and the unfinished downloads of servers that are gone.

    Only what belongs to this user and has, or is, a file that can be locked is removed; no link is followed. A
    directory without a lock is of a version that made none, and stays.

    :param stores: Where downloads are.
    :param stopping: Ends the work, between one directory and the next.
    :return: What was removed.
    """
    removed = []
    for entry in _entries(temporary):
        if stopping():
            break
        if entry.startswith(PREFIX) and _remove_directory(temporary / entry):
            removed.append(str(temporary / entry))
    for store in stores:
        removed += [
            str(store / entry) for entry in _entries(store) if _PARTIAL.fullmatch(entry) and _dead(store / entry)
        ]
    return removed


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _remove_directory(path: Path) -> bool:
    """Remove a directory if its owner is gone; return whether it was."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW)
    except OSError:
        return False
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            return False
        lock = _locked(LOCK, directory)
    finally:
        os.close(directory)
    if lock is None:
        return False
    remove_tree(path)
    os.close(lock)
    return True


def _dead(partial: Path) -> bool:
    """Remove an unfinished download if its owner is gone; return whether it was."""
    lock = _locked(str(partial), None)
    if lock is None:
        return False
    with suppress(OSError):
        os.unlink(partial)
    os.close(lock)
    return True


def _locked(name: str, directory: int | None) -> int | None:
    """Lock a regular file of this user, and return its descriptor; None if another process has locked it."""
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_NONBLOCK | _NOFOLLOW, dir_fd=directory)
    except OSError:
        return None
    found = os.fstat(descriptor)
    try:
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
