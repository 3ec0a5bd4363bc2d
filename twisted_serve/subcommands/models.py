# SPDX-License-Identifier: Apache-2.0
"""
List, describe, register, scale and unregister models: ``twisted-serve models``.
"""

from __future__ import annotations

import json
from typing import Any

import click

from twisted_serve.subcommands.completing import model_names
from twisted_serve.subcommands.fleet import all_models, members_of, ready_workers, state_of
from twisted_serve.subcommands.session import Session, path_of, with_server
from twisted_serve.subcommands.waiting import PATIENCE, call_patiently

_HEADS = ("model", "version", "default", "workers", "waiting", "state")

_COLORS = {"ready": "green", "loading": "yellow", "failing": "red"}

_MODEL = click.argument("model", shell_complete=model_names)

_NO_WAIT = click.option("--no-wait", is_flag=True, help="Return when it has begun, not when the workers have loaded.")


@click.group()
def models() -> None:
    """List, register, scale and unregister models."""


@models.command(name="list")
@with_server
def list_models(session: Session) -> None:
    """List the models with their versions and workers."""
    found = all_models(session)
    session.out.result({"models": found}, lambda: show_models(session, found))


@models.command()
@_MODEL
@click.argument("version", required=False)
@click.option("--customized", is_flag=True, help="Ask the handler too.")
@with_server
def describe(session: Session, model: str, version: str | None, customized: bool) -> None:
    """Describe a version of a model, the default one if none is named; "all" for every one."""
    path = path_of("models", model, *([version] if version else []))
    said = members_of(session.call("management", "GET", path, query={"customized": customized or None}))

    def human() -> None:
        for each in said:
            _show_members(session, each)

    session.out.result(said, human)


@models.command()
@click.argument("archive", metavar="ARCHIVE|URL")
@click.option("--name", help="The name, if not the archive's.")
@click.option("--handler", help="The handler, if not the archive's.")
@click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Workers to start.")
@click.option("--batch-size", type=click.IntRange(min=1), help="The most requests in one call of the handler.")
@click.option("--max-batch-delay", type=click.IntRange(min=0), help="Milliseconds that a batch may wait to fill.")
@click.option("--response-timeout", type=click.IntRange(min=0), help="Seconds that a worker has for an answer.")
@click.option("--startup-timeout", type=click.IntRange(min=0), help="Seconds that a worker has to load.")
@_NO_WAIT
@with_server
def register(
    session: Session,
    archive: str,
    name: str | None,
    handler: str | None,
    workers: int,
    batch_size: int | None,
    max_batch_delay: int | None,
    response_timeout: int | None,
    startup_timeout: int | None,
    no_wait: bool,
) -> None:
    """Register a model: an archive in the model store, or a URL that the server may fetch."""
    query = {
        "url": archive,
        "model_name": name,
        "handler": handler,
        "initial_workers": workers,
        "batch_size": batch_size,
        "max_batch_delay": max_batch_delay,
        "response_timeout": response_timeout,
        "startup_timeout": startup_timeout,
        "synchronous": not no_wait,
    }
    guessed = name or archive.rstrip("/").rpartition("/")[2].removesuffix(".mar")
    said = call_patiently(session, "POST", path_of("models"), query, guessed, workers)
    session.out.result(said, lambda: session.out.line(str(said.get("status", "Registered"))))


@models.command()
@_MODEL
@click.argument("version", required=False)
@click.option("--min", "least", type=click.IntRange(min=0), required=True, help="Workers to keep running.")
@click.option("--max", "most", type=click.IntRange(min=0), help="The most workers; by default as many as --min.")
@_NO_WAIT
@with_server
def scale(session: Session, model: str, version: str | None, least: int, most: int | None, no_wait: bool) -> None:
    """Change the number of workers of a version, the default one if none is named."""
    path = path_of("models", model, *([version] if version else []))
    query = {"min_worker": least, "max_worker": most, "synchronous": not no_wait}
    said = call_patiently(session, "PUT", path, query, model, least)
    session.out.result(said, lambda: session.out.line(str(said.get("status", "Scaled"))))


@models.command(name="set-default")
@_MODEL
@click.argument("version")
@with_server
def set_default(session: Session, model: str, version: str) -> None:
    """Make a version the default one, which requests without a version get."""
    said = session.call("management", "PUT", path_of("models", model, version, "set-default")).members()
    session.out.result(said, lambda: session.out.line(str(said.get("status", "Done"))))


@models.command()
@_MODEL
@click.argument("version", required=False)
@with_server
def unregister(session: Session, model: str, version: str | None) -> None:
    """Unregister a version, the default one if none is named, when its requests in flight are answered."""
    path = path_of("models", model, *([version] if version else []))
    said = session.call("management", "DELETE", path, timeout=PATIENCE).members()
    session.out.result(said, lambda: session.out.line(str(said.get("status", "Unregistered"))))


def show_models(session: Session, found: list[dict[str, Any]]) -> None:
    """Write a table of models, a line for each version."""
    if not found:
        session.out.line("No models are registered.")
        return
    rows, colors = [], []
    for version in (version for model in found for version in model["versions"]):
        state, reason = state_of(version)
        most = version.get("maxWorkers")
        workers = f"{ready_workers(version)} of {version.get('minWorkers')}"
        if most != version.get("minWorkers"):
            workers += f", at most {most}"
        waiting = version.get("jobQueueStatus", {}).get("pendingRequests")
        default = "yes" if version.get("default") else ""
        shown = f"{state}: {reason}" if reason else state
        rows.append((version["modelName"], version["modelVersion"], default, workers, waiting, shown))
        colors.append(_COLORS.get(state))
    session.out.table(_HEADS, rows, colors)


def _show_members(session: Session, version: dict[str, Any]) -> None:
    workers = version.get("workers", [])
    for key, value in version.items():
        if key == "jobQueueStatus":
            session.out.line(f"{'waiting requests':<25}{value.get('pendingRequests')}")
        elif key != "workers":
            session.out.line(f"{key:<25}{value if isinstance(value, str) else json.dumps(value)}".rstrip())
    rows = [
        (each.get("id"), each.get("pid"), each.get("memoryUsage"), each.get("startTime"), each.get("status"))
        for each in workers
    ]
    if rows:
        session.out.table(("worker", "pid", "memory", "started", "status"), rows)
    for each in workers:
        if "reason" in each:
            session.out.line(f"worker {each['id']}: {each['reason']}", "red")
