# SPDX-License-Identifier: Apache-2.0
"""
Ask a template process to fork a worker.
"""

from __future__ import annotations

import socket
from itertools import count

from twisted_serve.interfaces import IServeReactor
from twisted_serve.wire.control import Fork
from twisted_serve.workers.process.connection import Adopted
from twisted_serve.workers.process.launch import Launch, no_socket, worker_environment
from twisted_serve.workers.template.link import TemplateLink, TemplateOwner
from twisted_serve.workers.template.process import ForkedProcess


def process_name(launch: Launch) -> str:
    """Return the name of a worker's process in ``ps -o comm``, which shows 15 bytes."""
    return f"ts-W-{launch.worker.worker_id}"


class Births:
    """Forks workers from templates; process numbers are unique across all templates."""

    def __init__(self, reactor: IServeReactor) -> None:
        self._reactor = reactor
        self._numbers = count(1)

    def from_base(self, link: TemplateLink, launch: Launch) -> None:
        """Fork a worker that loads its model itself."""
        self._fork(link, launch, self._environment(launch))

    def from_model(self, link: TemplateLink, launch: Launch) -> None:
        """Fork a worker from a template that has loaded the model."""
        launch.worker.shares_weights = True
        self._fork(link, launch, None)

    def first(self, link: TemplateLink, launch: Launch, owner: TemplateOwner) -> None:
        """Fork a worker that may become the template of its siblings; ``owner`` receives the template's events."""
        future = TemplateLink(owner, self._reactor)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with ours, theirs:
                ours.setblocking(False)
                self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Adopted(future))
                process = self._fork(link, launch, self._environment(launch), theirs)
        except BaseException as e:
            if future.connected:
                future.abort("there is no process")
            if not isinstance(e, OSError) or not launch.worker.waiting:
                raise
            launch.worker.fail_to_begin(no_socket(e))
            return
        if process is None:
            future.abort("there is no process")
        else:
            future.expect(process)

    def _fork(
        self,
        link: TemplateLink,
        launch: Launch,
        environment: dict[str, str] | None,
        control: socket.socket | None = None,
    ) -> ForkedProcess | None:
        try:
            process = ForkedProcess(self._reactor, next(self._numbers), launch, link)
        except OSError as e:
            launch.worker.fail_to_begin(no_socket(e))
            return None
        divides = control is not None
        message = Fork(process.number, process_name(launch), environment, divides)
        try:
            link.fork(process, message, None if control is None else control.detach())
        except BaseException as e:
            process.unborn(f"{type(e).__name__}: {e}")
            raise
        process.undecided = divides
        launch.worker.begin(None, launch.load)
        return process

    @staticmethod
    def _environment(launch: Launch) -> dict[str, str]:
        return worker_environment(launch.spec.environment, launch.spec.model_dir)
