# SPDX-License-Identifier: Apache-2.0
"""
Open the ports that only root can open, for a server that starts when the process is no longer root's.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from twisted_serve.config.addresses import Address
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.ports import BACKLOG

# Ports below this one are root's, on Linux by default.
UNPRIVILEGED = 1024


class PrivilegedPorts:
    """
    A reactor that listens at the ports which were opened by root.

    Connections that are made before the server listens wait.

    :param addresses: The addresses that the server will listen at; of these, TCP ports below `UNPRIVILEGED` are opened.
    """

    def __init__(self, reactor: IServeReactor, addresses: Iterable[Address]) -> None:
        self._reactor = reactor
        self._wanted = {
            (address.host, address.port)
            for address in addresses
            if address.scheme in ("http", "https") and 0 < address.port < UNPRIVILEGED
        }
        self._open: dict[tuple[str, int], socket.socket] = {}

    def open(self) -> None:
        """
        Open all ports, or none.

        :raise CannotListenError: when a port cannot be opened.
        """
        for host, port in sorted(self._wanted):
            opened = socket.socket(socket.AF_INET6 if isIPv6Address(host) else socket.AF_INET)
            self._open[host, port] = opened
            try:
                # The reactor takes a descriptor as it is.
                opened.setblocking(False)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                opened.bind((host, port))
                opened.listen(BACKLOG)
            except OSError as e:
                self.close()
                raise CannotListenError(host, port, e) from e

    def close(self) -> None:
        """Close the ports at which the server does not listen."""
        while self._open:
            self._open.popitem()[1].close()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """See `IReactorTCP`."""
        opened = self._open.pop((interface, port), None)
        if opened is None:
            return self._reactor.listenTCP(port, factory, backlog, interface)
        with opened:
            return self._reactor.adoptStreamPort(opened.fileno(), opened.family, factory)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
