# SPDX-License-Identifier: Apache-2.0
"""
Run the server's own template process, which has imported everything and loaded no model.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from twisted_serve.interfaces import IServeReactor
from twisted_serve.wire.held_back import held_back
from twisted_serve.workers.process.connection import AdoptedFactory
from twisted_serve.workers.process.launch import SOCKET, open_descriptors
from twisted_serve.workers.process.process import OUTPUT_WAIT, Exit, Stream, WorkerProcess
from twisted_serve.workers.template.link import TemplateLink
from twisted_serve.workers.template.process import ForkedProcess

_log = Logger("twisted_serve.workers")

# Seconds in which a template must have imported everything; enough for a slow disk.
START_LIMIT = 60.0
# Seconds before a template that could not start is started again; until then workers start without it.
RETRY_DELAY = 60.0
# Seconds that a template has to exit by itself.
END_LIMIT = 5.0


class RootTemplate:
    """
    The template that all others are forked from; started on first use, and again after it has ended.

    :param command: The command to run; the descriptor of the control socket is added as ``--fd``.
    :param on_line: Called with the stream and the text of each line that the template prints.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_line: Callable[[Stream, str], None],
    ) -> None:
        self._reactor = reactor
        self._command = [*command, "--fd", str(SOCKET)]
        self._environment = environment
        self._on_line = on_line
        self._link: TemplateLink | None = None
        self._ready = False
        self._waiting: list[Deferred[TemplateLink | None]] = []
        self._retry_at = 0.0
        self._limit: IDelayedCall | None = None
        self._how: Exit | None = None
        self._process: WorkerProcess | None = None
        # The current process and earlier ones that have not ended. For a process that has exited: the delayed call
        # that closes its output if descendants hold it open.
        self._processes: dict[WorkerProcess, IDelayedCall | None] = {}
        self._stopping = False
        self._stopped: Deferred[None] = Deferred()

    def link(self) -> Deferred[TemplateLink | None]:
        """Return a Deferred that fires with the link when the template is ready, or with ``None`` if it is not used."""
        if self._ready:
            return succeed(self._link)
        if self._stopping or self._reactor.seconds() < self._retry_at:
            return succeed(None)
        waiter: Deferred[TemplateLink | None] = Deferred()
        self._waiting.append(waiter)
        if self._link is None:
            try:
                self._start()
            except Exception as e:
                # After any error the waiting workers are started without a template.
                self._failed(f"{type(e).__name__}: {e}")
        return waiter

    def stop(self) -> Deferred[None]:
        """End the template and every process forked from it; return a Deferred that fires when they are gone."""
        self._stopping = True
        if not self._processes:
            return succeed(None)
        if self._link is not None:
            self._link.close()
        self._set_limit(END_LIMIT, self._kill)
        return self._stopped

    def template_ready(self, link: TemplateLink) -> None:
        """Give the link to the waiting callers; see `TemplateOwner`."""
        self._ready = True
        self._clear_limit()
        self._fire_waiting(link)

    def template_impossible(self, link: TemplateLink, reason: str) -> None:
        """Abort the link, a protocol violation; see `TemplateOwner`."""
        link.abort("it has no model to be alone with")

    def template_formed(self, link: TemplateLink, successor: ForkedProcess) -> None:
        """Do nothing: a root template has no successor; see `TemplateOwner`."""

    def template_lost(self, link: TemplateLink, why: str) -> None:
        """Kill the process, so that its forks end with it; see `TemplateOwner`."""
        was_ready, self._ready, self._link = self._ready, False, None
        if self._stopping:
            # The template is ending its processes within `END_LIMIT`.
            self._fire_waiting(None)
            return
        # Only the death of the template guarantees the death of its processes.
        self._kill()
        if was_ready:
            _log.warn("The template of workers has ended, and they with it; another is started when it is needed.")

    def _start(self) -> None:
        with open_descriptors() as (ours, theirs, devnull):
            link = TemplateLink(self, self._reactor)
            process = WorkerProcess(self._on_line, lambda how: self._exited(process, how), lambda: self._ended(process))
            with held_back():
                transport = self._reactor.spawnProcess(
                    process,
                    self._command[0],
                    self._command,
                    env=dict(self._environment),
                    childFDs={0: devnull, 1: "r", 2: "r", SOCKET: theirs.fileno()},
                )
            process.end_group_of(transport)
            self._process = process
            self._processes[process] = None
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, AdoptedFactory(link))
        self._link = link
        self._set_limit(START_LIMIT, self._kill)

    def _exited(self, process: WorkerProcess, how: Exit) -> None:
        self._processes[process] = self._reactor.callLater(OUTPUT_WAIT, process.close_output)
        if process is self._process:
            self._how = how
            self._clear_limit()
            if self._link is not None:
                self._link.abort(str(how))

    def _ended(self, process: WorkerProcess) -> None:
        holding = self._processes.pop(process)
        if holding is not None and holding.active():
            holding.cancel()
        if process is self._process:
            self._process = None
            if self._waiting:
                self._failed(f"{self._how}: {process.last_error_line}" if process.last_error_line else str(self._how))
        if self._stopping and not self._processes:
            self._stopped.callback(None)

    def _failed(self, why: str) -> None:
        self._retry_at = self._reactor.seconds() + RETRY_DELAY
        _log.warn(
            "The template of workers could not start, each worker starts from nothing for {seconds} seconds: {why}",
            seconds=int(RETRY_DELAY),
            why=why,
        )
        self._fire_waiting(None)

    def _fire_waiting(self, link: TemplateLink | None) -> None:
        self._waiting, waiting = [], self._waiting
        for waiter in waiting:
            waiter.callback(link)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _set_limit(self, seconds: float, call: Callable[[], None]) -> None:
        def due() -> None:
            self._limit = None
            call()

        self._clear_limit()
        self._limit = self._reactor.callLater(seconds, due)

    def _clear_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
