# SPDX-License-Identifier: Apache-2.0
"""
Run an archive's handler inside the test's own process, without a server or a child process.

It runs the same code as a worker, so that a handler's inputs, and the treatment of its outputs, are those of a server::

    with local_worker(Path("my_model"), "handler.py") as worker:
        (item,) = worker.predict(Part("body", "", b"…"))
        assert item.status == 200
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted_serve.backend.service import Service, open_service
from twisted_serve.backend.ts import names
from twisted_serve.errors import WorkerFailed
from twisted_serve.wire.messages import FromWorker, Item, Job, LoadModel, Part, Predict, Predicted, PredictFailed

__all__ = ["LocalWorker", "local_worker"]


class Outbox:
    """
    The server's side of the connection, in memory.

    :ivar sent: The intermediate responses of the worker.
    :ivar cancelled: The requests whose clients have disconnected.
    """

    def __init__(self) -> None:
        self.sent: list[FromWorker] = []
        self.cancelled: set[str] = set()

    def send(self, message: FromWorker) -> None:
        """Record a message."""
        self.sent.append(message)

    def is_cancelled(self, request_id: str) -> bool:
        """Return whether the client has disconnected."""
        return request_id in self.cancelled

    def may_send(self, request_id: str) -> bool:
        """Return whether the client is connected; it reads without delay."""
        return request_id not in self.cancelled


class LocalWorker:
    """A loaded handler; call :meth:`answer` with any jobs, or :meth:`predict` with inputs only."""

    def __init__(self, service: Service, outbox: Outbox) -> None:
        self._service = service
        self._batch_ids = count(1)
        self.outbox = outbox

    def answer(self, *jobs: Job) -> Predicted | PredictFailed:
        """Pass these requests to the handler as one batch."""
        return self._service.answer(Predict(next(self._batch_ids), list(jobs)))

    def respond(self, jobs: list[Job]) -> list[Item] | Exception:
        """Answer a batch for a fake worker: ``MemoryServer(respond=worker.respond)`` serves the handler."""
        answer = self.answer(*jobs)
        return WorkerFailed(answer.code, answer.message) if isinstance(answer, PredictFailed) else answer.items

    def predict(self, *parts: Part) -> list[Item]:
        """
        Pass one request for each of ``parts`` to the handler, as one batch.

        :raise AssertionError: if the whole batch failed.
        """
        answer = self.answer(*(Job(f"request-{number}", {}, [part]) for number, part in enumerate(parts)))
        if isinstance(answer, PredictFailed):
            raise AssertionError(f"the batch failed with {answer.code}: {answer.message}")
        return answer.items


@contextmanager
def local_worker(model_dir: Path, handler: str, **settings: Any) -> Iterator[LocalWorker]:
    """
    Load a handler; on exit, restore the working directory, import path and modules.

    :param model_dir: The unpacked archive.
    :param handler: As in its manifest.
    :param settings: Other fields of :class:`~twisted_serve.wire.messages.LoadModel`.
    :raise Exception: any error that prevents the handler from loading.
    """
    directory = str(model_dir.resolve())
    fields: dict[str, Any] = {
        "model_name": "model",
        "model_version": "1.0",
        "batch_size": 1,
        "manifest": {},
        "model_config": {},
        "server_version": "0",
        **settings,
    }
    outbox = Outbox()
    start_dir, path, finders, modules = os.getcwd(), sys.path[:], sys.meta_path[:], set(sys.modules)
    os.chdir(directory)
    sys.path.insert(0, directory)
    names.install()
    try:
        load = LoadModel(model_dir=directory, handler=handler, **fields)
        yield LocalWorker(open_service(load, outbox), outbox)
    finally:
        os.chdir(start_dir)
        sys.path[:], sys.meta_path[:] = path, finders
        for name in set(sys.modules) - modules:
            if name.partition(".")[0] == "ts" or _is_below(sys.modules[name], directory):
                del sys.modules[name]


def _is_below(module: ModuleType, directory: str) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(directory)
