# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.web.http.site``; its counters and its access log are tested with the routes.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.web.http.channel import ServeChannel
from twisted_serve.web.http.site import ServeSite


class Stubborn(StringTransport):
    """A transport whose other end does not close."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class SiteTests(SynchronousTestCase):
    """Tests for a listener's connections as a whole."""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.addCleanup(self.server.close)
        self.site: ServeSite = self.server.server.site_of(Role.INFERENCE)

    def connect(self) -> tuple[ServeChannel, Stubborn]:
        transport = Stubborn()
        channel: ServeChannel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        channel.makeConnection(transport)
        return channel, transport

    def test_protocols(self) -> None:
        """Over TLS it offers nothing but HTTP/1.1, whatever is installed: its connections speak no other."""
        self.assertTrue(IProtocolNegotiationFactory.providedBy(self.site))
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])

    def test_all_closed(self) -> None:
        """It is told when the last connection is gone; those which stay too long are cut."""
        self.successResultOf(self.site.all_closed(5))
        channel, transport = self.connect()
        closed = self.site.all_closed(5)
        self.server.advance(4)
        self.assertFalse(transport.aborted)
        self.assertNoResult(closed)
        self.server.advance(1)
        self.assertTrue(transport.aborted)
        channel.connectionLost()
        self.successResultOf(closed)

    def test_all_closed_in_time(self) -> None:
        """Nothing is left to happen when all go in time."""
        timers = self.server.clock.getDelayedCalls()
        channel, transport = self.connect()
        closed = self.site.all_closed(5)
        channel.connectionLost()
        self.successResultOf(closed)
        self.assertEqual(self.server.clock.getDelayedCalls(), timers)
        self.server.advance(5)
        self.assertFalse(transport.aborted)
