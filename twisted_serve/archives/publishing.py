# SPDX-License-Identifier: Apache-2.0
"""
This module implements publishing: what was written under a name of its own gets its real name when it is whole.
"""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path


def new_file(path: Path) -> FileIO:
    """
    Make a file, private to its owner.

    :raise FileExistsError: if there is one, or a link of that name.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Unbuffered: a full disk is an error of the write and not of a later close.
    return open(os.open(path, flags, 0o600), "wb", buffering=0)


def open_again(path: Path) -> FileIO:
    """
    Open a file that `new_file` has made, for writing.

    :raise OSError: if it is gone, or a link.
    """
    return open(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "wb", buffering=0)


def give_name(partial: Path, target: Path) -> None:
    """
    Give a complete file its name, never another file's; what it had been written as may stay or not.

    :raise FileExistsError: if the name is taken.
    """
    flush(partial)
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here, as on some network mounts: take the name first, then fill it.
        new_file(target).close()
        try:
            os.replace(partial, target)
        except BaseException:
            target.unlink()
            raise


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
