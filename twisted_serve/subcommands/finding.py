# SPDX-License-Identifier: Apache-2.0
"""
Find the server that a command is about: the only one of this user, or the one that was started in this directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted_serve.command.run_file import RunningServer, running_servers
from twisted_serve.subcommands.outcomes import NoServer

Found = tuple[Sequence[RunningServer], Sequence[str]]


def find_server(
    environ: Mapping[str, str], directory: Path, pid: int | None = None, found: Found | None = None
) -> RunningServer:
    """
    Return the running server that is meant.

    :param directory: The working directory.
    :param pid: The process of the server, if it was given.
    :param found: What `running_servers` returns.
    :raise NoServer: when there is none, or several that may be meant.
    """
    servers, problems = running_servers(environ) if found is None else found
    ignored = f" ({'; '.join(problems)})" if problems else ""
    if pid is not None:
        meant = [each for each in servers if each.pid == pid]
        if not meant:
            raise NoServer(f"Process {pid} is no running server of yours{ignored}.{_listed(servers)}")
        return meant[0]
    if not servers:
        raise NoServer(
            f"No server of yours is running{ignored}: start one, or name one with --url or TS_URL, and TS_KEY."
        )
    here = [each for each in servers if _same(each.directory, directory)]
    if len(here) == 1:
        return here[0]
    if len(servers) == 1:
        return servers[0]
    raise NoServer(f"{len(servers)} servers are running: choose one with --pid.{_listed(servers)}")


def server_at(url: str, servers: Sequence[RunningServer]) -> RunningServer | None:
    """Return the server of this user that has an address; no other server gets a key of a key file."""
    for server in servers:
        if url in server.addresses.values():
            return server
    return None


def _same(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _listed(servers: Sequence[RunningServer]) -> str:
    lines = (f"\n  {each.pid}  {each.addresses.get('inference', '-')}  in {each.directory}" for each in servers)
    return "".join(lines)
