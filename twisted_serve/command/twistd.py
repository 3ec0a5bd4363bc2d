# SPDX-License-Identifier: Apache-2.0
"""
Run one server in the process of ``twistd`` or ``twist``: signals, the log, failures in one line, the exit status.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Collection
from functools import partial
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from twisted_serve.command import signals
from twisted_serve.command.one_line import in_one_line
from twisted_serve.command.privileged_ports import PrivilegedPorts
from twisted_serve.command.run import EXPECTED, Server, describe_failure, raise_descriptor_limit
from twisted_serve.interfaces import IServeReactor
from twisted_serve.logs import SERVER_STARTED, SERVER_STOPPED
from twisted_serve.system.account import protect_memory

if TYPE_CHECKING:
    from twisted_serve.planes.startup import StartupOutcome

_log = Logger("twisted_serve.server")


class NotStarted(Exception):
    """A server could not start; the message is for the operator."""


class Hosted(Service):
    """
    A server in the process of ``twistd``, which has begun to log, and changed the user if asked to, before the start.

    The reactor itself stops on SIGINT and SIGTERM; a second signal speeds the stop up.

    :param make: Builds the server, at the start at the latest; it may run plug-ins' code.
    :param models_required: Whether a start-up model that fails ends the process with status 1.
    :param ports: The ports that are opened before ``twistd`` changes the user.
    :param listening: Called with the server when it listens; returns a function to call when it has stopped.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        make: Callable[[], Server],
        models_required: bool = False,
        ports: PrivilegedPorts | None = None,
        listening: Callable[[Server], Callable[[], None]] | None = None,
    ) -> None:
        self._reactor = reactor
        self._make = make
        self._server: Server | None = None
        self._ports = ports
        self._listening = listening
        self._forget: Callable[[], None] | None = None
        self._models_required = models_required
        self._asked = False

    @property
    def server(self) -> Server:
        """
        The server.

        :raise ValueError: for a plug-in that cannot be served, when the server is built.
        """
        if self._server is None:
            self._server = self._make()
            self._server.ready.addCallback(self._announce)
        return self._server

    @property
    def secrets(self) -> Collection[str]:
        """The secrets to redact in the log."""
        return () if self._server is None else self._server.secrets

    def privilegedStartService(self) -> None:
        """
        Open the ports that only root can open.

        :raise NotStarted: when one cannot be opened.
        """
        super().privilegedStartService()
        if self._ports is not None:
            try:
                self._ports.open()
            except CannotListenError as e:
                _fail(e)

    def startService(self) -> None:
        """
        Handle signals, and start the server.

        :raise NotStarted: when it cannot start for a reason that the operator can change.
        """
        super().startService()
        protect_memory()
        raise_descriptor_limit()
        try:
            server = self.server
            # First, so that a signal during the start cannot leave the server's files behind.
            signals.handle(self._reactor, self._end, server.reload, ending=[signal.SIGQUIT])
            self._reactor.callWhenRunning(self._count_signals_of_reactor)
            server.startService()
            self._tell_listening(server)
        except EXPECTED as e:
            super().stopService()
            _fail(e)
        finally:
            if self._ports is not None:
                self._ports.close()

    def stopService(self) -> Deferred[None]:
        """Stop the server; the Deferred fires when nothing is left."""
        super().stopService()
        return self.server.stopService().addCallback(self._stopped)

    def _stopped(self, _result: None) -> None:
        if self._forget is not None:
            self._forget()
        _log.info(SERVER_STOPPED)

    def _tell_listening(self, server: Server) -> None:
        """Call ``listening``, once, if the server listens."""
        if self._listening is not None and self._forget is None and server.addresses:
            self._forget = self._listening(server)

    def _announce(self, outcome: StartupOutcome) -> StartupOutcome:
        # A stop also ends the wait for the models.
        if not self.running:
            return outcome
        problem = outcome.problem()
        if problem is not None and self._models_required:
            _log.critical("{problem}", problem=problem)
            atexit.register(_exit_with_failure, os.getpid())
            self._reactor.stop()
            return outcome
        # A server without models is ready before its start returns.
        self._tell_listening(self.server)
        _log.info(SERVER_STARTED)
        if problem is not None:
            _log.error("{problem}", problem=problem)
        return outcome

    def _end(self) -> None:
        if self._asked:
            self.server.hurry()
        else:
            self._asked = True
            self._reactor.stop()

    def _count_signals_of_reactor(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            first = signal.getsignal(number)
            if callable(first):
                signal.signal(number, partial(self._signalled, first))

    def _signalled(
        self, first: Callable[[int, FrameType | None], object], number: int, frame: FrameType | None
    ) -> None:
        if self._asked:
            self._reactor.callFromThread(self.server.hurry)
        else:
            self._asked = True
            first(number, frame)


def _fail(error: Exception) -> NoReturn:
    reason = describe_failure(error)
    # Not critical: under twist, which logs later, stderr would have the line twice.
    _log.error("{reason}", reason=reason)
    _tell_without_traceback()
    raise NotStarted(reason) from None


def _tell_without_traceback() -> None:
    """
    Let `NotStarted` end the program with one line on stderr.

    ``twistd`` lets it through, after it has removed its pid file and told a command that waits in the foreground.
    """
    before = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        if kind is not NotStarted:
            return before(kind, error, trace)
        # Twisted's log has taken sys.stderr.
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{in_one_line(str(error))}\n")
        return None

    sys.excepthook = tell


def _exit_with_failure(owner: int) -> None:
    """Exit with status 1 when the reactor has stopped: ``twistd`` would exit with 0."""
    if os.getpid() == owner:
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        os._exit(1)
