# SPDX-License-Identifier: Apache-2.0
"""
This module implements what a worker needs to be started: what it is told, and where it finds what it imports.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from attrs import frozen
from twisted.logger import Logger

import twisted_serve
from twisted_serve.interfaces import Placement, WorkerSpec
from twisted_serve.wire.messages import LoadModel
from twisted_serve.workers.process.worker import ProcessWorker

#: The descriptor of the socket in a process that is started, not forked; 0 to 2 are the handler's.
SOCKET = 3

# As ``-m``, which imports from the directory in which the process starts before all else: the server may run in any.
# ``-P`` would do; Python 3.10 does not have it.
_RUN = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "import runpy; runpy.run_module({module!r}, None, '__main__', True)"
)

_log = Logger("twisted_serve.workers")


def module_command(python: str, module: str, *words: str) -> list[str]:
    """Return the command that runs a module of ours, and imports nothing from the directory in which it starts."""
    return [python, "-c", _RUN.format(module=module), *words]


@contextmanager
def attempt(worker: ProcessWorker) -> Iterator[None]:
    """
    Make a context for a step towards a worker's process: whatever is raised in it, the worker ends.

    Steps are taken where nothing waits for them, in callbacks of the reactor and of a template; a worker that is
    neither started nor failed would be waited for without end.
    """
    try:
        yield
    except Exception as e:
        _log.failure("Cannot start worker {worker_id}", worker_id=worker.worker_id)
        worker.abandon(f"The worker could not be started: {type(e).__name__}: {e}")


@frozen(eq=False)
class Launch:
    """
    A worker that is to begin.

    :ivar load: The first that it is told.
    """

    worker: ProcessWorker
    spec: WorkerSpec
    placement: Placement
    load: LoadModel


class Launcher(Protocol):
    """A way to start a worker."""

    def begin(self, launch: Launch) -> None:
        """
        Begin, now or later; a worker that has been stopped meanwhile does not wait any more.

        What is raised is told by the worker: call it in the context of `attempt`.
        """


@contextmanager
def spawned_ends() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """
    Make what a process that is spawned is to inherit; all is closed here on the way out.

    :return: Our end of its socket, which does not block; its own end; a descriptor that has nothing to read.
    :raise OSError: if there are no more descriptors; none is left open.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs, open(os.devnull, "rb", buffering=0) as nothing:
        ours.setblocking(False)
        yield ours, theirs, nothing.fileno()


def no_socket(error: OSError) -> str:
    """Say why a worker has no socket."""
    return f"The worker's socket could not be made: {error}"


def import_environment(environment: Mapping[str, str], *directories: str) -> dict[str, str]:
    """
    Add to an environment what a process needs to import us, and what is in ``directories``.

    Our own place is left out where it is a ``site-packages``: an interpreter of a
    model's own would find all of ours there before its own.
    """
    root = Path(twisted_serve.__file__).resolve().parents[1]
    ours = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    theirs = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
    path = [*ours, *theirs, *directories]
    return {**environment, "PYTHONPATH": os.pathsep.join(path)} if path else dict(environment)


def worker_environment(environment: Mapping[str, str], model_dir: Path, packages: Path | None = None) -> dict[str, str]:
    """Add to an environment what a worker needs to import us, its model, and the packages of its model."""
    directories = (str(model_dir),) if packages is None else (str(model_dir), str(packages))
    return import_environment(environment, *directories)


def load_message(spec: WorkerSpec, placement: Placement) -> LoadModel:
    """Tell a worker what to serve, and on which device."""
    return LoadModel(
        model_name=spec.model_name,
        model_version=spec.model_version,
        model_dir=str(spec.model_dir),
        handler=spec.handler,
        batch_size=spec.batch_size,
        manifest=dict(spec.manifest),
        model_config=dict(spec.model_config),
        server_version=twisted_serve.COMPATIBLE_WITH,
        envelope=spec.envelope,
        gpu_id=placement.gpu_id,
        limit_max_image_pixels=spec.limit_max_image_pixels,
        allow_pickled_weights=spec.allow_pickled_weights,
        decode_input_request=spec.decode_input_request,
        max_response_size=spec.max_response_size,
        asynchronous=spec.asynchronous,
        continuous=spec.continuous,
        metrics=list(spec.metrics),
    )
