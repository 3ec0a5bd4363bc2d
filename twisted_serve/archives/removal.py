# SPDX-License-Identifier: Apache-2.0
"""
Remove a directory tree of any depth.

A handler may create directories in its model's directory nested more deeply than Python's stack, the longest path or
the process's limit of descriptors allows; `shutil.rmtree` fails on such a tree. Here each directory is moved to the top
of the tree before it is removed, so that neither depth nor path length matters.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """
    Remove a directory and its contents; symbolic links are removed, not followed.

    Never raises: an entry that cannot be removed, e.g. a mount point or another user's file, is left in place.
    """
    try:
        top = _open_removable(str(path), None)
    except OSError:
        return
    try:
        failed: set[str] = set()
        while left := [name for name in os.listdir(top) if name not in failed]:
            failed.update(name for name in left if not _remove(name, top))
    except OSError:
        pass
    finally:
        os.close(top)
    with suppress(OSError):
        os.rmdir(path)


def _remove(name: str, top: int) -> bool:
    """Remove an entry of a directory, moving its subdirectories up to the top; return whether it was removed."""
    if _unlink(name, top):
        return True
    try:
        directory = _open_removable(name, top)
    except OSError:
        return False
    try:
        for each in os.listdir(directory):
            if not _unlink(each, directory):
                _move_up(each, directory, top)
    except OSError:
        return False
    finally:
        os.close(directory)
    try:
        os.rmdir(name, dir_fd=top)
    except OSError:
        return False
    return True


def _unlink(name: str, directory: int) -> bool:
    """Remove a file and return whether it is gone; a directory is not removed."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _move_up(name: str, directory: int, top: int) -> None:
    """
    Move a directory to the top of the tree under a unique name.

    :raise OSError: if it cannot be moved.
    """
    unique_name = uuid4().hex
    try:
        os.rename(name, unique_name, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:
        # A directory without write permission cannot be moved, either.
        os.close(_open_removable(name, directory))
        os.rename(name, unique_name, src_dir_fd=directory, dst_dir_fd=top)


def _open_removable(name: str, directory: int | None) -> int:
    """
    Open a directory with the permissions needed to remove its entries.

    :raise OSError: if it is not a directory, or is another user's.
    """
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=directory)
        return os.open(name, _DIRECTORY, dir_fd=directory)
    if not os.access(name, os.W_OK | os.X_OK, dir_fd=directory):
        os.fchmod(descriptor, 0o700)
    return descriptor
