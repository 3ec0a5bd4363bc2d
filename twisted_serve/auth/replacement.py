# SPDX-License-Identifier: Apache-2.0
"""
Lock the replacement of a file against other servers.

The lock is a file beside the one that is replaced, because the latter may not exist yet, may be a link or a pipe, and
gets a new inode each time.  Locking the directory would work on a local disk, but then any process that can read the
directory could hold the lock, and a directory on NFS cannot be locked exclusively.

The lock file exists only while a replacement runs, for as long as a rename takes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EAGAIN
from pathlib import Path

_OWNER_ONLY = 0o600

# Attempts to take a lock that another server holds, and the seconds between them.
_ATTEMPTS = 500
_PAUSE = 0.01


@contextmanager
def replacing(path: Path, attempts: int = _ATTEMPTS) -> Iterator[None]:
    """
    Hold the exclusive right to replace ``path`` among the servers of this machine.

    :raise OSError: naming the lock file, when the lock cannot be taken.
    """
    lock = path.with_name(f".{path.name}.lock")
    for attempt in range(attempts):
        if attempt:
            time.sleep(_PAUSE)
        descriptor = _acquire(lock)
        if descriptor is not None:
            break
    else:
        raise OSError(EAGAIN, f"another process holds {lock.name}", str(lock))
    try:
        yield
    finally:
        # Unlinked while locked, so that a server that has already opened the file recognizes it as removed.
        with suppress(OSError):
            os.unlink(lock)
        os.close(descriptor)


def _acquire(lock: Path) -> int | None:
    """
    Open and lock the lock file, or return ``None`` if another process holds it or has just removed it.

    :raise OSError: when the lock file cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(lock, flags, _OWNER_ONLY)
    except PermissionError:
        # If the file exists, a server of another user holds it; otherwise the directory is not writable.
        if os.path.lexists(lock):
            return None
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.lstat(lock)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        # The file system supports no locks, so no other server holds this one.
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(lock)
        raise
    os.close(descriptor)
    return None
