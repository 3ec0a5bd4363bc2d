# SPDX-License-Identifier: Apache-2.0
"""
Start the processes of fronts, and replace those that end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from twisted_serve.fronts.link import FrontLink, LinkOwner
from twisted_serve.interfaces import IServeReactor
from twisted_serve.wire.fronts import Terms
from twisted_serve.wire.held_back import held_back
from twisted_serve.workers.process.connection import AdoptedFactory
from twisted_serve.workers.process.launch import SOCKET, import_environment, module_command, open_descriptors
from twisted_serve.workers.process.process import OUTPUT_WAIT, Exit, Stream, WorkerProcess

_log = Logger("twisted_serve.fronts")

# Seconds in which a front must have started; enough for a slow disk.
START_LIMIT: Final = 60.0
# Seconds that a front has to exit by itself.
END_LIMIT: Final = 5.0
# Seconds before a front that has ended is replaced: the first time, and the most after several that did not last.
FIRST_DELAY: Final = 0.1
MOST_DELAY: Final = 30.0
# Seconds after which a front has lasted.
_LASTING: Final = 30.0

# The descriptor, in a front, of the socket over which connections go and come.
_CONNECTIONS: Final = SOCKET + 1


class _Place:
    """The place of one front: its process, and the next one when that has ended."""

    def __init__(self, reactor: IServeReactor, start: Callable[[_Place], None]) -> None:
        self._reactor = reactor
        self._start = start
        self._delay = FIRST_DELAY
        self._began = 0.0
        self._next: IDelayedCall | None = None
        self._limit: IDelayedCall | None = None
        self._link: FrontLink | None = None
        # The process, and earlier ones whose output is held open.
        self._left: set[WorkerProcess] = set()
        self._stopping = False
        self._stopped: Deferred[None] | None = None

    def begin(self) -> None:
        """Start a process; after an error, again in a while."""
        self._next = None
        self._began = self._reactor.seconds()
        try:
            self._start(self)
        except Exception as e:
            self.over(f"{type(e).__name__}: {e}")
        else:
            self._limit = self._reactor.callLater(START_LIMIT, self._kill)

    def has(self, process: WorkerProcess, link: FrontLink) -> None:
        """Note the process that was started, and its link."""
        self._left.add(process)
        self._link = link

    def works(self) -> None:
        """Note that the front has started."""
        self._clear_limit()

    def over(self, why: str) -> None:
        """Start another front after a while, as this one has ended."""
        self._clear_limit()
        if self._stopping:
            return
        if self._reactor.seconds() - self._began > _LASTING:
            self._delay = FIRST_DELAY
        _log.warn("A front has ended, and is replaced: {why}", why=why)
        self._next = self._reactor.callLater(self._delay, self.begin)
        self._delay = min(2 * self._delay, MOST_DELAY)

    def stop(self) -> Deferred[None]:
        """End the process; return a Deferred that fires when it has ended."""
        self._stopping = True
        self._clear_limit()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if not self._left:
            return succeed(None)
        if self._link is not None and self._link.is_open:
            self._link.close()
        self._limit = self._reactor.callLater(END_LIMIT, self._kill)
        self._stopped = Deferred()
        return self._stopped

    def ended(self, process: WorkerProcess) -> None:
        """Note the end of a process and of its output."""
        self._left.discard(process)
        if self._stopped is not None and not self._left:
            self._clear_limit()
            self._stopped.callback(None)

    def _kill(self) -> None:
        for process in list(self._left):
            process.kill()

    def _clear_limit(self) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        self._limit = None


class FrontProcesses(Service):
    """
    The processes of fronts.

    :param number: How many there are.
    :param python: The interpreter that runs them.
    :param owner: Gets their links.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        number: int,
        python: str,
        environment: Mapping[str, str],
        owner: LinkOwner,
        terms: Terms,
    ) -> None:
        self.setName("fronts")
        self._reactor = reactor
        self._command = module_command(
            python, "twisted_serve.fronts", "--messages", str(SOCKET), "--connections", str(_CONNECTIONS)
        )
        self._environment = import_environment(environment)
        self._owner = owner
        self._terms = terms
        self._places = [_Place(reactor, self._start) for _ in range(number)]

    def startService(self) -> None:
        """Start all fronts; until they have started, the server reads and writes all connections itself."""
        super().startService()
        for place in self._places:
            place.begin()

    def stopService(self) -> Deferred[Any]:
        """End all fronts."""
        super().stopService()
        return DeferredList([place.stop() for place in self._places])

    def _start(self, place: _Place) -> None:
        with ExitStack() as stack:
            ours, theirs, devnull = stack.enter_context(open_descriptors())
            connections, their_connections = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.callback(their_connections.close)
            stack.callback(connections.close)

            def exited(how: Exit) -> None:
                closing.append(self._reactor.callLater(OUTPUT_WAIT, process.close_output))
                if link.is_open:
                    link.abort(str(how))
                place.over(str(how))

            def ended() -> None:
                for call in closing:
                    if call.active():
                        call.cancel()
                place.ended(process)

            closing: list[IDelayedCall] = []
            process = WorkerProcess(_log_line, exited, ended)
            with held_back():
                transport = self._reactor.spawnProcess(
                    process,
                    self._command[0],
                    self._command,
                    env=self._environment,
                    childFDs={
                        0: devnull,
                        1: "r",
                        2: "r",
                        SOCKET: theirs.fileno(),
                        _CONNECTIONS: their_connections.fileno(),
                    },
                )
            process.end_group_of(transport)
            # Last, as it owns what it gets; nothing is told of the process before the reactor runs.
            link = FrontLink(self._owner, self._reactor, connections.dup(), self._terms, process.kill, place.works)
            place.has(process, link)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, AdoptedFactory(link))


def _log_line(_stream: Stream, line: str) -> None:
    _log.warn("A front says: {line}", line=line)
