# SPDX-License-Identifier: Apache-2.0
"""
Give a sub-command its server: the options that say which one, its addresses and keys, and requests to it.

A command is a function decorated with `with_server`; its first argument is a `Session`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote, urlencode

import click
from attrs import evolve, field, frozen

from twisted_serve.command.run_file import RunningServer, running_servers
from twisted_serve.config.addresses import Address
from twisted_serve.subcommands.addressing import TlsTrust, parse_url
from twisted_serve.subcommands.client import Answer, Client
from twisted_serve.subcommands.finding import find_server, server_at
from twisted_serve.subcommands.keys import given_key, key_in_file
from twisted_serve.subcommands.outcomes import Failed, NoServer
from twisted_serve.subcommands.output import Output

P = ParamSpec("P")
R = TypeVar("R")

# Seconds; a registration that waits for its workers has its own.
TIMEOUT = 60.0


@frozen
class Choice:
    """
    Which server was asked for, and how.

    :ivar url: An address, instead of the server of a run file.
    :ivar key: The key that was given.
    :ivar pid: The process of the server.
    """

    url: str | None = None
    key: str | None = None
    pid: int | None = None
    timeout: float = TIMEOUT
    trust: TlsTrust = field(factory=TlsTrust)


class Session:
    """
    One command's dealings with one server.

    :ivar choice: Which server is asked, and how.
    :ivar out: The output of the command.
    """

    def __init__(self, choice: Choice, out: Output) -> None:
        self.choice = choice
        self._clients: dict[str, Client] = {}
        self.out = out

    @cached_property
    def server(self) -> RunningServer | None:
        """
        The server of the run file; ``None`` for a server at ``--url`` that is not one of this user's.

        :raise NoServer: when none is meant, or several may be.
        """
        if self.choice.url is None:
            return find_server(os.environ, Path.cwd(), self.choice.pid)
        return server_at(str(self._url), running_servers(os.environ)[0])

    @cached_property
    def _url(self) -> Address:
        try:
            return parse_url(self.choice.url or "")
        except ValueError as e:
            raise click.BadParameter(str(e), param_hint="--url") from e

    def address(self, role: str) -> Address:
        """
        Return the address of a role: ``inference``, ``management`` or ``metrics``; the one of ``--url`` for all.

        :raise NoServer: when the server has none, or one that cannot be connected to.
        """
        if self.choice.url is not None:
            return self._url
        server = self.server
        text = "" if server is None else server.addresses.get(role, "")
        try:
            return parse_url(text)
        except ValueError as e:
            said = f"its {role} address is {text}" if text else f"it has no {role} address"
            raise NoServer(f"The server cannot be asked: {said}; name an address with --url.") from e

    def key(self, kind: str) -> str | None:
        """
        Return the key for requests of a kind: the given one, else the server's own.

        :param kind: ``inference``, ``management`` or ``API``.
        :raise Failed: when there is none although the server needs one.
        """
        given = given_key(self.choice.key)
        if given is not None:
            return given
        return None if self.server is None else key_in_file(kind, self.server)

    def authorization(self, kind: str) -> dict[str, str]:
        """Return the header with the key for requests of a kind, if there is one."""
        key = self.key(kind)
        return {} if key is None else {"Authorization": f"Bearer {key}"}

    @property
    def timeout(self) -> float:
        """The seconds of each wait for the server."""
        return self.choice.timeout

    @property
    def trust(self) -> TlsTrust:
        """How the server's certificate is checked."""
        server, trust = self.server, self.choice.trust
        pinned = None if server is None else server.certificate
        return TlsTrust(trust.authority, trust.insecure, pinned, trust.client)

    def new_client(self, role: str, timeout: float | None = None) -> Client:
        """Return a client of a role's address, with a connection of its own: one for each thread."""
        return Client(self.address(role), self.trust, timeout or self.timeout)

    def client(self, role: str) -> Client:
        """Return the client of a role's address that this session keeps."""
        if role not in self._clients:
            self._clients[role] = self.new_client(role)
        return self._clients[role]

    def ask(
        self,
        role: str,
        method: str,
        target: str,
        *,
        kind: str | None = None,
        query: Mapping[str, object] | None = None,
        members: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        timeout: float | None = None,
        authorized: bool = True,
    ) -> Answer:
        """
        Send a request and return its answer, whatever its status.

        :param target: The path, as `path_of` makes it.
        :param kind: The kind of the key; the role's by default.
        :param query: Parameters; those that are ``None`` are left out.
        :param members: The body as JSON.
        :param timeout: In seconds, if it is not the command's.
        :param authorized: Whether the key is sent.
        :raise Failed: when there is no answer.
        """
        said = {key: value for key, value in (query or {}).items() if value is not None}
        if said:
            target = f"{target}?{urlencode({key: _text(value) for key, value in said.items()})}"
        sent = {**(self.authorization(kind or role) if authorized else {}), **(headers or {})}
        if members is not None:
            body = json.dumps(members).encode()
            sent["Content-Type"] = "application/json"
        client = self.client(role) if timeout is None else self.new_client(role, timeout)
        return client.request(method, target, sent, body)

    def call(self, role: str, method: str, target: str, **rest: Any) -> Answer:
        """
        Send a request as `ask` does, and return its answer below status 400.

        :raise Failed: for any other answer, with the server's message.
        """
        answer = self.ask(role, method, target, **rest)
        refusal = self.refusal(answer, rest.get("kind") or role)
        if refusal is not None:
            raise refusal
        return answer

    def refusal(self, answer: Answer, kind: str) -> Failed | None:
        """Return the error that an answer to a request with the key of a kind is; ``None`` below status 400."""
        return answer.refusal(with_key=answer.status < 400 or self.key(kind) is not None)

    def for_process(self, pid: int) -> Session:
        """Return a session for another server of this user."""
        return Session(evolve(self.choice, url=None, pid=pid), self.out)

    def forget(self) -> None:
        """Find the server anew for the next request: the one before has gone."""
        self.close()
        self._clients.clear()
        self.__dict__.pop("server", None)

    def close(self) -> None:
        """Close all connections that this session keeps."""
        for client in self._clients.values():
            client.close()


def path_of(*segments: str) -> str:
    """Return the path of segments, which may have any characters."""
    return "".join(f"/{quote(each, safe='')}" for each in segments)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_OPTIONS = (
    click.option("--url", envvar="TS_URL", show_envvar=True, help="Ask the server at this address."),
    click.option(
        "--key", envvar="TS_KEY", show_envvar=True, help="The key; other users can see a command line, not TS_KEY."
    ),
    click.option("--pid", type=int, help="Ask the server that is this process."),
    click.option("--cacert", type=click.Path(dir_okay=False), help="Authorities of the server's certificate."),
    click.option("--insecure", is_flag=True, help="Do not check the server's certificate."),
    click.option("--client-cert", type=click.Path(dir_okay=False), help="The client's certificate and private key."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=TIMEOUT,
        show_default=True,
        help="Seconds to wait for the server.",
    ),
)


def with_json(command: Callable[P, R]) -> Callable[P, R]:
    """Add ``--json``, the argument ``as_json`` of a command that needs no server."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def with_server(command: Callable[Concatenate[Session, P], R]) -> Callable[..., R]:
    """Add the options that choose a server, and ``--json``; the command gets a `Session` as its first argument."""

    @wraps(command)
    def run(
        *args: Any,
        url: str | None,
        key: str | None,
        pid: int | None,
        cacert: str | None,
        insecure: bool,
        client_cert: str | None,
        timeout: float,
        as_json: bool,
        **rest: Any,
    ) -> R:
        trust = TlsTrust(cacert, insecure, None, client_cert)
        session = Session(Choice(url, key, pid, timeout, trust), Output(as_json))
        try:
            return command(session, *args, **rest)
        finally:
            session.close()

    decorated: Callable[..., R] = with_json(run)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
