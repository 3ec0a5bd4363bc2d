# SPDX-License-Identifier: Apache-2.0
"""
This module implements the place where workers are processes of this machine, each with a socket of its own.

The socket is made before the process, and inherited: nobody else can connect to a worker, and there is no file to find.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from zope.interface import implementer

import twisted_serve
from twisted_serve.interfaces import IServeReactor, IWorker, IWorkerProvider, Placement, WorkerSpec
from twisted_serve.wire.codec import MAX_FRAME, UnsendableError, encode
from twisted_serve.wire.messages import LoadModel
from twisted_serve.workers.child import LocalWorker
from twisted_serve.workers.connection import Adopted
from twisted_serve.workers.process import Stream

#: How a line begins that is a metric and not for the model log (the predecessor's mark).
METRIC_MARK = "[METRICS]"

# The descriptor of the socket in the worker; 0 to 2 are the handler's.
_SOCKET = 3

# What may come with each answer besides its body: handler's headers, reason phrase.
_ROOM_FOR_HEADERS = 1 << 20


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


def longest_frame(spec: WorkerSpec) -> int:
    """Say how long a message of a worker may be, in bytes: as long as a full batch of the largest answers."""
    return min(MAX_FRAME, spec.batch_size * (spec.max_response_size + _ROOM_FOR_HEADERS))


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
        server_version=twisted_serve.__version__,
        envelope=spec.envelope,
        gpu_id=placement.gpu_id,
        limit_max_image_pixels=spec.limit_max_image_pixels,
        allow_pickled_weights=spec.allow_pickled_weights,
        decode_input_request=spec.decode_input_request,
        max_response_size=spec.max_response_size,
    )


@implementer(IWorkerProvider)
class LocalProvider:
    """
    Starts workers as child processes.

    :param log: Gets what workers print, as the model log's events: ``logger_name`` ``MODEL_LOG``, and
        the ``thread_name`` by which the predecessor called a worker's output.
    :param on_metric_line: Gets the lines that are metrics instead.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        log: Logger | None = None,
        on_metric_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._reactor = reactor
        self._log = log or Logger()
        self._on_metric_line = on_metric_line
        self._workers: set[LocalWorker] = set()
        self._stopped = False

    def start(self, spec: WorkerSpec, placement: Placement) -> IWorker:
        """See `IWorkerProvider`."""
        name = f"W-{placement.worker_id}-{spec.model_name}_{spec.model_version}"
        worker = LocalWorker(
            placement.worker_id,
            self._reactor,
            spec.startup_timeout,
            longest_frame(spec),
            lambda stream, line: self._printed(name, stream, line),
        )
        if self._stopped:
            worker.fail_to_begin("The server is stopping.")
            return worker
        self._workers.add(worker)

        def forget(how: str) -> str:
            self._workers.discard(worker)
            return how

        worker.lost.addCallback(forget)
        load = load_message(spec, placement)
        try:
            encode(load)
            self._spawn(worker, spec, load)
        except OSError as e:
            worker.fail_to_begin(f"The worker's socket could not be made: {e}")
        except UnsendableError as e:
            # YAML has values, and integers, that the wire has not.
            worker.fail_to_begin(f"The model's manifest or configuration cannot be handed to a worker: {e}")
        return worker

    def stop(self) -> Deferred[None]:
        """See `IWorkerProvider`."""
        self._stopped = True
        return gatherResults([worker.stop(0.0) for worker in list(self._workers)]).addCallback(lambda _: None)

    def _spawn(self, worker: LocalWorker, spec: WorkerSpec, load: LoadModel) -> None:
        with ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.enter_context(ours)
            stack.enter_context(theirs)
            nothing = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, nothing)
            ours.setblocking(False)
            # The reactor takes a duplicate; these here are closed on the way out.
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Adopted(worker.connection))
            try:
                transport = self._reactor.spawnProcess(
                    worker.process,
                    spec.python,
                    [spec.python, "-m", "twisted_serve.backend", "--fd", str(_SOCKET)],
                    env=worker_environment(spec.environment, spec.model_dir, spec.packages),
                    childFDs={0: nothing, 1: "r", 2: "r", _SOCKET: theirs.fileno()},
                )
            except (OSError, ValueError) as e:
                worker.fail_to_begin(f"The worker's process could not be started: {e}")
                worker.connection.abort("there is no process")
                return
        worker.begin(transport.pid, load)

    def _printed(self, name: str, stream: Stream, line: str) -> None:
        if line.startswith(METRIC_MARK):
            self._on_metric_line(line)
            return
        # As the predecessor: what comes on stderr is a warning.
        log = self._log.info if stream == "stdout" else self._log.warn
        log("{line}", line=line, logger_name="MODEL_LOG", thread_name=f"{name}-{stream}")
