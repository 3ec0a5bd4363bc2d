# SPDX-License-Identifier: Apache-2.0
"""
Take the clients' addresses from the PROXY protocol, which a proxy sends before the first request of a connection.

Twisted parses the protocol. This module adds what a header that is not a proxy's must not do: fill the log.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory


class _Connection(HAProxyProtocolWrapper):
    """A connection through a proxy."""

    def dataReceived(self, data: bytes) -> None:
        """Parse the header, or pass data on; close a connection whose header cannot be parsed."""
        try:
            super().dataReceived(data)
        # Besides the errors that Twisted handles: a port that is no number, an address that is no UTF-8.
        except (ValueError, struct.error):
            if self._proxyInfo is not None:
                raise
            self.loseConnection()

    def getPeer(self) -> IAddress:
        """Return the client's address; the proxy's if the header has none, or a text that is no address."""
        peer = super().getPeer()
        if not isinstance(peer, (IPv4Address, IPv6Address)) or _is_plain(peer.host):
            return peer
        transport: Any = self.transport
        return cast(IAddress, transport.getPeer())


class ProxiedFactory(HAProxyWrappingFactory):
    """Makes connections that begin with the header of the PROXY protocol, in version 1 or 2."""

    protocol = _Connection  # type: ignore[assignment]
    noisy = False


def _is_plain(host: str) -> bool:
    """Return whether a host is an IP address without a scope, which may be any text."""
    try:
        return "%" not in str(ip_address(host))
    except ValueError:
        return False
