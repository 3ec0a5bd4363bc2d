# SPDX-License-Identifier: Apache-2.0
"""Tests for fronts that return connections: how long that may take, and what is closed if they end before."""

from __future__ import annotations

import socket
from array import array
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.fronts.link import RETURN_LIMIT, Absent, FrontLink
from twisted_serve.interfaces import IServeReactor
from twisted_serve.wire.codec import encode
from twisted_serve.wire.fronts import Delayed, Terms


class Owner:
    """Notes the connections that are lost."""

    def __init__(self) -> None:
        self.lost: list[int] = []

    def front_started(self, link: FrontLink) -> None:
        """See `LinkOwner`."""

    def connection_back(self, absent: Absent, descriptor: int, data: bytes) -> None:
        """See `LinkOwner`."""
        raise AssertionError("no connection has come back whole")

    def connection_lost(self, absent: Absent) -> None:
        """See `LinkOwner`."""
        self.lost.append(absent.number)

    def front_lost(self, link: FrontLink, why: str) -> None:
        """See `LinkOwner`."""


class ReturnTests(SynchronousTestCase):
    """Tests for the server's end."""

    def setUp(self) -> None:
        """Have a front with one connection."""
        self.reactor, self.owner = MemoryReactorClock(), Owner()
        self.killed: list[bool] = []
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(self.theirs.close)
        self.link = FrontLink(
            self.owner,
            cast(IServeReactor, self.reactor),
            ours,
            Terms(1, 1.0, 1.0),
            lambda: self.killed.append(True),
            lambda: None,
        )
        self.link.makeConnection(StringTransport())
        address = IPv4Address("TCP", "127.0.0.1", 1)
        unused = cast(Any, None)
        self.absent = Absent(1, self.link, unused, unused, address, address, None, "127.0.0.1", 0)
        self.link.connections[1] = self.absent
        self.addCleanup(self.link.connectionLost)

    def test_descriptor_closed(self) -> None:
        """A descriptor without the message about its connection is closed when the front has ended."""
        client, connection = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(client.close)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [connection.fileno()]))]
        self.theirs.sendmsg([(1).to_bytes(8, "big")], rights)
        connection.close()
        [reader] = self.reactor.getReaders()
        reader.doRead()
        self.assertIsNotNone(self.absent.descriptor)
        self.link.connectionLost()
        self.assertEqual(self.owner.lost, [1])
        client.setblocking(False)
        self.assertEqual(client.recv(1), b"")

    def test_too_slow(self) -> None:
        """A front that does not return a connection in time is ended."""
        self.absent.call_back()
        self.reactor.advance(RETURN_LIMIT - 0.1)
        self.assertEqual(self.killed, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.killed, [True])

    def test_client_is_slow(self) -> None:
        """A front that waits for a client to read its response is not ended, and is not at the end of the server."""
        self.absent.call_back()
        self.link.dataReceived(encode(Delayed(1)))
        self.reactor.advance(100 * RETURN_LIMIT)
        self.link.finish()
        self.reactor.advance(100 * RETURN_LIMIT)
        self.assertEqual(self.killed, [])

    def test_client_was_slow(self) -> None:
        """The return of a connection that the front has begun by itself is not limited when it is called back, too."""
        self.link.dataReceived(encode(Delayed(1)))
        self.absent.call_back()
        self.reactor.advance(100 * RETURN_LIMIT)
        self.assertEqual(self.killed, [])
