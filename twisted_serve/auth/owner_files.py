# SPDX-License-Identifier: Apache-2.0
"""
Write files with secrets, which only their owner can read, and read such files.

A file is written beside the one that it replaces: readable only by its owner from the first byte, on the disk before
it takes the name, and removed if it does not.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

_OWNER_ONLY = 0o600


@frozen
class Draft:
    """
    A file that is written, and about to take a name.

    :ivar descriptor: The open file, which the user of `drafting` closes when all has gone well.
    """

    path: Path
    descriptor: int
    _temporary: Path

    def take_name(self) -> None:
        """Replace the file of the name; a link of this name is replaced, not followed."""
        os.replace(self._temporary, self.path)


@contextmanager
def drafting(path: Path, content: bytes) -> Iterator[Draft]:
    """
    Write a file that shall replace ``path``, and remove it when the caller's block fails.

    After the block call `sync_directory`.

    :raise OSError: naming the temporary file, when it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, _OWNER_ONLY)
    try:
        os.fchmod(descriptor, _OWNER_ONLY)
        with os.fdopen(os.dup(descriptor), "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(descriptor)
        yield Draft(path, descriptor, temporary)
    except BaseException:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def sync_directory(path: Path) -> None:
    """Bring the last rename in the directory of ``path`` to the disk, where the file system can."""
    with suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def open_unfollowed(path: Path) -> int:
    """
    Open a file for reading; a pipe holds nothing up.

    :raise OSError: when it is a symbolic link, is not there or cannot be read.
    """
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
