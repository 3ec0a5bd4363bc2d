# SPDX-License-Identifier: Apache-2.0
"""
Run one server in this process, from its start to the exit status.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from twisted_serve.command import signals
from twisted_serve.command.banner import banner
from twisted_serve.command.describing import Listening, write_run_file
from twisted_serve.command.run_file import Writer
from twisted_serve.config.load import LoadedOptions
from twisted_serve.errors import ServeError
from twisted_serve.logs import SERVER_STARTED, SERVER_STOPPED, log_lines
from twisted_serve.logs.setup import open_log

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_serve.interfaces import IServeReactor
    from twisted_serve.planes.startup import StartupOutcome

# Seconds added to ``shutdown_delay`` and ``shutdown_timeout``, after which a server that cannot stop is ended; with
# the defaults this is before ``--stop`` gives up.
STOP_MARGIN = 20.0

# Enough descriptors for a server; a higher limit slows down programs that iterate over all possible descriptors.
MOST_DESCRIPTORS = 1 << 16

_log = Logger("twisted_serve.server")

#: Reports the outcome of a start: ``None`` when the server is ready, else the reason of the failure.
Report = Callable[[str | None], None]


class StartupModelsError(Exception):
    """A start-up model failed, and all of them are required (``startup_models_required``)."""


# Errors of the server's environment; any other error is a bug of the server and is logged with its traceback.
EXPECTED = (OSError, ValueError, ServeError, CannotListenError, StartupModelsError)


class Server(Listening, Protocol):
    """
    The interface of the server to run, :class:`twisted_serve.service.ModelServer`.

    :ivar ready: Fires with a :class:`~twisted_serve.planes.startup.StartupOutcome`, or with ``None``.
    """

    ready: Deferred[Any]

    def startService(self) -> object:
        """Start listening; raise if that fails, with all resources released."""

    def stopService(self) -> Deferred[None]:
        """Stop the server, after the requests in flight."""

    def hurry(self) -> None:
        """Speed up a running stop: cancel the requests in flight."""

    def reload(self) -> None:
        """Reload the files that may change on disk while the server runs."""

    @property
    def secrets(self) -> Collection[str]:
        """The secrets to redact in the log."""


MakeServer = Callable[["IServeReactor", LoadedOptions], Server]


def report_to(descriptor: int | None) -> Report:
    """
    Return a function that reports the outcome of the start to a launcher, once.

    :param descriptor: The descriptor to report to; ``None`` to write failures to stderr.
    """
    told = False
    if descriptor is not None:
        os.set_inheritable(descriptor, False)

    def report(reason: str | None) -> None:
        nonlocal told
        if told:
            return
        told = True
        if descriptor is None:
            if reason is not None:
                sys.stderr.write(f"{reason}\n")
            return
        line = "ready" if reason is None else "failed: " + " ".join(reason.split())
        # The launcher may have exited, which does not affect the server.
        with suppress(OSError), open(descriptor, "w", encoding="utf-8", errors="replace") as status:
            status.write(line + "\n")

    return report


def _nothing() -> None:
    """Do nothing."""


def run_server(
    loaded: LoadedOptions,
    reactor: IServeReactor,
    report: Report,
    begin_logging: Callable[[ILogObserver], None],
    make_server: MakeServer,
    *,
    out: TextIO | None = None,
    started: Callable[[], None] = _nothing,
    run_file: Writer | None = None,
) -> int:
    """
    Run a server until it is asked to stop.

    :param out: The stream for the log and for the line that launchers wait for; stdout by default.
    :param started: Called when the server has started, before it handles what a client sends.
    :param run_file: Written when the server listens, and removed at its end.
    :raise ConfigError: for a ``log_config`` that cannot be used.
    :return: 0 after an orderly stop, 1 when the server could not start.
    """
    stream = sys.stdout if out is None else out
    run = _Run(loaded, reactor, report, make_server, stream, started, run_file)
    begin_logging(run.log.observer)
    raise_descriptor_limit()
    reactor.callWhenRunning(run.begin)
    before = {number: signal.getsignal(number) for number in signals.ALL}
    try:
        with run.log.shortcut():
            reactor.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if run_file is not None:
            run_file.remove()
        run.log.observer.close()
    report("The server was stopped before it was ready.")
    return run.status


class _Run:
    """
    One run of a server.

    :ivar log: The open log.
    :ivar status: The exit status.
    """

    def __init__(
        self,
        loaded: LoadedOptions,
        reactor: IServeReactor,
        report: Report,
        make_server: MakeServer,
        out: TextIO,
        started: Callable[[], None],
        run_file: Writer | None,
    ) -> None:
        self.out = out
        self._started = started
        self._run_file = run_file
        self.log = open_log(loaded.options, out, self.secrets, reactor.callLater)
        self.status = 0
        self._loaded = loaded
        self._reactor = reactor
        self._report = report
        self._make_server = make_server
        self._server: Server | None = None
        self._ending = False
        self._stop_requested = False

    def secrets(self) -> Collection[str]:
        """Return the secrets to redact in the log."""
        return () if self._server is None else self._server.secrets

    def begin(self) -> None:
        """Start the server, in the running reactor."""
        log_lines(_log, __name__, banner(self._loaded, Path.cwd()))
        for warning in (*self._loaded.warnings, *self.log.warnings):
            _log.warn("{warning}", warning=warning)
        try:
            self._server = server = self._make_server(self._reactor, self._loaded)
            # First, so that a signal during the start cannot leave the server's files behind.
            signals.handle(self._reactor, lambda: self._on_stop_signal(server), server.reload)
            server.startService()
            if self._run_file is not None:
                write_run_file(self._run_file, server, self._loaded.options)
            self._started()
        except Exception as e:  # any error must be reported to the launcher
            self._fail(e)
            return
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop, server)
        server.ready.addCallback(self._announce)
        server.ready.addErrback(self._not_ready)

    def _announce(self, outcome: StartupOutcome | None) -> None:
        # A stop also ends the loading of models, and so fires this callback.
        if self._ending:
            return
        problem = None if outcome is None else outcome.problem()
        if problem is not None and self._loaded.options.startup_models_required:
            self._fail(StartupModelsError(problem))
            return
        self.log.observer.flush()
        # A stream that its reader has closed must not stop the server.
        with suppress(OSError):
            self.out.write(f"{SERVER_STARTED}\n")
            self.out.flush()
        if problem is not None:
            # After the line that scripts wait for, so that it is the last one of the start.
            _log.error("{problem}", problem=problem)
            self.log.observer.flush()
        # Last, so that the launcher finds the line in the log.
        self._report(None)

    def _not_ready(self, failure: Failure) -> None:
        # A server that is stopped before it was ready has not failed.
        if not self._ending and failure.value is not None:
            self._fail(failure.value)

    def _fail(self, error: BaseException) -> None:
        self.status = 1
        if not isinstance(error, EXPECTED):
            _log.failure("The server could not start", Failure(error))
        # Flushed first, so that the log is complete when the reason is reported.
        self.log.observer.flush()
        self._report(describe_failure(error))
        self._reactor.stop()

    def _on_stop_signal(self, server: Server) -> None:
        """Stop the server at the first signal, and speed the stop up at the second."""
        if self._stop_requested or self._ending:
            server.hurry()
        else:
            self._stop_requested = True
            self._reactor.stop()

    def _stop(self, server: Server) -> Deferred[None]:
        self._ending = True
        options = self._loaded.options
        limit = options.shutdown_delay + options.shutdown_timeout + STOP_MARGIN
        return server.stopService().addTimeout(limit, self._reactor).addCallbacks(self._stopped, self._stop_failed)

    def _stopped(self, _result: None) -> None:
        _log.info(SERVER_STOPPED)

    def _stop_failed(self, failure: Failure) -> None:
        _log.failure("The server did not stop as it should", failure)


def raise_descriptor_limit() -> None:
    """
    Raise this process's limit of open files and connections to the system's maximum, up to `MOST_DESCRIPTORS`.

    The limit of a login shell is often 1024, clients included; TorchServe's Java raises it in the same way.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        # Some systems have limits that they do not report.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def describe_failure(error: BaseException) -> str:
    """Return the reason why a server did not start, in one line."""
    text = str(error) or type(error).__name__
    return f"Invalid configuration: {text}" if isinstance(error, ValueError) else text
