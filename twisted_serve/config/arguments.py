# SPDX-License-Identifier: Apache-2.0
"""
Parse the command lines of ``twisted-serve`` and ``twistd twisted-serve``, which share most options.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen


@frozen
class CommandLine:
    """
    The arguments of a command line; ``None`` or ``False`` for those not given (``docs/torchserve/config_cli.md`` §1.1).

    :ivar ready_fd: The descriptor on which a server in the background reports to its launcher.
    :ivar named: A word for programs that recognise a server by its command line; it has no other effect.
    """

    version: bool = False
    start: bool = False
    stop: bool = False
    print_config: bool = False
    foreground: bool = False
    ts_config: Path | None = None
    model_store: Path | None = None
    workflow_store: Path | None = None
    models: tuple[str, ...] = ()
    log_config: Path | None = None
    cpp_log_config: Path | None = None
    no_config_snapshots: bool = False
    plugins_path: str | None = None
    disable_token_auth: bool = False
    enable_model_api: bool = False
    ready_fd: int | None = None
    named: str | None = None


def parser(
    kind: type[ArgumentParser] = ArgumentParser, prog: str = "twisted-serve", epilog: str | None = None
) -> ArgumentParser:
    """
    Create the parser of the ``twisted-serve`` command; ``kind`` handles an invalid command line.

    :param epilog: The end of the help, with its own line ends.
    """
    made = kind(
        prog=prog,
        description="Serve PyTorch models.",
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
    )
    action = made.add_mutually_exclusive_group()
    action.add_argument("-v", "--version", action="store_true", help="print the version and exit")
    action.add_argument("--start", action="store_true", help="start the server; so does giving no action at all")
    action.add_argument("--stop", action="store_true", help="stop the server")
    action.add_argument(
        "--print-config", action="store_true", help="print every setting and where it comes from, and exit"
    )
    made.add_argument("--foreground", action="store_true", help="run the server in this process, not in the background")
    _add_settings(made)
    made.add_argument(
        "--log-config", type=Path, metavar="FILE", help="Python's logging as YAML, or log4j2's XML or properties"
    )
    made.add_argument("--cpp-log-config", type=Path, metavar="FILE", help="accepted, without effect")
    made.add_argument("--ready-fd", type=int, help=SUPPRESS)
    made.add_argument("--named", help=SUPPRESS)
    return made


def settings_parser(kind: type[ArgumentParser], prog: str, epilog: str) -> ArgumentParser:
    """Create the parser of a program that only runs servers: the options that say what is served."""
    made = kind(prog=prog, description="Serve PyTorch models.", epilog=epilog)
    _add_settings(made)
    return made


def _add_settings(made: ArgumentParser) -> None:
    made.add_argument("--ts-config", type=Path, metavar="FILE", help="the configuration file")
    made.add_argument("--model-store", type=Path, metavar="DIR", help="the directory of archives and models")
    made.add_argument("--workflow-store", type=Path, metavar="DIR", help="the directory of workflow archives")
    made.add_argument("--models", nargs="+", metavar="MODEL", help="what to load at start: all, or [name=]location …")
    made.add_argument("--no-config-snapshots", "--ncs", action="store_true", help="neither read nor write snapshots")
    made.add_argument("--plugins-path", "--ppath", metavar="DIR", help="a directory of plug-ins")
    made.add_argument("--disable-token-auth", "--dt", action="store_true", help="accept every request, without a key")
    made.add_argument("--enable-model-api", action="store_true", help="let clients register and unregister models")


def parse_command_line(arguments: Sequence[str], made: ArgumentParser) -> CommandLine:
    """
    Parse a command line.

    :param made: The :func:`parser`; it exits, or raises, for an invalid command line.
    """
    values = vars(made.parse_args(arguments))
    return CommandLine(**{**values, "models": tuple(values["models"] or ())})
