# SPDX-License-Identifier: Apache-2.0
"""
This module implements what is set once in a worker process: its end with its parent, signals, logging, import path.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from twisted_serve.descendants import kill_descendants
from twisted_serve.prctl import CHILD_SUBREAPER, NAME, PARENT_DEATH_SIGNAL, set_attribute
from twisted_serve.wire.held_back import FOR_THE_SERVER

# Whether a fork is under way whose child goes on with our sockets.
_dividing = False

# The process which is a worker, if one is: what it forks has this, too.
_worker: int | None = None

# In a thread that forks: the signals which were blocked before.
_forking = threading.local()


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
    set_attribute(PARENT_DEATH_SIGNAL, number)


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
    with suppress(OSError):
        set_attribute(NAME, name.encode("utf-8", "replace"))


def _leave_to_the_server(_number: int, _frame: object) -> None:
    """Take a signal that was sent to all processes of a service or a terminal."""


def set_signals() -> None:
    """
    Leave to the server the signals that are sent to each process of a service, e.g. by ``systemd``.

    The server finishes what is being answered, and ends this process by its socket or by SIGKILL.  The signals are
    taken by a function: one that was ignored would be ignored by every program that the model's handler starts, too.
    """
    for number in FOR_THE_SERVER:
        signal.signal(number, _leave_to_the_server)
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_SERVER)
    os.register_at_fork(before=_hold_back, after_in_parent=_let_come, after_in_child=_be_no_worker)


def enter_session() -> None:
    """
    Become the leader of a session and of a process group.

    What a terminal or ``kill`` sends to the server's process group does not come here, and what the model's handler
    starts can be ended as a group.
    """
    # A leader of a group is one already.
    with suppress(PermissionError):
        os.setsid()


def end_children_at_exit() -> None:
    """
    Kill what the model's handler has started when this process exits, after all else that is done then.

    What a handler registers comes first, and can end its processes in its own way.  A worker that is killed, or that
    calls ``os._exit``, leaves this to its parent, which finds only the process group.
    """
    global _worker
    if _worker is None:
        atexit.register(_end_children)
    _worker = os.getpid()


def _end_children() -> None:
    # Not in what a handler forked.
    if _worker == os.getpid():
        kill_descendants(os.getpid())


def adopt() -> None:
    """Become the parent of descendants whose own parent has died (a subreaper), where the system has that."""
    with suppress(OSError):
        set_attribute(CHILD_SUBREAPER, 1)


def _hold_back() -> None:
    """Keep a signal for a child from being taken here, or by what the child has of this process at first."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_SERVER)


def _let_come() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _be_no_worker() -> None:
    """Give a process that the model's handler forked the signals that it expects, e.g. from ``Process.terminate``."""
    if not _dividing:
        for number in FOR_THE_SERVER:
            if signal.getsignal(number) is _leave_to_the_server:
                signal.signal(number, signal.SIG_DFL)
    _let_come()


def set_logging() -> None:
    """
    Send what the handler logs and prints to the model log, line by line.

    Nothing that it prints may raise (``docs/torchserve/archives_workers_handlers.md`` §5.2).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO, force=True)


def search_path(path: Iterable[str], model_dir: str, package_root: str) -> list[str]:
    """
    Make the import path of a worker: the model's files first, then what was there.

    :param package_root: Where ``twisted_serve`` is.
    """
    others = [each for each in path if each != model_dir]
    kept = [model_dir, *others]
    return kept if package_root in kept else [*kept, package_root]


def enter_model_dir(model_dir: str) -> None:
    """
    Make the model's directory the current one and its modules importable.

    :raise OSError: if it cannot be entered.
    """
    os.chdir(model_dir)
    package_root = str(Path(__file__).resolve().parents[2])
    sys.path[:] = search_path(sys.path, model_dir, package_root)
