# SPDX-License-Identifier: Apache-2.0
"""
Share the memory that a handler's ``initialize`` fills between the workers of one model version.

The first worker loads while the others wait. When it has loaded it reports whether it can be forked. If it can, it has
become the template of all others; if not, each of them loads for itself. If it fails to load, the waiting workers fail
with the same error.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces import IServeReactor, WorkerSpec
from twisted_serve.wire.control import Fork
from twisted_serve.workers.process.connection import AdoptedFactory
from twisted_serve.workers.process.launch import Launch, Launcher, attempt, socket_error_text, worker_environment
from twisted_serve.workers.template.link import TemplateLink
from twisted_serve.workers.template.process import ForkedProcess
from twisted_serve.workers.template.root_template import RootTemplate

_log = Logger("twisted_serve.workers")

# Seconds that a template without workers is kept: long enough for a restart of the last worker, and short enough that
# a model scaled to zero soon uses no memory.
LINGER = 60.0


def _process_name(launch: Launch) -> str:
    """Return the name of a worker's process in ``ps -o comm``, which shows 15 bytes."""
    return f"ts-W-{launch.worker.worker_id}"


class VersionTemplate:
    """
    A launcher for the workers of one model version, and their template once the first has loaded.

    :param numbers: Yields the numbers of forked processes, unique across all templates.
    :param root: The root template; the first worker, and each worker that loads for itself, is forked from it.
    :param fallback: The launcher to use while there is no root template.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        spec: WorkerSpec,
        numbers: Iterator[int],
        root: RootTemplate,
        fallback: Launcher,
    ) -> None:
        self._reactor = reactor
        self._spec = spec
        self._numbers = numbers
        self._root = root
        self._fallback = fallback
        self._shares = spec.share_weights
        self._first: Launch | None = None
        self._waiting: list[Launch] = []
        self._template: TemplateLink | None = None
        self._members = 0
        self._lingering: IDelayedCall | None = None
        self._closed = False

    def begin(self, launch: Launch) -> None:
        """Start a worker from the best template there is; see `Launcher`."""
        self._members += 1
        self._cancel_linger()
        launch.worker.lost.addCallback(self._worker_lost)
        self._begin(launch)

    def close(self) -> None:
        """End the template: no more workers will be started."""
        self._closed = True
        self._close_template()

    def _close_template(self) -> None:
        self._cancel_linger()
        template, self._template = self._template, None
        if template is not None:
            template.close()

    def template_ready(self, link: TemplateLink) -> None:
        """Abort the link, a protocol violation; see `TemplateOwner`."""
        link.abort("it says what only the first template says")

    def template_impossible(self, link: TemplateLink, reason: str) -> None:
        """Have each worker load for itself; see `TemplateOwner`."""
        self._shares = False
        _log.info(
            "Each worker of {name} {version} loads for itself, the first cannot be forked: {reason}",
            name=self._spec.load.model_name,
            version=self._spec.load.model_version,
            reason=reason,
        )
        self._start_waiting()

    def template_formed(self, link: TemplateLink, successor: ForkedProcess) -> None:
        """Fork the waiting workers from the first; see `TemplateOwner`."""
        if self._closed:
            link.close()
            return
        self._template = link
        successor.launch.worker.shares_weights = True
        self._start_waiting()

    def template_lost(self, link: TemplateLink, why: str) -> None:
        """Have the next worker load again; see `TemplateOwner`."""
        if link is self._template:
            self._template = None
            _log.warn(
                "The template of {name} {version} has ended, and its workers with it; the next worker loads again.",
                name=self._spec.load.model_name,
                version=self._spec.load.model_version,
            )

    def _begin(self, launch: Launch) -> None:
        if self._template is not None and self._template.is_open:
            launch.worker.shares_weights = True
            self._fork(self._template, launch, None)
        elif self._first is not None:
            self._waiting.append(launch)
        elif self._shares and _may_be_forkable(launch):
            self._begin_first(launch)
        else:
            self._root.link().addCallback(self._begin_unshared, launch)

    def _begin_unshared(self, link: TemplateLink | None, launch: Launch) -> None:
        if not launch.worker.waiting:
            return
        with attempt(launch.worker):
            if link is None:
                self._fallback.begin(launch)
            else:
                self._fork(link, launch, _environment(launch))

    def _begin_first(self, launch: Launch) -> None:
        self._first = launch
        launch.worker.loaded.addErrback(self._first_failed, launch)
        self._root.link().addCallback(self._fork_first, launch)

    def _fork_first(self, link: TemplateLink | None, launch: Launch) -> None:
        if not launch.worker.waiting:
            return
        if link is None:
            with attempt(launch.worker):
                self._fallback.begin(launch)
            self._start_waiting()
        else:
            with attempt(launch.worker):
                self._fork_template(link, launch)

    def _fork_template(self, link: TemplateLink, launch: Launch) -> None:
        """Fork the worker that may become the template of the others."""
        future = TemplateLink(self, self._reactor)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with ours, theirs:
                ours.setblocking(False)
                self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, AdoptedFactory(future))
                process = self._fork(link, launch, _environment(launch), theirs)
        except BaseException as e:
            if future.connected:
                future.abort("there is no process")
            if not isinstance(e, OSError) or not launch.worker.waiting:
                raise
            launch.worker.fail_to_start(socket_error_text(e))
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
        """
        Ask a template to fork a worker and send the worker its load message.

        :param environment: The environment of a worker that loads its model itself; ``None`` for a template that has
            loaded the model.
        :param control: The control socket of a worker that may become a template.
        """
        try:
            process = ForkedProcess(self._reactor, next(self._numbers), launch, link)
        except OSError as e:
            launch.worker.fail_to_start(socket_error_text(e))
            return None
        forkable = control is not None
        message = Fork(process.number, _process_name(launch), environment, forkable)
        try:
            link.fork(process, message, None if control is None else control.detach())
        except BaseException as e:
            process.fork_failed(f"{type(e).__name__}: {e}")
            raise
        process.undecided = forkable
        launch.worker.begin(None, launch.load)
        return process

    def _first_failed(self, failure: Failure, launch: Launch) -> Failure:
        if launch is self._first:
            waiting = self._take_waiting()
            error = failure.value
            for each in waiting:
                if not each.worker.waiting:
                    continue
                if launch.worker.stopping or not isinstance(error, WorkerFailed):
                    with attempt(each.worker):
                        self._begin(each)
                else:
                    each.worker.fail_to_start(error.message, error.status)
        return failure

    def _start_waiting(self) -> None:
        """Start the waiting workers: it is known now whether there is a template."""
        for each in self._take_waiting():
            if each.worker.waiting:
                with attempt(each.worker):
                    self._begin(each)

    def _take_waiting(self) -> list[Launch]:
        self._first = None
        self._waiting, waiting = [], self._waiting
        return waiting

    def _worker_lost(self, how: str) -> str:
        self._members -= 1
        if not self._members and self._template is not None and not self._closed:
            self._lingering = self._reactor.callLater(LINGER, self._linger_expired)
        return how

    def _linger_expired(self) -> None:
        self._lingering = None
        self._close_template()

    def _cancel_linger(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None


def _may_be_forkable(launch: Launch) -> bool:
    """Return whether a worker may be forkable: it uses no GPU and its handler runs no event loop."""
    return launch.placement.gpu_id is None and not launch.load.asynchronous


def _environment(launch: Launch) -> dict[str, str]:
    return worker_environment(launch.spec.environment, launch.spec.model_dir)
