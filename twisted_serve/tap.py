# SPDX-License-Identifier: Apache-2.0
"""
Run a server under ``twistd twisted-serve``, with the same command line.
"""

from __future__ import annotations

import os
import signal
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, cast

from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python import usage

from twisted_serve.command import signals
from twisted_serve.config.arguments import parse_command_line, parser
from twisted_serve.config.load import LaunchError, LoadedOptions, load_options
from twisted_serve.config.values import ConfigError
from twisted_serve.logs import SERVER_STARTED
from twisted_serve.system.account import protect_memory

if TYPE_CHECKING:
    from twisted_serve.endpoints import Endpoint
    from twisted_serve.interfaces import IServeReactor
    from twisted_serve.planes.startup import StartupOutcome
    from twisted_serve.service import ModelServer

_log = Logger("twisted_serve.server")


class _Parser(ArgumentParser):
    """A parser that leaves error messages and exiting to ``twistd``."""

    def error(self, message: str) -> NoReturn:
        raise usage.UsageError(message)


class Options(usage.Options):
    """
    The command line after ``twistd twisted-serve``.

    :ivar loaded: The resulting settings; paths are relative to the directory in which ``twistd`` will run.
    """

    loaded: LoadedOptions

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse the command line, and load all settings.

        :raise usage.UsageError: when the command line is invalid, results in an invalid setting, or has an
            option that only the ``twisted-serve`` command supports.
        """
        command = parse_command_line(list(options or ()), parser(_Parser, "twistd twisted-serve"))
        if command.stop:
            raise usage.UsageError("--stop is for servers that twisted-serve started; end twistd by its own pid file.")
        if command.version:
            raise usage.UsageError("--version is for the twisted-serve command.")
        if command.print_config:
            raise usage.UsageError("--print-config is for the twisted-serve command.")
        parent: Mapping[str, str] = self.parent or {}
        try:
            self.loaded = load_options(command, os.environ, Path(parent.get("rundir", ".")).absolute())
        except LaunchError as e:
            raise usage.UsageError(str(e)) from e
        except ConfigError as e:
            raise usage.UsageError(f"Invalid configuration: {e}") from e


def make_server(reactor: IServeReactor, loaded: LoadedOptions) -> ModelServer:
    """
    Build a server.

    :raise PluginError: for a plug-in that cannot be served.
    """
    # Imported here, because an invalid command line needs none of these.
    from twisted_serve.eventloop.monotonic import use_steady_clock  # noqa: PLC0415
    from twisted_serve.planes.snapshots import SnapshotFolder  # noqa: PLC0415
    from twisted_serve.service import Dependencies, ModelServer  # noqa: PLC0415

    use_steady_clock(reactor)
    options, plan = loaded.options, loaded.snapshots
    folder = None if plan is None else SnapshotFolder(plan.directory, plan.settings, options.snapshots_kept)
    endpoints: tuple[Endpoint, ...] = ()
    if options.plugins_path is not None or options.plugins:
        from twisted_serve.plugins.discovery import find_endpoints  # noqa: PLC0415 - 0.4 MB that few servers need

        endpoints = find_endpoints(options.plugins_path, options.plugins)
    return ModelServer(reactor, options, Dependencies(snapshots=folder, endpoints=endpoints))


class _Signals(Service):
    """
    Protect the process, and handle the signals that ``twistd`` does not handle, before the server starts.

    The reactor itself stops on SIGINT and SIGTERM; a second signal speeds the stop up.
    """

    def __init__(self, reactor: IServeReactor, server: ModelServer) -> None:
        self._reactor = reactor
        self._server = server
        self._asked = False

    def privilegedStartService(self) -> None:
        protect_memory()
        signals.handle(self._reactor, self._end, self._server.reload, ending=[signal.SIGQUIT])
        self._reactor.callWhenRunning(self._count_signals_of_reactor)

    def _end(self) -> None:
        if self._asked:
            self._server.hurry()
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
            self._reactor.callFromThread(self._server.hurry)
        else:
            self._asked = True
            first(number, frame)


def makeService(options: Options) -> ModelServer:
    """Build the service for ``twistd``, on the reactor that ``twistd`` has installed."""
    from twisted.internet import reactor as chosen  # noqa: PLC0415 - importing it is choosing it

    reactor = cast("IServeReactor", chosen)
    for warning in options.loaded.warnings:
        _log.warn("{warning}", warning=warning)
    server = make_server(reactor, options.loaded)

    def ready(outcome: StartupOutcome) -> StartupOutcome:
        # A stop also ends the wait for the models.
        if not server.running:
            return outcome
        problem = outcome.problem()
        if problem is not None and options.loaded.options.startup_models_required:
            _log.critical("{problem}", problem=problem)
            reactor.stop()
            return outcome
        _log.info(SERVER_STARTED)
        if problem is not None:
            _log.error("{problem}", problem=problem)
        return outcome

    server.ready.addCallback(ready)
    _Signals(reactor, server).setServiceParent(server)
    return server
