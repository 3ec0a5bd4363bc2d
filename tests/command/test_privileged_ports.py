# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.command.privileged_ports`, with a reactor and sockets in memory.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, cast

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.command.privileged_ports import PrivilegedPorts
from twisted_serve.config.addresses import INFERENCE_PORTS, parse_address
from twisted_serve.interfaces import IServeReactor


class FakeSocket:
    """A socket that remembers where it is bound."""

    made: list[FakeSocket]
    busy: set[int]

    def __init__(self, family: int) -> None:
        self.family = family
        self.bound: tuple[str, int] | None = None
        self.listening = self.closed = False
        self.blocking = True
        self.made.append(self)

    def setblocking(self, blocking: bool) -> None:
        self.blocking = blocking

    def setsockopt(self, *_: int) -> None:
        pass

    def bind(self, address: tuple[str, int]) -> None:
        if address[1] in self.busy:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.bound = address

    def listen(self, backlog: int) -> None:
        self.listening = True

    def fileno(self) -> int:
        return self.made.index(self)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reactor:
    """A reactor that says how it was asked to listen."""

    def listenTCP(self, *arguments: Any) -> Any:
        return ("listenTCP", *arguments)

    def adoptStreamPort(self, *arguments: Any) -> Any:
        return ("adoptStreamPort", *arguments)

    def seconds(self) -> float:
        return 1.0


class PrivilegedPortsTests(SynchronousTestCase):
    """Ports that root opens for a server which is not root's."""

    def setUp(self) -> None:
        FakeSocket.made, FakeSocket.busy = [], set()
        self.patch(socket, "socket", FakeSocket)

    def ports(self, *addresses: str) -> PrivilegedPorts:
        """Make a reactor for these addresses."""
        parsed = [parse_address(address, INFERENCE_PORTS) for address in addresses]
        return PrivilegedPorts(cast(IServeReactor, Reactor()), parsed)

    def test_opened(self) -> None:
        """TCP ports below 1024 are opened, each once, and the server listens there; at others as ever."""
        ports = self.ports(
            "http://0.0.0.0:80", "https://[::1]:443", "http://0.0.0.0:80", "http://127.0.0.1:8080", "http://127.0.0.1:0",
            "unix:/s", "tcp:81",
        )  # fmt: skip
        ports.open()
        self.assertEqual([each.bound for each in FakeSocket.made], [("0.0.0.0", 80), ("::1", 443)])
        self.assertEqual([each.family for each in FakeSocket.made], [socket.AF_INET, socket.AF_INET6])
        self.assertTrue(all(each.listening and not each.blocking for each in FakeSocket.made))
        there: Any = ports.listenTCP(443, "factory", 9, "::1")
        self.assertEqual(there, ("adoptStreamPort", 1, socket.AF_INET6, "factory"))
        elsewhere: Any = ports.listenTCP(8080, "factory", 9, "127.0.0.1")
        self.assertEqual(elsewhere, ("listenTCP", 8080, "factory", 9, "127.0.0.1"))
        # What is listened at is a duplicate; the other one stays open until the server has started.
        self.assertEqual([each.closed for each in FakeSocket.made], [False, True])
        ports.close()
        self.assertTrue(FakeSocket.made[0].closed)
        again: Any = ports.listenTCP(80, "factory", 9, "0.0.0.0")
        self.assertEqual(again[0], "listenTCP")

    def test_busy(self) -> None:
        """A port in use is named, and none stays open."""
        FakeSocket.busy = {443}
        ports = self.ports("http://0.0.0.0:80", "https://127.0.0.1:443")
        with self.assertRaises(CannotListenError) as raised:
            ports.open()
        self.assertEqual(str(raised.exception), "Couldn't listen on 127.0.0.1:443: [Errno 98] Address already in use.")
        self.assertEqual([each.closed for each in FakeSocket.made], [True, True])

    def test_rest(self) -> None:
        """In everything else it is the reactor."""
        self.assertEqual(cast(Any, self.ports()).seconds(), 1.0)
