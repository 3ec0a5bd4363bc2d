# SPDX-License-Identifier: Apache-2.0
"""
Write the run file of a server that has begun to listen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from twisted_serve import __version__
from twisted_serve.auth.given import OPTIONS
from twisted_serve.command.run_file import RunningServer, Writer, namespace, start_of
from twisted_serve.config.options import with_absolute_paths

if TYPE_CHECKING:
    from twisted_serve.config.addresses import Address
    from twisted_serve.config.options import ServerOptions
    from twisted_serve.listening.roles import Role

_log = Logger("twisted_serve.server")


class Listening(Protocol):
    """A server that listens."""

    @property
    def addresses(self) -> Mapping[Role, Address]:
        """The bound HTTP address of each role."""

    @property
    def grpc_addresses(self) -> Mapping[Role, Address]:
        """The same for gRPC."""


def describe_running(server: Listening, options: ServerOptions, *, hosted: bool = False) -> RunningServer:
    """Return this process's server as its run file describes it."""
    options = with_absolute_paths(options, Path.cwd())
    secure = any(address.secure for address in server.addresses.values())
    return RunningServer(
        pid=os.getpid(),
        started=start_of(os.getpid()) or "",
        namespace=namespace(),
        version=__version__,
        directory=os.getcwd(),
        addresses=_by_name(server.addresses),
        grpc_addresses=_by_name(server.grpc_addresses),
        key_file=None if options.disable_token_authorization else str(options.token_key_file),
        given_keys={} if options.disable_token_authorization else _given_keys(options),
        log_directory=str(options.log_location) if options.log_files and options.log_location and not hosted else None,
        log_file=None if hosted else _standard_output(),
        certificate=str(options.certificate_file) if secure and options.certificate_file else None,
        hosted=hosted,
    )


def write_run_file(run_file: Writer, server: Listening, options: ServerOptions, *, hosted: bool = False) -> None:
    """Write the run file; a server that cannot write one runs nevertheless, and logs a warning."""
    try:
        run_file.write(describe_running(server, options, hosted=hosted))
    except OSError as e:
        _log.warn("Sub-commands will need --url: the run file cannot be written: {why}", why=e)


def _by_name(addresses: Mapping[Role, Address]) -> dict[str, str]:
    return {(role.name or "").lower(): str(address) for role, address in addresses.items()}


def _given_keys(options: ServerOptions) -> dict[str, str]:
    paths = {kind.value: getattr(options, setting) for kind, setting in OPTIONS.items()}
    return {kind: str(path) for kind, path in paths.items() if path is not None}


def _standard_output() -> str | None:
    """Return the file that standard output goes to, if it goes to a file."""
    with suppress(OSError):
        path = os.readlink("/proc/self/fd/1")
        if stat.S_ISREG(os.fstat(1).st_mode) and os.path.samestat(os.stat(path), os.fstat(1)):
            return path
    return None
