# SPDX-License-Identifier: Apache-2.0
"""Tests for writing at once."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.eventloop.writing import write_now


class NoTurns:
    """A reactor which never gets to its next turn, and knows who waits for one."""

    def __init__(self) -> None:
        self.readers: set[object] = set()
        self.writers: set[object] = set()

    def addReader(self, reader: object) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: object) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: object) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:
        self.writers.discard(writer)


class Slow:
    """A producer that only wants to know when it is to pause."""

    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        raise AssertionError("nobody may be resumed in the middle of a write")


class WriteNowTests(SynchronousTestCase):
    """Tests for :func:`write_now`, on sockets that are connected with each other."""

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

    def received(self) -> bytes:
        """Take what has come."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                data += self.theirs.recv(1 << 20)
        return data

    def test_at_once(self) -> None:
        """The other side has it before the reactor's next turn, which has nothing left to do."""
        write_now(self.connection, b"now")
        self.assertEqual(self.received(), b"now")
        self.assertEqual(self.reactor.writers, set())

    def test_order(self) -> None:
        """What was written before goes before."""
        self.connection.write(b"first, ")
        write_now(self.connection, b"second")
        self.assertEqual(self.received(), b"first, second")

    def test_the_rest_waits(self) -> None:
        """What the socket does not take goes with the next turns, whole and in order."""
        data = bytes(range(256)) * (1 << 14)
        write_now(self.connection, data)
        write_now(self.connection, b"end")
        self.assertEqual(self.reactor.writers, {self.connection})
        received = self.received()
        self.assertLess(len(received), len(data))
        for _ in range(10_000):
            if not self.reactor.writers:
                break
            self.connection.doWrite()
            received += self.received()
        self.assertEqual(received, data + b"end")

    def test_slow_client(self) -> None:
        """Whoever produces for a slow client is told to pause, and is not resumed by a write."""
        producer = Slow()
        self.connection.registerProducer(producer, True)
        write_now(self.connection, b"x" * (1 << 22))
        self.assertTrue(producer.paused)
        self.received()
        write_now(self.connection, b"y")
        self.assertEqual(self.reactor.writers, {self.connection})

    def test_nobody_is_troubled(self) -> None:
        """The reactor never hears of what the socket takes at once."""
        self.reactor.addWriter = self.fail  # type: ignore[method-assign,assignment]
        for _ in range(3):
            write_now(self.connection, b"now")
            self.assertEqual(self.received(), b"now")

    def test_full(self) -> None:
        """A small write that a full socket takes in part, or not at all, loses and doubles nothing."""
        sent = b""
        for number in range(10_000):
            data = b"%07d\n" % number * 1000
            write_now(self.connection, data)
            sent += data
            if self.reactor.writers:
                break
        else:
            self.fail("the socket never became full")
        write_now(self.connection, b"end")
        received = b""
        for _ in range(10_000):
            received += self.received()
            if not self.reactor.writers:
                break
            self.connection.doWrite()
        self.assertEqual(received, sent + b"end")

    def test_pull_producer(self) -> None:
        """A producer that waits to be asked for more is asked when all is sent."""

        class Asked(Slow):
            asked = 0

            def resumeProducing(self) -> None:
                self.asked += 1

        producer = Asked()
        self.connection.registerProducer(producer, False)
        before = producer.asked
        write_now(self.connection, b"x")
        self.assertEqual((self.received(), producer.asked - before), (b"x", 1))

    def test_closing(self) -> None:
        """A connection that is about to be closed is left to the reactor, which closes it when all is sent."""
        self.connection.disconnecting = True
        write_now(self.connection, b"last")
        self.assertEqual(self.received(), b"")
        self.assertEqual(self.reactor.writers, {self.connection})

    def test_lost(self) -> None:
        """When the other side has gone, it is the reactor that finds out."""
        self.theirs.close()
        write_now(self.connection, b"lost")
        self.assertEqual(self.reactor.writers, {self.connection})
        self.assertIsInstance(self.connection.doWrite(), ConnectionLost)

    def test_after_the_end(self) -> None:
        """After the end nothing is written, and nothing happens."""
        self.connection.connectionLost(Failure(ConnectionLost()))
        write_now(self.connection, b"late")
        self.assertEqual(self.reactor.writers, set())

    def test_other_transports(self) -> None:
        """What is no socket is written to as ever."""
        transport = StringTransport()
        write_now(transport, b"text")
        self.assertEqual(transport.value(), b"text")
