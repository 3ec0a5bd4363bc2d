# SPDX-License-Identifier: Apache-2.0
"""
Start a server in the background or the foreground, or stop one: TorchServe's command line.

Flags, lines and exit statuses are TorchServe's (``docs/torchserve/config_cli.md`` §1), except
that a failed start is reported, by a line on stderr and status 1, and that a stopped server
exits with status 0.  No module that needs a reactor is imported before the reactor is
installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import twisted_serve
from twisted_serve.command.checking import check_read_at_start
from twisted_serve.command.launching import passed_sockets, server_command
from twisted_serve.command.other_servers import described, other_servers
from twisted_serve.command.pid_file import AlreadyRunningError, PidFile
from twisted_serve.command.run import Server, report_to
from twisted_serve.command.serving import serve
from twisted_serve.config.arguments import CommandLine, parse_command_line, parser
from twisted_serve.config.load import LaunchError, LoadedOptions, load_options
from twisted_serve.config.report import config_report
from twisted_serve.config.values import ConfigError
from twisted_serve.subcommands import NAMES

if TYPE_CHECKING:
    from twisted_serve.interfaces import IServeReactor

VERSIONS = (
    f"TorchServe Version is {twisted_serve.COMPATIBLE_WITH}\ntwisted_serve Version is {twisted_serve.__version__}"
)
# The end of the help: each sub-command with its summary.
SUB_COMMANDS = "\n".join(
    [
        "sub-commands, each with its own --help:",
        *(f"  {word:<14}{summary}" for word, (_module, _command, summary) in NAMES.items()),
    ]
)

ALREADY_RUNNING = "TorchServe is already running, please use torchserve --stop to stop TorchServe."
NOT_RUNNING = "TorchServe is not currently running."
NOT_OURS = "A server runs in {process}, which twisted-serve has not started: end it as it was started."
STOPPED = "TorchServe has stopped."
STOPPED_BEFORE = "TorchServe already stopped."
STOPPING_TOO_LONG = "Stopping TorchServe took too long."
ORPHAN = "Removing orphan pid file."

# How long ``--stop`` waits, and the interval of its checks, in seconds.
STOP_TIMEOUT = 60.0
_STOP_INTERVAL = 0.05

# Signals that end a launcher besides Ctrl-C: those of its service manager and its terminal.
_ENDING_THE_LAUNCHER = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def launch_or_stop(words: Sequence[str], *, as_torchserve: bool = False) -> int:
    """
    Run the command line.

    :param as_torchserve: Whether programs that look for TorchServe's process must recognise a started server.
    :return: The exit status.
    :raise SystemExit: for an invalid command line, and for ``--help``.
    """
    command = parse_command_line(words, parser(epilog=SUB_COMMANDS))
    if command.version:
        print(VERSIONS)
        return 0
    pid_file = PidFile(Path(tempfile.gettempdir()))
    try:
        if command.print_config:
            return print_config(load_options(command, os.environ, Path.cwd(), only_look=True))
        if pid_file.remove_orphan():
            print(ORPHAN)
        if command.stop:
            return stop(pid_file, command)
        return start(pid_file, command, words, as_torchserve=as_torchserve)
    except LaunchError as e:
        print(e)
    except AlreadyRunningError:
        print(ALREADY_RUNNING)
    except ConfigError as e:
        print(f"Invalid configuration: {e}", file=sys.stderr)
    except OSError as e:
        print(e, file=sys.stderr)
    return 1


def launch_as_torchserve(words: Sequence[str]) -> int:
    """
    Run ``torchserve``: the same command, for scripts that look for TorchServe's server among the processes.

    These scripts expect one process: the word that they look for is in the command line of the server alone.

    :return: The exit status.
    :raise SystemExit: for a wrong command line, and for ``--help``.
    """
    command = parse_command_line(words, parser(prog="torchserve"))
    if command.foreground and command.named is None and not (command.stop or command.version or command.print_config):
        server = server_command(words, as_torchserve=True)
        sys.stdout.flush()
        os.execve(server[0], server, {**os.environ, **passed_sockets()})  # noqa: S606 - our own interpreter
    return launch_or_stop(words, as_torchserve=True)


def print_config(loaded: LoadedOptions) -> int:
    """
    Print all settings, if a server would start with them.

    :raise ConfigError: for an error inside ``models`` or ``model_snapshot``, or in a ``metrics_config`` or
        ``log_config`` that exists on this machine, which are all read at start.
    """
    check_read_at_start(loaded)
    print(config_report(loaded), end="")
    return 0


def stop(pid_file: PidFile, command: CommandLine, sleep: Callable[[float], object] = time.sleep) -> int:
    """
    Stop the server that the pid file names, and wait until it has exited.

    Servers that the file does not name, such as those of ``twistd``, are left alone, and are named on stderr.

    :raise OSError: when it cannot be stopped, e.g. because it belongs to another user.
    """
    process = pid_file.server()
    if process is None:
        if (other := pid_file.torchserve()) is not None:
            print(f"TorchServe itself runs as process {other}; its own torchserve --stop ends it.", file=sys.stderr)
            return 1
        print(NOT_RUNNING, flush=True)
        for other_server in other_servers(pid_file.path.parent):
            print(NOT_OURS.format(process=described(other_server)), file=sys.stderr)
        return 0
    try:
        process.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        print(STOPPED_BEFORE)
        pid_file.remove_orphan()
        return 0
    except psutil.AccessDenied as e:
        raise PermissionError(f"not allowed to stop the process {process.pid}") from e
    for _ in range(round(STOP_TIMEOUT / _STOP_INTERVAL)):
        if _has_exited(process):
            break
        sleep(_STOP_INTERVAL)
    else:
        print(STOPPING_TOO_LONG)
        return 1
    # A server that exited normally has removed the file, and another server may have started since.
    pid_file.remove_orphan()
    if not command.foreground:
        print(STOPPED)
    return 0


def _has_exited(process: psutil.Process) -> bool:
    """Return whether a process has exited, even if its parent has not reaped it yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start(pid_file: PidFile, command: CommandLine, words: Sequence[str], *, as_torchserve: bool = False) -> int:
    """
    Start a server in the background and wait until it is ready, or run it with ``--foreground``.

    :raise ConfigError: when the configuration is invalid.
    :raise AlreadyRunningError: when a server is running already.
    """
    if pid_file.server() is not None:
        raise AlreadyRunningError
    loaded = load_options(command, os.environ, Path.cwd())
    if not command.foreground:
        return launch(server_command(words, as_torchserve=as_torchserve))
    pid_file.claim()
    try:
        return serve(loaded, report_to(command.ready_fd), _make_server)
    finally:
        pid_file.release()


def launch(server: Sequence[str], spawn: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen) -> int:
    """
    Start a server as a child process that shares our output, and wait for its report.

    The server gets a new session, so that the terminal and its input do not affect the server.

    :param server: The command line of the server, without the descriptor to report to.
    :param spawn: Starts a process as :class:`subprocess.Popen` does.
    :return: 0 when the server is ready, 1 when it failed, with the reason on stderr, and 130 when interrupted.
    """
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8", errors="replace") as status:
        try:
            child = spawn([*server, "--ready-fd", str(writing)], pass_fds=(writing,), start_new_session=True)
        finally:
            os.close(writing)
        # A signal that ends the launcher is meant for the server, which is not ready and has not been announced.
        before = {number: signal.getsignal(number) for number in _ENDING_THE_LAUNCHER}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        try:
            line = status.readline().strip()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            return 130
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if line == "ready":
        # The server keeps running without us: this prevents Popen's warning about a child that was not waited for.
        child.returncode = 0
        return 0
    code = child.wait()
    print(line.removeprefix("failed: ") or f"The server ended with status {code}.", file=sys.stderr)
    return 1


def _make_server(reactor: IServeReactor, loaded: LoadedOptions) -> Server:
    from twisted_serve.tap import make_server  # noqa: PLC0415 - what it builds needs the reactor to be chosen

    return make_server(reactor, loaded)
