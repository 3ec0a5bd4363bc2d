# SPDX-License-Identifier: Apache-2.0
"""
Give a file its final name once it is complete.
"""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path


def new_file(path: Path) -> FileIO:
    """
    Create a file that only its owner can access.

    :raise FileExistsError: if a file or link of that name exists.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Unbuffered, so that a full disk raises on write and not on a later close.
    return open(os.open(path, flags, 0o600), "wb", buffering=0)


def reopen(path: Path) -> FileIO:
    """
    Reopen a file that `new_file` created, for writing.

    :raise OSError: if the file is gone or is a link.
    """
    return open(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "wb", buffering=0)


def give_name(partial: Path, target: Path) -> None:
    """
    Give a complete file its final name, without ever replacing a file; the temporary name may remain.

    :raise FileExistsError: if the name is taken.
    """
    flush(partial)
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links on this file system (e.g. a network mount): reserve the name first, then replace it.
        new_file(target).close()
        try:
            os.replace(partial, target)
        except BaseException:
            target.unlink()
            raise


def flush(path: Path) -> None:
    """Flush a file's contents to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
