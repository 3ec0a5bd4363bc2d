# SPDX-License-Identifier: Apache-2.0
"""Tests for connections whose client has not shown a key: they must not take the places of others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.rpc.messages import HealthCheckRequest
from twisted_serve.rpc.methods import HEALTH, INFERENCE
from twisted_serve.testing.rpc import MemoryRpcConnection
from twisted_serve.testing.server import MemoryServer

PING = f"/{INFERENCE}/Ping"
CHECK, WATCH = f"/{HEALTH}/Check", f"/{HEALTH}/Watch"

TIMEOUT = 75.0


class StrangerTests(SynchronousTestCase):
    """Idle connections of a server with tokens."""

    def setUp(self) -> None:
        self.server = MemoryServer(models={"m": {}})
        self.addCleanup(self.server.close)

    def wait(self, connection: MemoryRpcConnection, seconds: float) -> bool:
        """Let time pass; return whether the connection is still open."""
        self.server.advance(seconds)
        connection.pump()
        return connection.open

    def test_idle(self) -> None:
        """A connection without calls ends, and its client is told so; so does one whose calls were refused."""
        idle, refused = self.server.grpc(), self.server.grpc()
        self.assertEqual(refused.call(PING, b"").code, 7)
        self.assertTrue(self.wait(idle, TIMEOUT - 1))
        self.assertFalse(self.wait(idle, 2))
        self.assertEqual([code for _last, code in idle.going], [0, 0])
        self.assertFalse(self.wait(refused, TIMEOUT))

    def test_known(self) -> None:
        """After one call with a key a connection may be idle for a day: channels are."""
        known = self.server.grpc()
        self.assertEqual(known.call(PING, b"", self.server.key(TokenKind.INFERENCE)).code, 0)
        for _ in range(24):
            self.assertTrue(self.wait(known, 3600))

    def test_probes(self) -> None:
        """Calls without a key keep a connection only as long as there are any."""
        probing, watching = self.server.grpc(), self.server.grpc()
        watch = watching.call(WATCH, HealthCheckRequest())
        for _ in range(20):
            self.assertTrue(self.wait(probing, 30))
            self.assertEqual(probing.call(CHECK, HealthCheckRequest()).code, 0)
        self.assertTrue(watching.open)
        watch.cancel()
        self.assertFalse(self.wait(watching, 2 * TIMEOUT + 1))
        self.assertFalse(self.wait(probing, 0))

    @given(st.lists(st.tuples(st.sampled_from([PING, CHECK, "/x/y"]), st.floats(0, 200)), max_size=6))
    def test_bound(self, calls: list[tuple[str, float]]) -> None:
        """Whatever is called without a key, the connection is gone two timeouts after the last call."""
        connection = self.server.grpc()
        for path, seconds in calls:
            if connection.open:
                connection.call(path, b"")
            self.wait(connection, seconds)
        self.assertFalse(self.wait(connection, 2 * TIMEOUT + 6))
