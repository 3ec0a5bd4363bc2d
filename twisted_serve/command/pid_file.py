# SPDX-License-Identifier: Apache-2.0
"""
Record the running server in a file, so that ``--stop`` finds it and no second one starts.

Path and content are TorchServe's: a bare pid (``docs/torchserve/config_cli.md`` §1.3), which scripts read as a number.
The number alone proves nothing: the process may have exited and its pid may have been reused.  So the server
holds a record lock (``fcntl``) on the file for as long as it lives, and the kernel reports the process that holds it
(``F_GETLK``); the name and the command line of that process do not matter.

The directory is world-writable: no symbolic link is followed, a file of another user is not read, and a process is
accepted only if it belongs to the owner of the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from twisted_serve.command.launching import TORCHSERVE_WORD

NAME = ".model_server.pid"

# ``struct flock`` of Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi4x"

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# More attempts than there can be commands that remove a stale file simultaneously.
_ATTEMPTS = 100
_PAUSE = 0.01

#: Returns the pid of the other process that has locked an open file, or ``None``.
Holder = Callable[[int], int | None]


class AlreadyRunningError(Exception):
    """Another server is running."""


class FindProcess(Protocol):
    """Find a process, as :class:`psutil.Process` does."""

    def __call__(self, pid: int) -> psutil.Process:
        """:raise psutil.Error: when there is no such process, or it is not visible."""


class PidFile:
    """
    The file that names the server of this temporary directory.

    :ivar path: The path of the file.
    :param holder: Returns the pid of the other process that has locked an open file, as :func:`lock_holder` does.
    """

    def __init__(self, directory: Path, find: FindProcess = psutil.Process, holder: Holder | None = None) -> None:
        self.path = directory / NAME
        self._find = find
        self._holder = lock_holder if holder is None else holder
        # Open while this process is the server. Closing any other descriptor of the file would also drop the lock.
        self._held: int | None = None

    def server(self) -> psutil.Process | None:
        """Return the running server that the file names: the process that has locked the file."""
        descriptor = self._open_ours(os.O_RDONLY)
        if descriptor is None:
            return None
        try:
            pid = _read_pid(descriptor)
            # First the process, then the lock: psutil notices if the pid is reused in between.
            process = None if pid is None else self._find(pid)
            if process is None or self._holder(descriptor) != pid:
                return None
            return process if process.uids().real == os.fstat(descriptor).st_uid else None
        except psutil.Error:
            return None
        finally:
            os.close(descriptor)

    def torchserve(self) -> int | None:
        """Return the pid of a running TorchServe, the one in Java, that the file names; TorchServe takes no lock."""
        descriptor = self._open_ours(os.O_RDONLY)
        if descriptor is None:
            return None
        try:
            pid = _read_pid(descriptor)
            if pid is None or self._holder(descriptor) is not None:
                return None
            return pid if TORCHSERVE_WORD in self._find(pid).cmdline() else None
        except psutil.Error:
            return None
        finally:
            os.close(descriptor)

    def remove_orphan(self) -> bool:
        """Remove the file if it names a process that has exited; return whether the file was removed."""
        descriptor = self._open_ours(os.O_RDWR)
        if descriptor is None:
            return False
        try:
            pid = _read_pid(descriptor)
            if pid is None or psutil.pid_exists(pid) or not self._lock(descriptor):
                return False
            self.path.unlink(missing_ok=True)
            return True
        finally:
            os.close(descriptor)

    def claim(self, sleep: Callable[[float], object] = time.sleep) -> None:
        """
        Name this process in the file, until the process exits or releases the file.

        :raise AlreadyRunningError: when the file names another running server.
        :raise OSError: when the file cannot be written, or names a running TorchServe.
        """
        if self._held is not None:
            return
        for _ in range(_ATTEMPTS):
            descriptor = self._open_for_claim()
            if descriptor is None:
                continue
            try:
                holder = self._holder(descriptor)
                if holder is not None and holder == _read_pid(descriptor):
                    raise AlreadyRunningError
                if holder is None and self._lock(descriptor):
                    self._write(descriptor)
                    self._held = descriptor
                    return
            finally:
                if self._held is None:
                    os.close(descriptor)
            # Another command is removing the file, or is about to claim it.
            sleep(_PAUSE)
        raise OSError(errno.EAGAIN, "is locked by a process that cannot be seen from here; set TMPDIR", str(self.path))

    def release(self) -> None:
        """Remove the file if this process has claimed it; do nothing otherwise."""
        if self._held is None:
            return
        descriptor, self._held = self._held, None
        if self._is_current(descriptor):
            self.path.unlink(missing_ok=True)
        os.close(descriptor)

    def _open_for_claim(self) -> int | None:
        """
        Open or create the file; return ``None`` to retry, after a foreign object in its place was removed.

        :raise OSError: when the file belongs to another user, or cannot be opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            return self._create()
        except OSError as e:
            if e.errno not in (errno.ELOOP, errno.EACCES, errno.ENXIO):
                raise
            self._evict()
            return None
        status = os.fstat(descriptor)
        # With a second hard link, this could be any of our other files.
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and status.st_uid == os.geteuid():
            return descriptor
        try:
            self._evict()
        finally:
            os.close(descriptor)
        return None

    def _create(self) -> int | None:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644)
        except FileExistsError:
            return None
        # Regardless of the umask: other users may read the pid.
        os.fchmod(descriptor, 0o644)
        return descriptor

    def _evict(self) -> None:
        """
        Remove an object at our path that is not a pid file of this user.

        :raise PermissionError: when we may not remove another user's file, or it names a server of that user.
        """
        if self._is_locked():
            raise _foreign(self.path)
        try:
            self.path.unlink(missing_ok=True)
        except PermissionError as e:
            raise _foreign(self.path) from e

    def _is_locked(self) -> bool:
        with suppress(OSError):
            descriptor = os.open(self.path, os.O_RDONLY | _FLAGS)
            try:
                return stat.S_ISREG(os.fstat(descriptor).st_mode) and self._holder(descriptor) is not None
            finally:
                os.close(descriptor)
        return False

    def _open_ours(self, mode: int) -> int | None:
        """
        Open the file; return ``None`` if it is missing or does not belong to this user.

        Root opens the files of all users, to stop their servers, too.
        """
        try:
            descriptor = os.open(self.path, mode | _FLAGS)
        except OSError:
            return None
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and (status.st_uid == os.geteuid() or os.geteuid() == 0):
            return descriptor
        os.close(descriptor)
        return None

    def _lock(self, descriptor: int) -> bool:
        """Lock the file without waiting; return whether it is locked and still the one at our path."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise OSError(e.errno, f"cannot be locked: {e.strerror}", str(self.path)) from e
        return self._is_current(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """Return whether an open file is the one at our path."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path))
        return False

    def _write(self, descriptor: int) -> None:
        """
        Write our pid.

        :raise OSError: when the file cannot be written, or names a running TorchServe.
        """
        before = _read_pid(descriptor)
        with suppress(psutil.Error):
            if before is not None and TORCHSERVE_WORD in self._find(before).cmdline():
                raise OSError(
                    errno.EBUSY,
                    f"names TorchServe, which runs as process {before}; stop it, or set TMPDIR for one of both",
                    str(self.path),
                )
        ours = str(os.getpid()).encode()
        # In this order, no reader ever sees an empty file in place of a pid.
        os.pwrite(descriptor, ours, 0)
        os.ftruncate(descriptor, len(ours))


def _foreign(path: Path) -> OSError:
    return PermissionError(errno.EACCES, "is another user's; set TMPDIR to a directory of your own", str(path))


def _read_pid(descriptor: int) -> int | None:
    """Return the pid in an open file; ``None`` for any other content."""
    content = os.pread(descriptor, 32, 0).strip()
    # Pids of Linux have at most seven digits; 0 and negative numbers denote process groups.
    return int(content) if content.isdigit() and len(content) < 9 and int(content) > 0 else None


def lock_holder(descriptor: int) -> int | None:
    """
    Return the pid of the other process that has locked an open file for writing; ``None`` if there is none.

    The pid is 0 for a process of another container.
    """
    # The query is for a read lock: another user, with read access only, could not hold a lock that conflicts with it.
    asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    kind, _whence, _start, _length, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid
