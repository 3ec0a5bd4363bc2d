# SPDX-License-Identifier: Apache-2.0
"""
Open the port of a Twisted endpoint.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from twisted_serve.config.endpoints import parse_description
from twisted_serve.interfaces import IServeReactor

# Our own connections instead of Twisted's.
_PROXIED = "haproxy:"

# The positions of the arguments that an endpoint has a value for unless its description has one.
_POSITIONS = {
    "tcp": {"backlog": 2},
    "tcp6": {"backlog": 1},
    "ssl": {"backlog": 5},
    "tls": {"backlog": 2},
    "unix": {"backlog": 2, "mode": 1},
}


def with_defaults(text: str, defaults: dict[str, str]) -> str:
    """
    Return the description of an endpoint with those of its arguments that have no value.

    Twisted's own values would let each user of the machine write to a UNIX socket, and queue 50 connections.
    """
    port = parse_description(text).innermost
    positions = _POSITIONS.get(port.kind, {})
    missing = [name for name, position in positions.items() if not port.argument(name, position)]
    return ":".join((text, *(f"{name}={defaults[name]}" for name in missing)))


def unix_path(text: str) -> str | None:
    """Return the path of the UNIX socket that an endpoint creates, if any."""
    port = parse_description(text).innermost
    return (port.argument("address", 0) or None) if port.kind == "unix" else None


def open_endpoint(reactor: IServeReactor, text: str, factory: Any) -> IListeningPort:
    """
    Open an endpoint that is open at once, as all of Twisted's are.

    :param text: The description of the endpoint.
    :raise CannotListenError: if the address is not available.
    :raise ValueError: for arguments that the endpoint cannot use; nothing stays open.
    """
    # Imported here, because they import TLS and asyncio, and most servers have no endpoint.
    from twisted.internet.endpoints import serverFromString  # noqa: PLC0415

    from twisted_serve.listening.proxied import ProxiedFactory  # noqa: PLC0415

    while text.startswith(_PROXIED):
        text, factory = text.removeprefix(_PROXIED), ProxiedFactory(factory)
    outcome: list[Any] = []
    try:
        opening: Deferred[IListeningPort] = serverFromString(reactor, text).listen(factory)
        opening.addBoth(outcome.append)
    # Parsers of endpoints, those of plug-ins among them, raise what their arguments happen to cause.
    except Exception as e:
        unpassed = isinstance(e, LookupError) and parse_description(text).kind == "systemd"
        raise ValueError("systemd has not passed such a socket to this process" if unpassed else _one_line(e)) from e
    if not outcome:
        _abandon(opening, outcome)
        raise ValueError("it is not open at once")
    [port] = outcome
    if not isinstance(port, Failure):
        return cast(IListeningPort, port)
    if port.check(CannotListenError) is None:
        raise ValueError(_one_line(cast(BaseException, port.value))) from port.value
    raise cast(CannotListenError, port.value)


def _abandon(opening: Deferred[Any], outcome: list[Any]) -> None:
    """Close a port that opens later."""

    def close(_result: None) -> object:
        [port] = outcome
        return None if isinstance(port, Failure) else port.stopListening()

    opening.addCallback(close)
    # Nothing can be done about a port that cannot be closed.
    opening.addErrback(lambda failure: None)
    opening.cancel()


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
