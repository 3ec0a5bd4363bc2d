# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.web.http.large_bodies`."""

from __future__ import annotations

import contextlib
import random
import socket
import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from tests.eventloop.test_writing import NoTurns
from tests.web.http.channel_case import ChannelTestCase
from twisted_serve.listening.roles import Role
from twisted_serve.web.http.large_bodies import LARGE_BODY, LargeBodyChannel
from twisted_serve.web.http.request import ServeRequest, body_of

BODY = random.Random(1).randbytes(1 << 20)
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"


class Plain(Connection):
    """A connection of a client by TCP, on one end of a pair of sockets."""

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 31337)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing, as this is no socket of TCP."""


class LargeBodyTests(ChannelTestCase):
    """A server with a connection that has a socket."""

    options = {"max_request_size": 3 << 20}

    def setUp(self) -> None:
        super().setUp()
        self.connect_socket()

    def connect_socket(self) -> None:
        ours, self.client = socket.socketpair()
        self.addCleanup(self.client.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        self.client.setblocking(False)
        self.reactor = NoTurns()
        site: Any = self.server.site_of(Role.INFERENCE)
        self.channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 31337))
        reactor: Any = self.reactor
        # The reactor runs delayed calls of this connection at once, like the memory server's.
        reactor.callLater = self.server.clock.callLater
        self.transport: Any = Plain(ours, Protocol(), reactor)
        self.transport.connected = 1
        self.transport.startReading()
        self.transport.protocol = self.channel
        self.channel.makeConnection(self.transport)
        self.answer = b""

    def turn(self) -> object:
        """Let the reactor handle what has come; return what ends the connection, if anything does."""
        done = None
        if self.transport in self.reactor.readers:
            done = self.transport.doRead()
        self.server.advance(0)
        if self.transport in self.reactor.writers and done is None:
            done = self.transport.doWrite()
        with contextlib.suppress(OSError):
            while data := self.client.recv(1 << 16):
                self.answer += data
        return done

    def send(self, data: bytes, most: int = 1 << 17) -> None:
        """Send data in pieces, with turns of the reactor in between."""
        for _ in range(1000):
            if not data:
                break
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                data = data[self.client.send(data[:most]) :]
            self.turn()
        for _ in range(40):
            self.turn()

    def answers(self) -> list[bytes]:
        """Return the bodies of the answers."""
        found, rest = [], self.answer
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            found.append(rest[:length])
            rest = rest[length:]
        return found

    @given(st.integers(1, 1 << 18), st.integers(LARGE_BODY - 1, 1 << 20), st.booleans())
    def test_echo(self, most: int, size: int, pipelined: bool) -> None:
        """A body arrives as it was sent, in whatever pieces, and requests after it are answered in order."""
        self.connect_socket()
        most = max(most, size // 50)
        more = LIVEZ + self.predict(BODY[:size][::-1]) + LIVEZ if pipelined else b""
        self.send(self.predict(BODY[:size]) + more, most)
        answers = self.answers()
        self.assertEqual(answers[0], BODY[:size])
        self.assertEqual(len(answers), 4 if pipelined else 1)
        if pipelined:
            self.assertEqual(answers[2], BODY[:size][::-1])
        self.assertNotIn("doRead", vars(self.transport))

    def test_not_copied(self) -> None:
        """The body that a worker gets is the buffer that was read into."""
        buffers: list[bytes] = []
        body_came = self.channel.body_came

        def seen(data: bytes) -> None:
            buffers.append(data)
            body_came(data)

        self.channel.body_came = seen
        bodies: list[bytes] = []
        process = ServeRequest.process

        def processed(request: ServeRequest) -> None:
            bodies.append(body_of(request))
            process(request)

        self.patch(ServeRequest, "process", processed)
        self.send(self.predict(BODY))
        self.assertEqual(self.answers(), [BODY])
        self.assertIs(bodies[0], buffers[0])

    def test_announced(self) -> None:
        """A length that is only announced takes no memory; what has come takes little more than twice its size."""
        head = self.predict(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % (3 << 20))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.send(head)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 19)
        self.send(b"x" * 300)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 19)
        tracemalloc.reset_peak()
        self.send(BODY)
        self.assertLess(tracemalloc.get_traced_memory()[1], 3 << 20)
        self.assertEqual(self.answer, b"")
        self.assertEqual(self.answers(), [])

    def test_too_large(self) -> None:
        """A body over the limit is refused at its head; what comes of it is dropped."""
        self.send(self.predict(BODY * 4))
        self.assertTrue(self.answer.startswith(b"HTTP/1.1 413 "))
        self.assertEqual(self.answer.count(b"HTTP/1.1"), 1)

    def test_deadline(self) -> None:
        """A client that sends a part is refused after the body timeout, however often it sends."""
        data = self.predict(BODY)
        for number in range(12):
            self.send(data[number * 20_000 : (number + 1) * 20_000])
            self.server.advance(26.0)
        self.turn()
        self.assertTrue(self.answer.startswith(b"HTTP/1.1 408 "), self.answer[:100])
        self.send(data[240_000:])
        self.assertEqual(self.answer.count(b"HTTP/1.1"), 1)

    def test_continue(self) -> None:
        """A client that waits for ``100 Continue`` gets it, and sends the body."""
        data = self.predict(BODY, b"Expect: 100-continue\r\n")
        end = data.find(b"\r\n\r\n") + 4
        self.send(data[:end])
        self.assertTrue(self.answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"))
        self.answer = b""
        self.send(data[end:])
        self.assertEqual(self.answers(), [BODY])

    def test_not_allowed(self) -> None:
        """A request without a key is refused before its body."""
        self.send(self.predict(BODY).replace(b"Bearer ", b"Bearer x"))
        self.assertTrue(self.answer.startswith(b"HTTP/1.1 40"))

    def test_client_leaves(self) -> None:
        """A client that leaves in the middle of a body leaves nothing behind."""
        self.send(self.predict(BODY)[:500_000])
        self.client.close()
        self.assertIs(self.turn(), CONNECTION_DONE)
        self.transport.connectionLost(Failure(ConnectionError()))
        self.assertNotIn("doRead", vars(self.transport))
        self.assertEqual(self.channel.site.channels & {self.channel}, set())

    def test_abort(self) -> None:
        """A connection that is aborted in the middle of a body reads no more."""
        data = self.predict(BODY)
        self.send(data[:500_000])
        self.transport.abortConnection()
        aborted = vars(self.transport)["doRead"]
        self.channel.stop_reading_body()
        self.assertIs(vars(self.transport)["doRead"], aborted)

    def test_left_alone(self) -> None:
        """A channel that does something else meanwhile gets what has come, and reads by itself."""
        data = self.predict(BODY)
        self.send(data[:500_000])
        self.assertIn("doRead", vars(self.transport))
        self.patch(LargeBodyChannel, "awaits_body", property(lambda channel: False))
        self.send(data[500_000:])
        self.assertEqual(self.answers(), [BODY])
