# SPDX-License-Identifier: Apache-2.0
"""
Open the directory that holds a user's run files, and refuse one that another user could have filled.

A sub-command sends keys to the addresses in these files, so a directory in ``/tmp`` that another user has made, a link
to it, or one that others may write to is an attack.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def places(environ: Mapping[str, str], temporary: Path) -> list[Path]:
    """
    Return the directories in which run files may be, the preferred one first.

    A server of systemd may have no ``XDG_RUNTIME_DIR`` where a login shell has one; ``sudo`` may leave another user's.

    :param temporary: The temporary directory of the process.
    """
    found = []
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):
        with suppress(OSError):
            if os.stat(runtime).st_uid == os.geteuid():
                found.append(Path(runtime) / "twisted_serve")
    return [*found, temporary / f".twisted_serve-{os.geteuid()}"]


@contextmanager
def opened(place: Path, *, make: bool = False) -> Iterator[int]:
    """
    Open a directory of run files; yield its descriptor.

    :param make: Whether it is made if it is missing.
    :raise FileNotFoundError: when it is missing.
    :raise OSError: when it cannot be trusted, with the reason.
    """
    if make:
        with suppress(FileExistsError):
            os.mkdir(place, 0o700)
    try:
        descriptor = os.open(place, _OPEN)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(e.errno, "is a link or no directory, and so not trusted", str(place)) from e
        raise
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "belongs to another user, and so is not trusted", str(place))
        if stat.S_IMODE(status.st_mode) & 0o022:
            raise PermissionError(errno.EPERM, "can be written by others, and so is not trusted", str(place))
        yield descriptor
    finally:
        os.close(descriptor)
