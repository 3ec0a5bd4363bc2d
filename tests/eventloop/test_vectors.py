# SPDX-License-Identifier: Apache-2.0
"""Tests for writing in pieces."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.eventloop.test_writing import NoTurns
from twisted_serve.eventloop.vectors import VectorWriter

LARGE = bytes(range(256)) * (1 << 13)


class VectorWriterTests(SynchronousTestCase):
    """Tests for `VectorWriter`, on sockets that are connected with each other."""

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        self.theirs.setblocking(False)
        self.reactor = NoTurns()
        reactor: Any = self.reactor
        self.connection = Connection(ours, Protocol(), reactor)
        self.connection.connected = 1
        self.writer = VectorWriter(self.connection)

    def received(self) -> bytes:
        """Take what has come."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                data += self.theirs.recv(1 << 20)
        return data

    def everything(self) -> bytes:
        """Take what comes until nothing is left to be written."""
        data = self.received()
        for _ in range(10_000):
            if not self.reactor.writers:
                return data
            self.connection.doWrite()
            data += self.received()
        raise AssertionError("the writer never finished")

    def test_interface(self) -> None:
        """It is what a transport asks for more."""
        self.assertTrue(verifyObject(IPullProducer, self.writer))

    def test_at_once(self) -> None:
        """What the socket accepts has been sent before the reactor's next turn."""
        self.writer.write_large([b"a", b"", b"b" * 5000, b"c"])
        self.writer.write([b"d"])
        self.assertEqual(self.received(), b"a" + b"b" * 5000 + b"cd")
        self.assertEqual(self.reactor.writers, set())

    def test_order(self) -> None:
        """Everything is sent in order: what waits, what comes meanwhile, and what comes after."""
        self.writer.write([b"1", b"2"])
        self.writer.write_large([b"3", LARGE, b"4", LARGE, b"5"])
        self.writer.write([b"6"])
        self.writer.write_large([b"7", LARGE])
        self.assertEqual(self.reactor.writers, {self.connection})
        self.assertEqual(self.everything(), b"123" + LARGE + b"4" + LARGE + b"567" + LARGE)
        self.writer.write([b"8"])
        self.writer.write_large([b"9", b"!"])
        self.assertEqual(self.everything(), b"89!")

    def test_many_pieces(self) -> None:
        """More pieces than one call of the system takes are sent."""
        pieces = [b"%d," % number for number in range(3000)]
        self.writer.write_large(pieces)
        self.assertEqual(self.everything(), b"".join(pieces))

    def test_after_buffered(self) -> None:
        """What the transport has buffered goes before."""
        self.connection.write(b"first")
        self.writer.write_large([b"second", LARGE])
        self.assertEqual(self.everything(), b"firstsecond" + LARGE)

    def test_closing(self) -> None:
        """A connection that is closed meanwhile is closed after the rest."""
        self.writer.write_large([LARGE])
        self.connection.loseConnection()
        data = self.received()
        for _ in range(1000):
            done = self.connection.doWrite()
            data += self.received()
            if done is not None:
                break
        self.assertEqual(data, LARGE)

    def test_lost(self) -> None:
        """When the other side has gone, the reactor finds out."""
        self.theirs.close()
        self.writer.write_large([b"lost", LARGE])
        self.assertEqual(self.reactor.writers, {self.connection})
        self.assertIsInstance(self.connection.doWrite(), Exception)

    def test_lost_meanwhile(self) -> None:
        """A rest that cannot be sent is an error of the transport."""
        self.writer.write_large([LARGE])
        self.theirs.close()
        results = [self.connection.doWrite() for _ in range(3)]
        self.assertTrue(any(isinstance(result, Exception) for result in results))

    def test_dropped(self) -> None:
        """A lost connection drops the rest."""
        self.writer.write_large([LARGE])
        self.connection.connectionLost(Failure(ConnectionError()))
        self.writer.write_large([LARGE])
        self.assertEqual(self.reactor.writers, set())

    def test_other_transports(self) -> None:
        """What is no socket is written to as ever."""
        transport = StringTransport()
        writer = VectorWriter(transport)
        writer.write([b"te", b"xt"])
        writer.write_large([b"la", b"rge"])
        self.assertEqual(transport.value(), b"textlarge")
