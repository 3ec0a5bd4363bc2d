# SPDX-License-Identifier: Apache-2.0
"""
Remove the files of servers that were killed, and no others.

A running server holds a lock (``flock``) on its work directory and unfinished downloads; the kernel releases the lock
when the process ends, however it ends. A pid would be less reliable: it may have been reused, and the pid of another
container is meaningless here.
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

from twisted_serve.archives.atomic import new_file
from twisted_serve.archives.removal import remove_tree

PREFIX = "twisted_serve-"
LOCK = ".lock"

_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.part")

# Maximum attempts when another server removes a directory before it is locked: that window is microseconds wide, and
# only a server that is starting removes anything.
_MAX_ATTEMPTS = 100

_NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC


@define(eq=False)
class WorkDirectory:
    """
    A locked directory of a running server, below the temporary directory.

    :ivar path: The directory, mode 0700.
    """

    path: Path
    _lock: int

    @classmethod
    def make(cls, parent: Path) -> WorkDirectory:
        """
        Create and lock a directory.

        :raise OSError: if the parent directory is not writable.
        """
        for _ in range(_MAX_ATTEMPTS):
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            try:
                lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
            except FileNotFoundError:
                continue
            if lock_new_file(lock, path / LOCK):
                return cls(path, lock)
            os.close(lock)
        raise OSError(f"Other servers remove each directory that is made in {parent}.")

    def remove(self) -> None:
        """Remove the directory and its contents; it may already be gone."""
        remove_tree(self.path)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def lock_new_file(descriptor: int, path: Path) -> bool:
    """
    Lock a newly created file and return whether it still exists: another server's `remove_orphans` may have removed it.

    On a file system without locks the file counts as locked: nothing is removed from there, either.
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


def create_locked_file(path: Path) -> int:
    """
    Create a file that no other server removes while the returned descriptor is open.

    :raise OSError: if the file cannot be created.
    """
    for _ in range(_MAX_ATTEMPTS):
        with new_file(path) as file:
            descriptor = os.dup(file.fileno())
        if lock_new_file(descriptor, path):
            return descriptor
        os.close(descriptor)
    raise OSError(f"Another server removes {path.name}.")


def remove_orphans(temporary: Path, stores: list[Path], stopping: Callable[[], bool]) -> list[str]:
    """
    Remove the work directories and unfinished downloads of servers that have ended.

    Only directories and files of this user that have, or are, a lockable file are removed; links are not followed. A
    directory without a lock file comes from an older version and is kept.

    :param stores: The directories that contain downloads.
    :param stopping: Checked between directories; stop early when it returns true.
    :return: The paths removed.
    """
    removed = []
    for entry in _entries(temporary):
        if stopping():
            break
        if entry.startswith(PREFIX) and _remove_directory(temporary / entry):
            removed.append(str(temporary / entry))
    for store in stores:
        removed += [
            str(store / entry)
            for entry in _entries(store)
            if _PARTIAL.fullmatch(entry) and _remove_partial(store / entry)
        ]
    return removed


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _remove_directory(path: Path) -> bool:
    """Remove a directory if its server has ended; return whether it was removed."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW)
    except OSError:
        return False
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            return False
        lock = _try_lock(LOCK, directory)
    finally:
        os.close(directory)
    if lock is None:
        return False
    remove_tree(path)
    os.close(lock)
    return True


def _remove_partial(partial: Path) -> bool:
    """Remove an unfinished download if its server has ended; return whether it was removed."""
    lock = _try_lock(str(partial), None)
    if lock is None:
        return False
    with suppress(OSError):
        os.unlink(partial)
    os.close(lock)
    return True


def _try_lock(name: str, directory: int | None) -> int | None:
    """Lock a regular file of this user and return its descriptor, or None if another process holds the lock."""
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
