# SPDX-License-Identifier: Apache-2.0
"""
This module implements the server's own template: a process with everything imported and no model, there when needed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from twisted_serve.interfaces import IServeReactor
from twisted_serve.wire.held_back import held_back
from twisted_serve.workers.process.connection import Adopted
from twisted_serve.workers.process.launch import SOCKET, spawned_ends
from twisted_serve.workers.process.process import OUTPUT_WAIT, Exit, Stream, WorkerProcess
from twisted_serve.workers.template.link import TemplateLink
from twisted_serve.workers.template.process import ForkedProcess

# Seconds in which a template has imported everything, however slow the disk.
START_LIMIT = 60.0
# Seconds that one which could not start is left alone; workers start without it.
REST = 60.0
# Seconds that it has to end by itself.
END_LIMIT = 5.0


class RootTemplate:
    """
    The template at the root of all others; started when first needed, and again after it has ended.

    :param command: What to run; the number of the control socket is added.
    :param on_line: Gets each line that it prints.
    """

    _log = Logger("twisted_serve.workers")

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
        self._rests_until = 0.0
        self._limit: IDelayedCall | None = None
        self._how: Exit | None = None
        self._process: WorkerProcess | None = None
        # The present one and those before it that have not ended; for those that have exited,
        # how long their output may still be held open.
        self._processes: dict[WorkerProcess, IDelayedCall | None] = {}
        self._stopping = False
        self._stopped: Deferred[None] = Deferred()

    def link(self) -> Deferred[TemplateLink | None]:
        """Fire with the way to ask it, once it can be asked; with ``None`` if there is none."""
        if self._ready:
            return succeed(self._link)
        if self._stopping or self._reactor.seconds() < self._rests_until:
            return succeed(None)
        waiter: Deferred[TemplateLink | None] = Deferred()
        self._waiting.append(waiter)
        if self._link is None:
            try:
                self._start()
            except Exception as e:
                # Whatever it is, the workers that wait are started without a template.
                self._failed(f"{type(e).__name__}: {e}")
        return waiter

    def stop(self) -> Deferred[None]:
        """End it, and all that it forked; fire when it is gone."""
        self._stopping = True
        if not self._processes:
            return succeed(None)
        if self._link is not None:
            self._link.close()
        self._set_limit(END_LIMIT, self._kill)
        return self._stopped

    def template_ready(self, link: TemplateLink) -> None:
        """See `TemplateOwner`."""
        self._ready = True
        self._clear_limit()
        self._tell(link)

    def template_alone(self, link: TemplateLink, reason: str) -> None:
        """See `TemplateOwner`."""
        link.abort("it has no model to be alone with")

    def template_divided(self, link: TemplateLink, heir: ForkedProcess) -> None:
        """See `TemplateOwner`; it has none."""

    def template_lost(self, link: TemplateLink, why: str) -> None:
        """See `TemplateOwner`."""
        was_ready, self._ready, self._link = self._ready, False, None
        if self._stopping:
            # It is ending its processes, and has a limit for that.
            self._tell(None)
            return
        # Its processes die with it, for certain only if it dies.
        self._kill()
        if was_ready:
            self._log.warn("The template of workers has ended, and they with it; another is started when it is needed.")

    def _start(self) -> None:
        with spawned_ends() as (ours, theirs, nothing):
            link = TemplateLink(self, self._reactor)
            process = WorkerProcess(self._on_line, lambda how: self._exited(process, how), lambda: self._ended(process))
            with held_back():
                transport = self._reactor.spawnProcess(
                    process,
                    self._command[0],
                    self._command,
                    env=dict(self._environment),
                    childFDs={0: nothing, 1: "r", 2: "r", SOCKET: theirs.fileno()},
                )
            process.end_group_of(transport)
            self._process = process
            self._processes[process] = None
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Adopted(link))
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
                self._failed(f"{self._how}: {process.last_words}" if process.last_words else str(self._how))
        if self._stopping and not self._processes:
            self._stopped.callback(None)

    def _failed(self, why: str) -> None:
        self._rests_until = self._reactor.seconds() + REST
        self._log.warn(
            "The template of workers could not start, each worker starts from nothing for {seconds} seconds: {why}",
            seconds=int(REST),
            why=why,
        )
        self._tell(None)

    def _tell(self, link: TemplateLink | None) -> None:
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
