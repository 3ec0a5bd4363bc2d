# SPDX-License-Identifier: Apache-2.0
"""
This module implements the pid file: how ``--stop`` finds the server, and why there is one server at a time.

The path and the content are the predecessor's (``spec/config_cli.md`` §1.3).  The
directory is one which everybody may write to, so nothing in it is believed: no link
is followed, and a process is ours only if it looks like a server.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

NAME = ".model_server.pid"

# How a server was started: by its script, or by its module.
_SCRIPT = "twisted-serve"
_MODULE = "twisted_serve.cli"


class AlreadyRunningError(Exception):
    """Another server is alive."""


class FindProcess(Protocol):
    """Finds a process as :class:`psutil.Process` does."""

    def __call__(self, pid: int) -> psutil.Process:
        """:raise psutil.Error: when there is none, or it is not to be seen."""


class PidFile:
    """
    The file in which one server of this machine is named.

    :ivar path: Where it is.
    """

    def __init__(self, directory: Path, find: FindProcess = psutil.Process) -> None:
        self.path = directory / NAME
        self._find = find

    def server(self) -> psutil.Process | None:
        """Return the living server which the file names, if it is one."""
        pid = self._read()
        try:
            process = None if pid is None else self._find(pid)
            return process if process is not None and is_server(process) else None
        except psutil.Error:
            return None

    def orphaned(self) -> bool:
        """Say whether the file names a process that is gone."""
        pid = self._read()
        return pid is not None and not psutil.pid_exists(pid)

    def claim(self) -> None:
        """
        Name this process.

        :raise AlreadyRunningError: when the file names another living server.
        :raise OSError: when the file cannot be written.
        """
        descriptor, temporary = tempfile.mkstemp(prefix=NAME, dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                os.fchmod(descriptor, 0o644)
                file.write(str(os.getpid()))
            try:
                os.link(temporary, self.path)
            except FileExistsError:
                server = self.server()
                if server is not None and server.pid != os.getpid():
                    raise AlreadyRunningError from None
                os.replace(temporary, self.path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def release(self) -> None:
        """Remove the file if it names this process; do nothing otherwise."""
        if self._read() == os.getpid():
            self.remove()

    def remove(self) -> None:
        """Remove the file, if it is there."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _read(self) -> int | None:
        """Return the pid; ``None`` for what is no pid file."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = os.read(descriptor, 32).strip()
        finally:
            os.close(descriptor)
        # Linux has no pid of more than seven digits, and 0 and below are whole groups of processes.
        return int(content) if content.isdigit() and len(content) < 9 and int(content) > 0 else None


def is_server(process: psutil.Process) -> bool:
    """
    Say whether a process was started as a server: ``python …/twisted-serve``, or ``python -m twisted_serve.cli``.

    :raise psutil.Error: when the process is gone or not to be seen.
    """
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    interpreter, *words = process.cmdline()[:6] or [""]
    started = any(word == _MODULE or Path(word).name == _SCRIPT for word in words)
    return started and Path(interpreter).name.startswith(("python", "pypy"))
