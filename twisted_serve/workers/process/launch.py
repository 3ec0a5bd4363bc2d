# SPDX-License-Identifier: Apache-2.0
"""
Prepare the start of a worker: its first message, its command and its import path.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from attrs import frozen
from msgspec.structs import replace
from twisted.logger import Logger

import twisted_serve
from twisted_serve.interfaces import Placement, WorkerSpec
from twisted_serve.wire.messages import LoadModel
from twisted_serve.workers.process.worker import ProcessWorker

#: The descriptor of the socket in a spawned process; 0 to 2 belong to the handler.
SOCKET = 3

# Like ``-m``, but without the working directory on the path: ``-m`` would import from it first, and the server may
# run in any directory. ``-P`` would do the same, but Python 3.10 does not have it.
_RUN = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "import runpy; runpy.run_module({module!r}, None, '__main__', True)"
)

_log = Logger("twisted_serve.workers")


def module_command(python: str, module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package without importing from the working directory."""
    return [python, "-c", _RUN.format(module=module), *arguments]


@contextmanager
def attempt(worker: ProcessWorker) -> Iterator[None]:
    """
    Abandon the worker if the block, one step of its start, raises an exception.

    The steps run in callbacks of the reactor and of a template, where an exception has no caller to reach. A worker
    that neither starts nor fails would keep its replica waiting forever.
    """
    try:
        yield
    except Exception as e:
        _log.failure("Cannot start worker {worker_id}", worker_id=worker.worker_id)
        worker.abandon(f"The worker could not be started: {type(e).__name__}: {e}")


@frozen(eq=False)
class Launch:
    """
    A worker to be started.

    :ivar load: The first message that the worker gets.
    """

    worker: ProcessWorker
    spec: WorkerSpec
    placement: Placement
    load: LoadModel


class Launcher(Protocol):
    """A way to start workers."""

    def begin(self, launch: Launch) -> None:
        """
        Start the worker now or later; a worker that was stopped in the meantime is skipped.

        Call this method inside `attempt`, which reports exceptions through the worker.
        """


@contextmanager
def open_descriptors() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """
    Open the descriptors that a spawned process inherits; all of them are closed here on exit.

    :return: The server's end of the socket (non-blocking), the process' end, and a descriptor of ``/dev/null``.
    :raise OSError: if the process has run out of descriptors; none is left open.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs, open(os.devnull, "rb", buffering=0) as devnull:
        ours.setblocking(False)
        yield ours, theirs, devnull.fileno()


def socket_error_text(error: OSError) -> str:
    """Return the error text for a worker whose socket could not be made."""
    return f"The worker's socket could not be made: {error}"


def import_environment(environment: Mapping[str, str], *directories: str) -> dict[str, str]:
    """
    Return the environment with a ``PYTHONPATH`` for this package and for ``directories``.

    The directory of this package is left out if it is a ``site-packages``: a model's virtual environment would import
    all of the server's packages from there before its own.
    """
    root = Path(twisted_serve.__file__).resolve().parents[1]
    ours = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    theirs = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
    path = [*ours, *theirs, *directories]
    return {**environment, "PYTHONPATH": os.pathsep.join(path)} if path else dict(environment)


def worker_environment(environment: Mapping[str, str], model_dir: Path, packages: Path | None = None) -> dict[str, str]:
    """Return the environment with a ``PYTHONPATH`` for this package, the model and the model's packages."""
    directories = (str(model_dir),) if packages is None else (str(model_dir), str(packages))
    return import_environment(environment, *directories)


def load_message(spec: WorkerSpec, placement: Placement) -> LoadModel:
    """Return the message that has a worker load its model on its device."""
    return replace(spec.load, gpu_id=placement.gpu_id)
