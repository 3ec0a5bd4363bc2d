# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.bounded_agent`: servers that send endless headers, in memory."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostResolution, IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived, readBody
from twisted.web.iweb import IResponse
from zope.interface import alsoProvides, implementer

from twisted_serve.archives.bounded_agent import BoundedAgent, HeadTooLargeError

LIMIT = 4096
CHUNK = 65536


@implementer(IHostResolution)
class _Resolver:
    """Resolves each name to one address."""

    name = ""

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int, **_arguments: object) -> Any:
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        raise AssertionError("it is complete")


class _Transport(StringTransport):
    """A transport that records whether it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True

    loseConnection = abortConnection

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Ignore the option, which TLS sets on its transport."""


class AgentTests(SynchronousTestCase):
    """Tests for the limit on a response's headers."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        alsoProvides(self.reactor, IReactorPluggableNameResolver)
        resolver: Any = _Resolver()
        self.reactor.nameResolver = resolver
        self.transport = _Transport()

    def ask(self, url: bytes = b"http://host/m.mar") -> Deferred[IResponse]:
        """Request a URL and connect."""
        asked = BoundedAgent(self.reactor, LIMIT).request(b"GET", url)
        self.reactor.advance(1)
        factory = self.reactor.tcpClients[-1][2]
        self.protocol: Any = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 80))
        self.protocol.makeConnection(self.transport)
        return asked

    def send(self, data: bytes) -> bool:
        """Send data from the server in chunks as a reactor reads them; return whether the connection is still open."""
        for start in range(0, len(data), CHUNK):
            if self.transport.aborted:
                break
            self.protocol.dataReceived(data[start : start + CHUNK])
        return not self.transport.aborted

    def close(self, error: Exception) -> None:
        self.protocol.connectionLost(Failure(error))

    def test_answer(self) -> None:
        """An answer comes through, with its headers and its body, however large the body is."""
        asked = self.ask()
        self.assertIn(b"GET /m.mar HTTP/1.1\r\n", self.transport.value())
        self.assertIn(b"Host: host\r\n", self.transport.value())
        body = b"x" * (10 * CHUNK)
        self.assertTrue(self.send(b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:CHUNK]))
        response = self.successResultOf(asked)
        read = readBody(response)
        self.send(body[CHUNK:])
        self.assertEqual(self.successResultOf(read), body)
        self.assertEqual(response.headers.getRawHeaders(b"A"), [b"b"])

    def test_interim_answers(self) -> None:
        """A few interim answers do no harm."""
        asked = self.ask()
        self.send(
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertEqual(self.successResultOf(asked).code, 200)

    def test_endless(self) -> None:
        """Headers, continuation lines, interim answers or a status line without an end: the connection is aborted."""
        for start, more in (
            (b"HTTP/1.1 200 OK\r\n", b"X-%d: y\r\n"),
            (b"HTTP/1.1 200 OK\r\nX: y\r\n", b"  %d\r\n"),
            (b"", b"HTTP/1.1 100 Continue\r\nX-%d: y\r\n\r\n"),
            (b"HTTP/1.1 200 ", b"%d"),
            (b"HTTP/1.1 200 OK\r\nX: ", b"%d"),
        ):
            self.setUp()
            asked = self.ask()
            self.send(start)
            sent = 0
            while sent < 100 * CHUNK and self.send(piece := more % sent * 100):
                sent += len(piece)
            self.assertLess(sent, LIMIT + 20_000, more)
            self.close(ConnectionAbortedError())
            error = self.failureResultOf(asked).value
            if isinstance(error, HeadTooLargeError):
                self.assertEqual(str(error), f"the head of the answer has more than {LIMIT} bytes")
            else:
                # A line that is too long is Twisted's to see.
                self.assertNotIn(b"\n", more)
                self.assertIsInstance(error, ResponseNeverReceived)

    @given(st.lists(st.integers(1, 2000), min_size=1, max_size=30))
    def test_bound(self, sizes: list[int]) -> None:
        """However a head is cut up, no more is taken than the limit and one piece."""
        self.setUp()
        asked = self.ask()
        self.send(b"HTTP/1.1 200 OK\r\n")
        taken = 17
        for size in sizes:
            before = taken
            self.send(b"X: " + b"y" * size + b"\r\n")
            if self.transport.aborted:
                self.assertGreater(before, LIMIT)
                break
            taken += size + 5
        else:
            self.assertLessEqual(taken - sizes[-1] - 5, LIMIT)
        self.close(ConnectionAbortedError())
        self.failureResultOf(asked)

    def test_other_failures(self) -> None:
        """A server that goes away is a failure like any agent's."""
        asked = self.ask()
        self.close(ConnectionResetError())
        self.failureResultOf(asked, ResponseNeverReceived)

    def test_tls(self) -> None:
        """An ``https`` URL is asked over TLS, its certificate checked; nothing is sent in the clear."""
        self.ask(b"https://host/m.mar")
        self.assertNotIn(b"GET", self.transport.value())
        self.assertEqual(self.reactor.tcpClients[-1][1], 443)
        self.assertEqual(self.transport.value()[:1], b"\x16")
