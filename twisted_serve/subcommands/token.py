# SPDX-License-Identifier: Apache-2.0
"""
Show, rotate and manage keys: ``twisted-serve token``.

A key is on standard output for ``show``, ``rotate`` and ``create``, alone, and nowhere else.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import click

from twisted_serve.subcommands.client import expect
from twisted_serve.subcommands.fleet import pages
from twisted_serve.subcommands.keys import KINDS, key_in_file, own_keys
from twisted_serve.subcommands.moments import parse_expiry, time_left, time_since
from twisted_serve.subcommands.outcomes import Failed, NoServer
from twisted_serve.subcommands.session import Session, path_of, with_server

_HEADS = ("name", "id", "scopes", "rate", "concurrent", "last used", "expires")


@click.group()
def token() -> None:
    """Show, rotate and manage keys."""


@token.command()
@click.argument("kind", type=click.Choice(KINDS, case_sensitive=False))
@click.option("--header", is_flag=True, help="Print the whole Authorization header, for curl -H @-.")
@with_server
def show(session: Session, kind: str, header: bool) -> None:
    """
    Print one of the three keys of a server on this machine, and nothing else.

    \b
    twisted-serve token show inference --header | curl -H @- localhost:8080/ping
    """
    if session.server is None:
        raise NoServer("Only the keys of a server of yours on this machine can be shown; this one is not.")
    key = key_in_file(kind, session.server)
    if key is None:
        raise Failed("This server needs no keys: token authorization is disabled.")
    if session.out.as_json:
        session.out.result({"type": kind, "key": key}, lambda: None)
    else:
        click.echo(f"Authorization: Bearer {key}" if header else key)


@token.command()
@click.argument("name", metavar="KIND|NAME")
@with_server
def rotate(session: Session, name: str) -> None:
    """Replace a key and print the new one: inference, management, or a named key."""
    kind = next((each for each in KINDS if each.lower() == name.lower()), None)
    if kind == "API":
        raise Failed("The API key is replaced by a restart of the server only.")
    if kind is not None:
        answer = session.call("management", "POST", "/token", kind="API", query={"type": kind})
    else:
        answer = session.call("management", "POST", path_of("keys", name, "rotate"), kind="API")
    _tell_new(session, kind or name, answer.members())


@token.command(name="list")
@with_server
def list_keys(session: Session) -> None:
    """List the keys: the three of the server, if their file is on this machine, and the named ones."""
    own = [] if session.server is None else own_keys(session.server)
    problem = None
    try:
        named = list(pages(session, "/keys", "keys", "API"))
    except Failed as e:
        if not own:
            raise
        named, problem = [], e.format_message()
    session.out.result({"keys": named, "own": own}, lambda: _show_keys(session, own, named))
    if problem is not None:
        session.out.note(problem)


_LIMITS = (
    click.option("--expires", help="30d, 12h, a date, an ISO time, or never."),
    click.option("--rate", type=click.IntRange(min=1), help="Requests a minute."),
    click.option("--concurrent", type=click.IntRange(min=1), help="Requests at a time."),
)


def _limits(command: Any) -> Any:
    for option in reversed(_LIMITS):
        command = option(command)
    return command


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    help="inference, inference:MODEL (with * and ?), models:read, models:write, metrics, tokens, console; repeatable.",
)
@_limits
@with_server
def create(
    session: Session,
    name: str,
    scopes: tuple[str, ...],
    expires: str | None,
    rate: int | None,
    concurrent: int | None,
) -> None:
    """Create a named key and print it: it is shown this once."""
    members = {"name": name, "scopes": list(scopes), **_members(expires, rate, concurrent)}
    _tell_new(session, name, session.call("management", "POST", "/keys", kind="API", members=members).members())


@token.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, help="The scopes instead of the present ones; repeatable.")
@_limits
@click.option("--no-rate", is_flag=True, help="No limit of requests a minute.")
@click.option("--no-concurrent", is_flag=True, help="No limit of requests at a time.")
@click.option("--disable/--enable", "disabled", default=None, help="Refuse the key, or accept it again.")
@with_server
def change(
    session: Session,
    name: str,
    scopes: tuple[str, ...],
    expires: str | None,
    rate: int | None,
    concurrent: int | None,
    no_rate: bool,
    no_concurrent: bool,
    disabled: bool | None,
) -> None:
    """Change a named key: scopes, expiry, limits, whether it is accepted."""
    members = _members(expires, rate, concurrent)
    for flag, member in ((no_rate, "rate"), (no_concurrent, "concurrent")):
        if flag:
            members[member] = None
    if scopes:
        members["scopes"] = list(scopes)
    if disabled is not None:
        members["disabled"] = disabled
    if not members:
        raise click.UsageError("Nothing to change: give --scope, --expires, --rate, --concurrent or --disable.")
    said = session.call("management", "PATCH", path_of("keys", name), kind="API", members=members).members()
    session.out.result(said, lambda: _show_keys(session, [], [said]))
    _warn(session, said)


@token.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@with_server
def revoke(session: Session, names: tuple[str, ...]) -> None:
    """Revoke named keys: they are refused from the next request on."""
    revoked = []
    for name in names:
        said = session.call("management", "DELETE", path_of("keys", name), kind="API").members()
        revoked.append(name)
        if not session.out.as_json:
            session.out.line(str(said.get("status", f"Key {name} revoked")))
    session.out.result({"revoked": revoked}, lambda: None)


def _members(expires: str | None, rate: int | None, concurrent: int | None) -> dict[str, object]:
    members: dict[str, object] = {}
    if expires is not None:
        try:
            members |= parse_expiry(expires)
        except ValueError as e:
            raise click.BadParameter(str(e), param_hint="--expires") from e
    if rate is not None:
        members["rate"] = rate
    if concurrent is not None:
        members["concurrent"] = concurrent
    return members


def _show_keys(session: Session, own: list[dict[str, Any]], named: list[dict[str, Any]]) -> None:
    now = datetime.now(timezone.utc)
    rows, colors = [], []
    for each in (*own, *named):
        left = "disabled" if each.get("disabled") else time_left(each.get("expires"), now)
        scopes = " ".join(each["scopes"]) if "scopes" in each else f"the server's {each['name']} key"
        limits = (each.get("rate"), each.get("concurrent"), time_since(each.get("lastUsed"), now))
        rows.append((each.get("name"), each.get("id"), scopes, *limits, left))
        colors.append("red" if left in ("disabled", "expired") else None)
    session.out.table(_HEADS, rows, colors)


def _tell_new(session: Session, name: str, said: dict[str, Any]) -> None:
    session.out.result(said, lambda: click.echo(expect(said, str, "key")))
    if session.out.as_json:
        return
    expires = said.get("expires", said.get("expiration time"))
    left = time_left(expires, datetime.now(timezone.utc))
    session.out.note(f"The key {name} expires {left}." if expires else f"The key {name} does not expire.")
    _warn(session, said)


def _warn(session: Session, said: dict[str, Any]) -> None:
    for warning in said.get("warnings", ()):
        session.out.note(f"Warning: {warning}")
