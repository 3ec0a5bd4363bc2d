# SPDX-License-Identifier: Apache-2.0
"""
Show which servers run, their models and their keys: ``twisted-serve status``.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from twisted_serve.command.run_file import running_servers
from twisted_serve.subcommands.finding import find_server
from twisted_serve.subcommands.fleet import all_models
from twisted_serve.subcommands.keys import own_keys
from twisted_serve.subcommands.models import show_models
from twisted_serve.subcommands.moments import time_left
from twisted_serve.subcommands.outcomes import Failed
from twisted_serve.subcommands.session import Session, with_server


@click.command()
@with_server
def status(session: Session) -> None:
    """Show which servers run, with their models and keys."""
    if session.choice.url is not None or session.choice.pid is not None:
        chosen = [session]
    else:
        servers, problems = running_servers(os.environ)
        if not servers:
            find_server(os.environ, Path.cwd(), found=(servers, problems))
        chosen = [session.for_process(server.pid) for server in servers]
    found = []
    for each in chosen:
        try:
            found.append(_look(each))
        finally:
            each.close()

    def human() -> None:
        for number, one in enumerate(found):
            if number:
                session.out.line("")
            _show(session, one)

    session.out.result({"servers": found}, human)


def _look(session: Session) -> dict[str, Any]:
    """Return what there is to say about a server; what cannot be asked has the reason."""
    server = session.server
    said: dict[str, Any] = {"url": session.choice.url} if server is None else _place(server)
    try:
        said["ready"] = session.ask("management", "GET", "/readyz", authorized=False).status == 200
        said["models"] = all_models(session)
    except Failed as e:
        # A key that does not open the models is no reason to show nothing, and so is one server of several.
        if session.server is None and "ready" not in said:
            raise
        said = {"ready": False, **said, "models": [], "problem": e.format_message()}
    if server is not None:
        try:
            said["keys"] = own_keys(server)
        except Failed as e:
            said["keys"], said["keyProblem"] = [], e.format_message()
    return said


def _place(server: Any) -> dict[str, Any]:
    return {
        "pid": server.pid,
        "version": server.version,
        "directory": server.directory,
        "addresses": server.addresses,
        "grpcAddresses": server.grpc_addresses,
        "keyFile": server.key_file,
        "logDirectory": server.log_directory,
    }


def _show(session: Session, said: dict[str, Any]) -> None:
    out = session.out
    ready = "ready" if said["ready"] else "not ready"
    if "pid" in said:
        out.line(f"twisted_serve {said['version']}, process {said['pid']}, in {said['directory']}: {ready}")
        for role, address in said["addresses"].items():
            grpc = said["grpcAddresses"].get(role)
            out.line(f"  {role:<12}{address}" + (f"   gRPC {grpc}" if grpc else ""))
    else:
        out.line(f"{said['url']}: {ready}")
    if "keys" in said:
        now = datetime.now(timezone.utc)
        keys = [f"{each['name']} {_left(each['expires'], now)}" for each in said["keys"]]
        out.line(f"  {'keys':<12}{said.get('keyProblem') or ', '.join(keys) or 'not needed'}")
    if said.get("problem"):
        out.note(f"The models cannot be listed: {said['problem']}")
    else:
        show_models(session, said["models"])


def _left(expires: object, now: datetime) -> str:
    left = time_left(expires, now)
    return left if left == "expired" else f"expires {left}"
