# SPDX-License-Identifier: Apache-2.0
"""
Run a server under ``twistd twisted-serve``, with the same settings.
"""

from __future__ import annotations

import atexit
import os
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from twisted.logger import Logger, globalLogPublisher
from twisted.python import usage

from twisted_serve.command.one_line import program, refuse
from twisted_serve.command.other_user import as_user, changes_user
from twisted_serve.config.arguments import parse_command_line, settings_parser
from twisted_serve.config.load import LaunchError, LoadedOptions, load_options
from twisted_serve.config.values import ConfigError
from twisted_serve.logs.host_log import HostLog

if TYPE_CHECKING:
    from twisted_serve.command.privileged_ports import PrivilegedPorts
    from twisted_serve.command.run import Server
    from twisted_serve.command.twistd import Hosted
    from twisted_serve.endpoints import Endpoint
    from twisted_serve.interfaces import IServeReactor
    from twisted_serve.service import ModelServer

_log = Logger("twisted_serve.server")

_EPILOG = "Options of twistd itself, such as --nodaemon, --pidfile and --logfile, come before the word twisted-serve."

#: The options of the ``twisted-serve`` command that ``twistd`` has no use for, and what has their place.
ELSEWHERE = {
    "--start": "twistd starts servers in the background by itself",
    "--foreground": "twistd has --nodaemon for it",
    "--stop": "end twistd by the pid in its pid file",
    "--version": "twisted-serve --version tells it",
    "-v": "twisted-serve --version tells it",
    "--print-config": "twisted-serve --print-config prints it",
    "--log-config": "twistd has --logfile, --syslog and --logger for its log",
    "--cpp-log-config": "it has no effect anywhere",
}

#: The settings about the log, which is twistd's here.
WITHOUT_EFFECT = (
    "log_files",
    "metrics_location",
    "log_format",
    "log_level",
    "log_levels",
    "log_rotate_size",
    "log_rotate_keep",
    "log_config",
)


class _Parser(ArgumentParser):
    """A parser that refuses an invalid command line in one line."""

    def error(self, message: str) -> NoReturn:
        hints = [ELSEWHERE[name] for word in message.split() if (name := word.partition("=")[0]) in ELSEWHERE]
        refuse(f"{message} ({hints[0]})" if hints else message)


class Options(usage.Options):
    """
    The command line after ``twistd twisted-serve``.

    :ivar loaded: The resulting settings; paths are relative to the directory in which ``twistd`` will run.
    """

    loaded: LoadedOptions

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse the command line, and load all settings.

        :raise SystemExit: with one line, when the command line or a setting is invalid; and for ``--help``.
        """
        command = parse_command_line(list(options or ()), settings_parser(_Parser, program(), _EPILOG))
        parent: Mapping[str, Any] = self.parent or {}
        directory = Path(parent.get("rundir") or ".").absolute()
        if not directory.is_dir():
            refuse(f"--rundir directory not found: {parent['rundir']}")
        if parent.get("euid") and parent.get("uid") is not None:
            refuse("--euid would let models' code become root again; --uid alone does not")
        try:
            # The files may belong to the user that the server will run as, and so may what they name.
            self.loaded = as_user(parent, load_options, command, os.environ, directory)
        except LaunchError as e:
            refuse(str(e))
        except ConfigError as e:
            refuse(f"Invalid configuration: {e}")


def make_server(reactor: IServeReactor, loaded: LoadedOptions, ports: PrivilegedPorts | None = None) -> ModelServer:
    """
    Build a server.

    :param ports: Ports that are opened before the server starts.
    :raise PluginError: for a plug-in that cannot be served.
    """
    # Imported here, because an invalid command line needs none of these.
    from twisted_serve.assembly.dependencies import taken_secrets  # noqa: PLC0415
    from twisted_serve.eventloop.monotonic import use_steady_clock  # noqa: PLC0415
    from twisted_serve.planes.snapshots import SnapshotFolder  # noqa: PLC0415
    from twisted_serve.service import Dependencies, ModelServer  # noqa: PLC0415

    # Before plug-ins are imported: they need no keys.
    environ = taken_secrets(os.environ)
    use_steady_clock(reactor)
    options, plan = loaded.options, loaded.snapshots
    folder = None if plan is None else SnapshotFolder(plan.directory, plan.settings, options.snapshots_kept)
    endpoints: tuple[Endpoint, ...] = ()
    if options.plugins_path is not None or options.plugins:
        from twisted_serve.plugins.discovery import find_endpoints  # noqa: PLC0415 - 0.4 MB that few servers need

        endpoints = find_endpoints(options.plugins_path, options.plugins)
    listening = reactor if ports is None else cast("IServeReactor", ports)
    return ModelServer(listening, options, Dependencies(snapshots=folder, endpoints=endpoints, environ=environ))


def makeService(options: Options) -> Hosted:
    """
    Build the service for ``twistd``, on the reactor that ``twistd`` has installed.

    :raise SystemExit: with one line, for a plug-in that cannot be served.
    """
    # Imported here, because an invalid command line needs none of these.
    from twisted.internet import reactor as chosen  # noqa: PLC0415 - importing it is choosing it

    from twisted_serve.command.describing import write_run_file  # noqa: PLC0415
    from twisted_serve.command.privileged_ports import PrivilegedPorts  # noqa: PLC0415
    from twisted_serve.command.run_file import RunFile  # noqa: PLC0415
    from twisted_serve.command.twistd import Hosted  # noqa: PLC0415
    from twisted_serve.listening.ports import plan_grpc_listeners, plan_listeners  # noqa: PLC0415

    reactor, loaded, ports = cast("IServeReactor", chosen), options.loaded, None
    parent: Mapping[str, Any] = options.parent or {}
    if changes_user(parent):
        planned = (*plan_listeners(loaded.options), *plan_grpc_listeners(loaded.options))
        ports = PrivilegedPorts(reactor, [listener.address for listener in planned])
    make = partial(make_server, reactor, loaded, ports)
    run_file = RunFile(os.environ)

    def listening(server: Server) -> Callable[[], None]:
        write_run_file(run_file, server, loaded.options, hosted=True)
        # Also if the process ends without stopping its services.
        atexit.register(run_file.remove)
        return run_file.remove

    hosted = Hosted(reactor, make, loaded.options.startup_models_required, ports, listening)
    if ports is None:
        # Otherwise it is made by the other user: root must not run that user's plug-ins.
        try:
            hosted.server  # noqa: B018
        except ValueError as e:
            refuse(str(e))
    # Before twistd adds its observers, which then get the events as this one leaves them.
    globalLogPublisher.addObserver(HostLog(lambda: hosted.secrets))
    ignored = [f"{key} in {loaded.sources[key]} has no effect" for key in WITHOUT_EFFECT if key in loaded.sources]
    for warning in (*loaded.warnings, *(f"{line}: the log is twistd's" for line in ignored)):
        _log.warn("{warning}", warning=warning)
    return hosted
