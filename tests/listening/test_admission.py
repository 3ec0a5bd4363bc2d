# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.listening.admission`."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from twisted_serve.listening.admission import (
    LOG_INTERVAL,
    MOST_REFUSALS,
    REFUSAL_SECONDS,
    Admission,
    Closed,
    connection_limit,
)
from twisted_serve.testing.server import MemoryServer, Role

ANSWER = b"no"

HERE = IPv4Address("TCP", "127.0.0.1", 1)


class Transport(StringTransport):
    """A transport that can be half closed and cut."""

    halved = False
    aborted = False

    def loseWriteConnection(self) -> None:
        self.halved = True

    def abortConnection(self) -> None:
        self.aborted = True


class Port:
    """As much of a port as is paused."""

    connected = True
    disconnecting = False
    reading = True
    numberAccepts = 100

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


class AdmissionTests(SynchronousTestCase):
    """How many connections there may be, and what becomes of one too many."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.counted: list[int] = []
        self.admission = Admission(40, self.clock, self.counted.append)
        self.predictions: set[int] = set()
        self.management: set[int] = set()
        self.admission.watch(self.predictions)
        self.admission.watch(self.management)

    def refuse(self) -> tuple[Any, Transport] | None:
        """Refuse a client."""
        refusal = self.admission.refuse(ANSWER)
        if isinstance(refusal, Closed):
            return None
        transport = Transport()
        refusal.makeConnection(transport)
        return refusal, transport

    @given(st.integers(-1, 1 << 20))
    def test_limit(self, descriptors: int) -> None:
        """Some descriptors are always left for other things than connections, most of them where there are few."""
        limit = connection_limit(descriptors)
        self.assertGreaterEqual(limit, 1)
        if descriptors >= 64:
            self.assertLessEqual(limit + 4 * 2 * MOST_REFUSALS, max(descriptors, 64))
        self.assertLessEqual(connection_limit(64), 16)

    def test_together(self) -> None:
        """The connections of all listeners count together; some are kept for management."""
        self.predictions.update(range(30))
        self.assertTrue(self.admission.admits(predictions=True))
        self.management.update(range(5))
        self.assertFalse(self.admission.admits(predictions=True))
        self.assertTrue(self.admission.admits(predictions=False))
        self.management.update(range(10))
        self.assertFalse(self.admission.admits(predictions=False))

    def test_one_for_management(self) -> None:
        """However few there may be, one is kept for management, unless there is only one."""
        for limit, left in ((2, 1), (1, 1)):
            self.admission.limit = limit
            self.assertTrue(self.admission.admits(predictions=True))
            self.predictions.update(range(left))
            self.assertFalse(self.admission.admits(predictions=True))
            self.assertEqual(self.admission.admits(predictions=False), limit > left)
            self.predictions.clear()

    def test_told(self) -> None:
        """A refused client gets the answer at once, and a moment to read it."""
        refused = self.refuse()
        assert refused is not None
        refusal, transport = refused
        self.assertEqual(transport.value(), ANSWER)
        self.assertTrue(transport.halved)
        refusal.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.clock.advance(REFUSAL_SECONDS / 2)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(REFUSAL_SECONDS / 2)
        self.assertTrue(transport.disconnecting)
        self.assertFalse(transport.aborted)
        refusal.connectionLost()
        self.assertEqual((self.counted, self.admission.refusals), ([503], set()))

    def test_told_over_tls(self) -> None:
        """Over TLS the connection is closed when the answer has gone, and cut if there is no handshake in time."""
        refusal = self.admission.refuse(ANSWER)
        transport = Transport()
        directlyProvides(transport, ISSLTransport)
        refusal.makeConnection(transport)
        self.assertTrue(transport.disconnecting)
        self.assertFalse(transport.halved)
        self.clock.advance(REFUSAL_SECONDS)
        self.assertTrue(transport.aborted)

    def test_closed(self) -> None:
        """A server that ends does not wait for those that it refuses."""
        refused = self.refuse()
        assert refused is not None
        self.admission.close()
        self.assertTrue(refused[1].aborted)

    def test_paused(self) -> None:
        """While many are being told, nothing is accepted; what has been accepted all the same is closed."""
        port = Port()
        self.admission.pause(port)
        self.assertEqual(port.numberAccepts, 1)
        refused = [self.refuse() for _ in range(2 * MOST_REFUSALS)]
        self.assertFalse(port.reading)
        self.assertIsNone(self.refuse())
        port.numberAccepts = 21
        self.clock.advance(0)
        self.assertEqual(port.numberAccepts, 1)
        for each in refused[: MOST_REFUSALS + 1]:
            assert each is not None
            self.assertFalse(port.reading)
            each[0].connectionLost()
        self.assertTrue(port.reading)
        self.assertEqual(len(self.clock.getDelayedCalls()), MOST_REFUSALS - 1)

    def test_not_resumed(self) -> None:
        """A port that has been closed meanwhile is left alone."""
        port = Port()
        self.admission.pause(port)
        refused = [self.refuse() for _ in range(MOST_REFUSALS)]
        port.connected = False
        assert refused[0] is not None
        refused[0][0].connectionLost()
        self.assertFalse(port.reading)

    def test_log(self) -> None:
        """The log has one line a minute, and the number of those that were refused since the last."""
        with capturedLogs() as logs:
            for _ in range(3):
                self.admission.refuse(ANSWER)
            self.clock.advance(LOG_INTERVAL)
            self.admission.refuse(ANSWER)
        self.assertEqual([(each["count"], each["limit"]) for each in logs], [(1, 40), (3, 40)])

    def test_served(self) -> None:
        """A server refuses what is over ``max_connections``, serves those it has, and takes others when these go."""
        server = MemoryServer({"max_connections": 3}, models={"m": {}})
        self.addCleanup(server.close)
        site = server.server.site_of(Role.INFERENCE)
        first, _second = server.connect(), server.connect()
        self.assertEqual(len(site.channels), 2)
        refused, transport = site.buildProtocol(HERE), Transport()
        refused.makeConnection(transport)
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertIn(b"\r\nConnection: close\r\n", transport.value())
        self.assertIn(b'"type": "ServiceUnavailableException"', transport.value())
        first.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertIn(b"HTTP/1.1 200 ", first.received)
        next(iter(site.channels)).connectionLost()
        refused.connectionLost()
        self.assertEqual(len(site.channels), 1)
        server.connect()
        self.assertEqual(len(site.channels), 2)
