# SPDX-License-Identifier: Apache-2.0
"""
Parse the addresses of listeners: ``http://host:port``, ``https://host:port``, ``unix:/path``, Twisted's endpoints.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address, ip_address
from typing import Literal, TypeAlias, cast

from attrs import field, frozen
from attrs.validators import in_

from twisted_serve.config.endpoints import Description, flaw_of, parse_description

Scheme: TypeAlias = Literal["http", "https", "unix", "endpoint"]

# The capacity of Linux's sockaddr_un in bytes, without the terminating NUL.
MAX_UNIX_PATH = 107

_TCP = re.compile(
    r"(?P<scheme>https?)://(?:\[(?P<v6>[^\]\s]+)\]|(?P<host>[^\s:/^?#@\[\]\0]+))(?::(?P<port>[0-9]+))?", re.I
)
_UNIX = re.compile(r"unix:(?P<path>/[^\0\r\n]+)", re.I)

# The description of an endpoint; a type is followed by a colon, and a URL by two slashes.
_ENDPOINT = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*:(?!//)[^\0\r\n]*")
# A socket's path is the description of an endpoint if it has one of the arguments of these.
_UNIX_ARGUMENT = re.compile(r":(?:mode|backlog|lockfile)=")
# The endpoints that have a port and an interface, and the position of the interface among their arguments.
_INTERFACE = {"tcp": 1, "tcp6": 2, "ssl": 4}


@frozen
class DefaultPorts:
    """The ports of a listener whose address names none."""

    http: int
    https: int


# ``docs/torchserve/config_cli.md`` §4.1
INFERENCE_PORTS = DefaultPorts(80, 443)
MANAGEMENT_PORTS = DefaultPorts(8081, 8444)
METRICS_PORTS = DefaultPorts(8082, 8445)


@frozen
class Address:
    """
    The address of a listener.

    :ivar host: A name, an IPv4 address, or an IPv6 address without its brackets; empty for ``unix``.
    :ivar port: The TCP port, 0 for any free one; 0 for ``unix``.
    :ivar path: The absolute path of the socket; empty for the other schemes.
    :ivar description: The description of a server endpoint, as for
        `serverFromString <twisted.internet.endpoints.serverFromString>`; empty for the other schemes.
    """

    scheme: Scheme = field(validator=in_(("http", "https", "unix", "endpoint")))
    host: str = ""
    port: int = 0
    path: str = ""
    description: str = ""

    def __attrs_post_init__(self) -> None:
        """Refuse an address that no listener can use."""
        if not 0 <= self.port <= 65535:
            raise ValueError(f"Invalid port number: {self}")
        if self.scheme == "endpoint":
            sound = _ENDPOINT.fullmatch(self.description) is not None and not (self.host or self.port or self.path)
            reason = flaw_of(self.description) if sound else None
            if reason is not None:
                raise ValueError(f"Invalid binding address: {self}: {reason}")
        elif self.scheme == "unix":
            path = self.path.encode(errors="surrogateescape")
            sound = path.startswith(b"/") and len(path) <= MAX_UNIX_PATH and not (self.host or self.port)
        else:
            sound = bool(self.host) and not self.path
        if not sound or (self.description and self.scheme != "endpoint"):
            raise ValueError(f"Invalid binding address: {self}")

    def __str__(self) -> str:
        if self.scheme == "endpoint":
            return self.description
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether the listener uses TLS with the server's certificate; an endpoint has its own, if any."""
        return self.scheme == "https"


def parse_address(text: str, default_ports: DefaultPorts) -> Address:
    """
    Parse an address according to ``docs/torchserve/config_cli.md`` §4.1, with an IPv6 literal in brackets, or the
    description of a Twisted endpoint.

    The arguments of an endpoint are checked when it is opened.

    :raise ValueError: with TorchServe's message, for anything else.
    """
    unix = _UNIX.fullmatch(text)
    if unix is not None and _UNIX_ARGUMENT.search(text) is None:
        return Address("unix", path=unix["path"])
    tcp = _TCP.fullmatch(text)
    if tcp is None:
        # A socket's path is absolute, also in the description of an endpoint.
        if text.startswith("unix:") and unix is None:
            raise ValueError(f"Invalid binding address: {text}")
        return Address("endpoint", description=text)
    host = tcp["host"]
    if host is None:
        try:
            host = str(IPv6Address(tcp["v6"]))
        except AddressValueError as e:
            raise ValueError(f"Invalid binding address: {text}") from e
    scheme = cast(Scheme, tcp["scheme"].lower())
    digits = tcp["port"]
    if digits is None:
        return Address(scheme, host, default_ports.https if scheme == "https" else default_ports.http)
    if len(digits) > 5 or int(digits) > 65535:
        raise ValueError(f"Invalid port number: {text}")
    return Address(scheme, host, int(digits))


def same_listener(a: Address, b: Address) -> bool:
    """
    Return whether two addresses are the same socket.

    ``localhost`` is taken for ``127.0.0.1``, unlike in TorchServe, where the second
    bind fails.  Two listeners on port 0 get a port each.  Endpoints are the same if their descriptions are.
    """
    if "endpoint" in (a.scheme, b.scheme):
        return a == b and not _has_any_port(parse_description(a.description).innermost)
    if "unix" in (a.scheme, b.scheme):
        return a == b
    return a.port == b.port != 0 and _plain_host(a) == _plain_host(b)


def is_loopback(address: Address) -> bool:
    """Return whether only this machine can reach ``address``; ``False`` for an endpoint about which that is unknown."""
    if address.scheme == "endpoint":
        return _is_local(parse_description(address.description))
    if address.scheme == "unix":
        return True
    return _is_loopback_host(address.host)


def _has_any_port(port: Description) -> bool:
    return port.kind in _INTERFACE and port.argument("port", 0).strip("0") == ""


def _is_local(port: Description) -> bool:
    if port.kind == "unix":
        return True
    # A proxy before ``haproxy:`` may be open to the network, and so may be what systemd has opened.
    position = _INTERFACE.get(port.kind)
    if position is None:
        return False
    return _is_loopback_host(port.argument("interface", position))


def _is_loopback_host(host: str) -> bool:
    try:
        return ip_address(_named(host)).is_loopback
    except ValueError:
        return False


def _plain_host(address: Address) -> str:
    return _named(address.host)


def _named(host: str) -> str:
    """Return a host in lower case, and ``localhost`` as its address."""
    host = host.lower()
    return "127.0.0.1" if host == "localhost" else host
