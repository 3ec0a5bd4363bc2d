# SPDX-License-Identifier: Apache-2.0
"""
Split the description of a Twisted server endpoint into its type and arguments, without opening the endpoint.

A description is what `twisted.internet.endpoints.serverFromString` takes: ``tcp:8080:interface=127.0.0.1``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from attrs import field, frozen

# One argument with the colon after it. A backslash takes the special meaning of the next character, and only the first
# equals sign of an argument is special.
_ARGUMENT = re.compile(r"(?:(?P<name>(?:\\.|[^\\:=])*)=)?(?P<value>(?:\\.|[^\\:])*):", re.S)
_ESCAPED = re.compile(r"\\(.)", re.S)

# The types that Twisted has without plug-ins.
_BUILT_IN = frozenset({"tcp", "ssl", "unix"})

# Standard input is one connection and no port; it cannot be closed or opened again.
_NO_PORT = frozenset({"stdio"})

# The types whose connections are encrypted: ``ssl`` with the files that it names, ``tls`` with a directory of them.
_ENCRYPTED = frozenset({"ssl", "tls"})


@frozen
class Description:
    """
    The description of a server endpoint.

    :ivar kind: The type: ``tcp``, ``unix``, …; the name of a parser.
    :ivar positional: The arguments without a name, after the type.
    :ivar named: The arguments by name; the last one counts.
    """

    kind: str
    positional: tuple[str, ...] = ()
    named: Mapping[str, str] = field(factory=dict)

    @property
    def innermost(self) -> Description:
        """The description of the port itself, below any proxy protocol."""
        wrappers = 0
        for kind in (self.kind, *self.positional):
            if kind != "haproxy":
                break
            wrappers += 1
        if not 0 < wrappers <= len(self.positional):
            return self
        return Description(self.positional[wrappers - 1], self.positional[wrappers:], self.named)

    @property
    def encrypted(self) -> bool | None:
        """Whether clients use TLS; ``None`` for the types of plug-ins, about which that is unknown."""
        port = self.innermost.kind
        if port in _ENCRYPTED:
            return True
        return False if port in _BUILT_IN or port in ("tcp6", "systemd") else None

    def argument(self, name: str, position: int, default: str = "") -> str:
        """Return an argument that may be given by name or by position."""
        if name in self.named:
            return self.named[name]
        return self.positional[position] if position < len(self.positional) else default


def parse_description(text: str) -> Description:
    """
    Split a description as Twisted does.

    :raise ValueError: for a text that is no description.
    """
    positional: list[str] = []
    named: dict[str, str] = {}
    at, whole = 0, text + ":"
    while at < len(whole):
        found = _ARGUMENT.match(whole, at)
        if found is None:
            raise ValueError("there is nothing after its last backslash")
        value = _ESCAPED.sub(r"\1", found["value"])
        if found["name"] is None:
            positional.append(value)
        elif found["name"].isascii():
            named[_ESCAPED.sub(r"\1", found["name"])] = value
        else:
            raise ValueError("the name of an argument is not ASCII")
        at = found.end()
    if not positional:
        raise ValueError("it has no type")
    return Description(positional[0], tuple(positional[1:]), named)


def flaw_of(text: str) -> str | None:
    """Return why no endpoint has this description; ``None`` if its types are known, whatever its arguments are."""
    try:
        description = parse_description(text)
    except ValueError as e:
        return str(e)
    known = endpoint_types()
    for kind in (description.kind, description.innermost.kind):
        if kind not in known:
            return f"{kind!r} is no type of endpoint; there are {', '.join(sorted(known))}"
    return None


@lru_cache
def endpoint_types() -> frozenset[str]:
    """Return the types of server endpoints that Twisted and its plug-ins have."""
    # Imported here, because plug-ins import much, and most servers have no endpoint.
    from twisted.internet.interfaces import IStreamServerEndpointStringParser  # noqa: PLC0415
    from twisted.plugin import getPlugins  # noqa: PLC0415

    return _BUILT_IN | {parser.prefix for parser in getPlugins(IStreamServerEndpointStringParser)} - _NO_PORT
