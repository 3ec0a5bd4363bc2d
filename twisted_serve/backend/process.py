# SPDX-License-Identifier: Apache-2.0
"""
Set up a worker process: end with the parent, signals, logging, import path.
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

from twisted_serve.system.descendants import kill_descendants
from twisted_serve.system.prctl import CHILD_SUBREAPER, NAME, PARENT_DEATH_SIGNAL, set_attribute
from twisted_serve.wire.held_back import FOR_THE_SERVER

# True during a fork whose child keeps the sockets.
_dividing = False

# The process id of the worker; processes that the handler forks inherit this value.
_worker: int | None = None

# Per thread that forks: the signal mask before the fork.
_forking = threading.local()


class NotAWorkerError(Exception):
    """This process was not started as a worker."""


def inherited_socket(descriptor: int) -> socket.socket:
    """
    Return the socket of an inherited descriptor, closed in programs and forks that the handler starts.

    :raise NotAWorkerError: if it is not an AF_UNIX stream socket.
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
        # A child forked by the handler that outlives the worker would keep the socket open, and the server would not
        # notice the worker's end.
        if not _dividing:
            connection.close()

    os.register_at_fork(after_in_child=leave)
    return connection


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the kernel signal this process when its parent dies; do nothing without ``prctl``."""
    set_attribute(PARENT_DEATH_SIGNAL, number)


def divide() -> int:
    """
    Fork, without closing the sockets of `inherited_socket` in the child.

    :return: As :func:`os.fork`.
    :raise OSError: if no process can be created.
    """
    global _dividing
    _dividing = True
    try:
        return os.fork()
    finally:
        _dividing = False


def die_with_parent(connection: socket.socket) -> None:
    """
    Let the kernel kill this process when its parent dies, even if the handler never returns.

    Without ``prctl`` (on systems other than Linux) the worker notices the socket's end between batches.

    :raise NotAWorkerError: if the parent is dead already.
    """
    end_with_parent()
    # The parent may have died before the call; its end of the socket is closed then.
    watch = select.poll()
    watch.register(connection, 0)
    if watch.poll(0):
        raise NotAWorkerError("the server has gone")


def set_name(name: str) -> None:
    """Set the process name in ``ps -o comm`` and ``top``, which show 15 bytes."""
    with suppress(OSError):
        set_attribute(NAME, name.encode("utf-8", "replace"))


def _ignore(_number: int, _frame: object) -> None:
    """Ignore a signal that was sent to all processes of a service or terminal."""


def set_signals() -> None:
    """
    Ignore signals that are sent to all processes of a service, e.g. by ``systemd``; the server handles them.

    The server completes the requests in flight and stops this process by closing its socket or with SIGKILL. The
    signals are ignored by a handler function: ``SIG_IGN`` would be inherited by programs that the model's handler
    starts.
    """
    for number in FOR_THE_SERVER:
        signal.signal(number, _ignore)
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_SERVER)
    os.register_at_fork(before=_block_signals, after_in_parent=_restore_signals, after_in_child=_reset_signals)


def enter_session() -> None:
    """
    Become the leader of a new session and process group.

    Signals from a terminal or ``kill`` to the server's process group do not reach this process, and processes that the
    model's handler starts can be killed as a group.
    """
    # Fails if the process is a group leader already.
    with suppress(PermissionError):
        os.setsid()


def end_children_at_exit() -> None:
    """
    Kill the processes that the model's handler has started when this process exits, as the last exit callback.

    Exit callbacks of the handler run first, and can end its processes in another way. If the worker is killed, or
    calls ``os._exit``, its parent kills the process group instead.
    """
    global _worker
    if _worker is None:
        atexit.register(_end_children)
    _worker = os.getpid()


def _end_children() -> None:
    # Not in a process that the handler forked.
    if _worker == os.getpid():
        kill_descendants(os.getpid())


def adopt() -> None:
    """Become a subreaper: the parent of descendants whose parent has died, if the system supports that."""
    with suppress(OSError):
        set_attribute(CHILD_SUBREAPER, 1)


def _block_signals() -> None:
    """Block signals around a fork, so that the child does not handle one with this process's functions."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_SERVER)


def _restore_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _reset_signals() -> None:
    """Restore default signals in a process that the model's handler forked, e.g. for ``Process.terminate``."""
    if not _dividing:
        for number in FOR_THE_SERVER:
            if signal.getsignal(number) is _ignore:
                signal.signal(number, signal.SIG_DFL)
    _restore_signals()


def set_logging() -> None:
    """
    Send the handler's log records and output to stdout, line by line, for the model log.

    Printing must not raise for any text (``docs/torchserve/archives_workers_handlers.md`` §5.2).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO, force=True)


def search_path(path: Iterable[str], model_dir: str, package_root: str) -> list[str]:
    """
    Return the import path of a worker: the model's directory, then ``path``.

    :param package_root: The directory that contains ``twisted_serve``, appended if it is missing.
    """
    others = [each for each in path if each != model_dir]
    kept = [model_dir, *others]
    return kept if package_root in kept else [*kept, package_root]


def enter_model_dir(model_dir: str) -> None:
    """
    Change to the model's directory and make its modules importable.

    :raise OSError: if the directory cannot be entered.
    """
    os.chdir(model_dir)
    package_root = str(Path(__file__).resolve().parents[2])
    sys.path[:] = search_path(sys.path, model_dir, package_root)
