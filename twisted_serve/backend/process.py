# SPDX-License-Identifier: Apache-2.0
"""
This module implements what is set once in a worker process: its end with its parent, signals, logging, import path.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

# prctl(2)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

# Whether a fork is under way whose child goes on with our sockets.
_dividing = False


class NotAWorkerError(Exception):
    """This process was not started as a worker is."""


def inherited_socket(descriptor: int) -> socket.socket:
    """
    Take the descriptor which the server left open for us, and keep it from programs that the handler starts.

    :raise NotAWorkerError: if it is no AF_UNIX stream socket.
    """
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError as e:
        raise NotAWorkerError(f"descriptor {descriptor}: {e.strerror}") from e
    if connection.family != socket.AF_UNIX or connection.type != socket.SOCK_STREAM:
        connection.detach()
        raise NotAWorkerError(f"descriptor {descriptor} is no AF_UNIX stream socket")
    connection.set_inheritable(False)
    connection.setblocking(True)

    def leave() -> None:
        # A forked child of the handler that outlives us would hold the socket open, and the server believe in us.
        if not _dividing:
            connection.close()

    os.register_at_fork(after_in_child=leave)
    return connection


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send a signal to this process when its parent dies; where there is no ``prctl``, do nothing."""
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def divide() -> int:
    """
    Fork, and let the child keep what `inherited_socket` would close.

    :return: As :func:`os.fork`.
    :raise OSError: if there can be no more processes.
    """
    global _dividing
    _dividing = True
    try:
        return os.fork()
    finally:
        _dividing = False


def die_with_parent(connection: socket.socket) -> None:
    """
    Have the kernel kill this process when its parent dies, even if the handler never returns.

    Where there is no ``prctl`` (it is Linux's) the socket's end is seen between batches.

    :raise NotAWorkerError: if the parent is dead already.
    """
    end_with_parent()
    # It may have died before we asked; its end of the socket died with it.
    watch = select.poll()
    watch.register(connection, 0)
    if watch.poll(0):
        raise NotAWorkerError("the server has gone")


def set_name(name: str) -> None:
    """Be called so by ``ps -o comm`` and ``top``, which show 15 bytes."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode("utf-8", "replace"), 0, 0, 0)


def set_signals() -> None:
    """
    Leave Ctrl-C to the server, which drains first; end at once on SIGTERM.

    A terminal sends SIGINT to the whole process group.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def set_logging() -> None:
    """
    Send what the handler logs and prints to the model log, line by line.

    Nothing that it prints may raise (``spec/archives_workers_handlers.md`` §5.2).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO, force=True)


def search_path(path: Iterable[str], model_dir: str, start_dir: str, package_root: str) -> list[str]:
    """
    Make the import path of a worker: the model's files first, then what was there.

    :param start_dir: Where the process was started; ``python -m`` put it into the path, where it has no
        business: the server may run in any directory.
    :param package_root: Where ``twisted_serve`` is; stays, even if it is ``start_dir``.
    """
    others = [each for each in path if each != model_dir]
    if others and others[0] in ("", start_dir):
        del others[0]
    kept = [model_dir, *others]
    return kept if package_root in kept else [*kept, package_root]


def enter_model_dir(model_dir: str) -> None:
    """
    Make the model's directory the current one and its modules importable.

    :raise OSError: if it cannot be entered.
    """
    start_dir = os.getcwd()
    os.chdir(model_dir)
    package_root = str(Path(__file__).resolve().parents[2])
    sys.path[:] = search_path(sys.path, model_dir, start_dir, package_root)
