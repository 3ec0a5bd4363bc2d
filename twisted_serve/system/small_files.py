# SPDX-License-Identifier: Apache-2.0
"""
Read a small file of the operator without blocking the server, whatever is at its path.
"""

from __future__ import annotations

import os
import stat
from errno import EFBIG, EINVAL
from pathlib import Path

from attrs import frozen


@frozen
class SmallFile:
    """
    The content of a file.

    :ivar exposed: Whether users other than the owner and the group may read or change the file.
    """

    content: bytes
    exposed: bool


def read_small(path: Path, most: int) -> SmallFile:
    """
    Read a regular file; symbolic links, which Kubernetes uses, are followed.

    A pipe or a device is refused before reading, which could block or never end.

    :param most: The maximal size in bytes.
    :raise OSError: if the file cannot be read, is not a regular file, or is larger.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(EINVAL, "Not a regular file", str(path))
        content = b""
        while len(content) <= most and (piece := os.read(descriptor, most + 1 - len(content))):
            content += piece
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise OSError(EFBIG, f"Larger than {most} bytes", str(path))
    return SmallFile(content, bool(status.st_mode & (stat.S_IROTH | stat.S_IWOTH)))


def state_of(path: Path) -> tuple[int, ...] | None:
    """
    Return a value that changes with a file's content, or ``None`` if it cannot be found.

    Symbolic links, which Kubernetes exchanges, are followed.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size
