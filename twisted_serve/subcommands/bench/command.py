# SPDX-License-Identifier: Apache-2.0
"""
Run ``twisted-serve bench``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import IO

import click

from twisted_serve.config.addresses import Address
from twisted_serve.subcommands.addressing import reachable_host
from twisted_serve.subcommands.bench.load import Load, Plan, Target
from twisted_serve.subcommands.bench.report import Figures, size
from twisted_serve.subcommands.client import AGENT
from twisted_serve.subcommands.completing import model_names
from twisted_serve.subcommands.outcomes import ExitStatus
from twisted_serve.subcommands.payload import from_bytes
from twisted_serve.subcommands.session import Session, path_of, with_server

# Seconds that are not counted; less for a short load.
_WARM_UP = 1.0

_ANY_TYPE = "application/octet-stream"

_MOST_CONNECTIONS = 10_000


@click.command()
@click.argument("model", shell_complete=model_names)
@click.argument("file", type=click.File("rb"))
@click.option(
    "-c",
    "--connections",
    type=click.IntRange(1, _MOST_CONNECTIONS),
    default=8,
    show_default=True,
    help="Connections, each with one request at a time.",
)
@click.option(
    "-d",
    "--duration",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds to measure, after a second to warm up.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Requests a second, at equal intervals; by default as many as are answered.",
)
@click.option("--version", help="The version; by default the model's default.")
@click.option("--content-type", help="What FILE is; by default guessed by name and content.")
@with_server
def bench(
    session: Session,
    model: str,
    file: IO[bytes],
    connections: int,
    duration: float,
    rate: float | None,
    version: str | None,
    content_type: str | None,
) -> int:
    """
    Load a model for some seconds, and show rate and latencies.

    MODEL is asked for predictions of FILE, again and again. FILE is a path, or - for standard input; each request
    sends all of it. The figures are of this client: where it needs most of a processor, as for models that answer at
    once, the server can do more than they say.

    Exit status 1: a request was refused, failed, or was not answered.
    """
    body = file.read()
    name = getattr(file, "name", None)
    kind = content_type or from_bytes(body, name if isinstance(name, str) else None).content_type or _ANY_TYPE
    if not (kind.isascii() and kind.isprintable()):
        raise click.BadParameter(f"{kind!r} is no content type", param_hint="--content-type")
    target = path_of("predictions", model, *([] if version is None else [version]))
    headers = {"Content-Type": kind, **session.authorization("inference")}
    # The first request finds out whether there is such a model, and whether the key is good.
    session.call("inference", "POST", target, headers=headers, body=body)
    address = session.address("inference")
    tls = session.trust.context() if address.secure else None
    plan = Plan(
        request_of(address, target, headers, body),
        connections,
        duration,
        min(_WARM_UP, duration / 2),
        session.timeout,
        rate,
    )
    where = (
        Target(path=address.path)
        if address.scheme == "unix"
        else Target(reachable_host(address), address.port, tls=tls)
    )
    with session.out.waiting(f"{model}: {size(len(body))} of {kind} for {duration:g} s"):
        figures = asyncio.run(Load(plan, where).run())
    session.out.result({"model": model, **figures.as_json()}, lambda: _show(session, figures))
    return ExitStatus.FAILED if figures.failed else ExitStatus.DONE


def request_of(address: Address, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a whole request, which is sent again and again."""
    host = "localhost" if address.scheme == "unix" else f"{address.host}:{address.port}"
    said = {"Host": host, "User-Agent": AGENT, **headers, "Content-Length": str(len(body))}
    head = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def _show(session: Session, figures: Figures) -> None:
    for line in figures.lines():
        session.out.line(line)
