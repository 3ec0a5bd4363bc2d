# SPDX-License-Identifier: Apache-2.0
"""
Run the public state machine over keys and time against a server with real sockets; its time is virtual.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.listening.roles import Role
from twisted_serve.testing.machine import TokenMachine
from twisted_serve.testing.server import NoAnswerYet
from twisted_serve.testing.socket_reactor import SocketReactor
from twisted_serve.testing.sockets import SocketServer

pytestmark = pytest.mark.integration


class SocketMachine(TokenMachine):
    """The server at real ports."""

    options = {"token_expiration_min": 5}

    def make_server(self) -> SocketServer:
        return SocketServer(self.options)


SocketMachineTests = SocketMachine.TestCase
SocketMachineTests.settings = settings(max_examples=4, stateful_step_count=8)


class SocketServerTests(SynchronousTestCase):
    """Tests for a server with real sockets and virtual time."""

    def test_requests(self) -> None:
        """Requests get their responses, at one connection for each or several at one."""
        with SocketServer(models={"greet": {}}) as server:
            key = server.keys.inference.secret
            answer = server.request("POST", "/predictions/greet", key, body=b"x" * 1_000_000)
            self.assertEqual((answer.status, len(answer.body)), (200, 1_000_000))
            connection = server.connect()
            for _ in range(2):
                self.assertEqual(connection.get("/ping", f"Authorization: Bearer {key}"), 200)
                self.assertTrue(connection.open)
            self.assertEqual(connection.received.count(b'"Healthy"'), 2)
            connection.leave()
            self.assertEqual(server.connect().get("/ping"), 400)
            self.assertRaises(ConnectionError, connection.get, "/ping")
            self.assertEqual(server.request("GET", "/models", server.keys.management.secret).status, 200)

    def test_time(self) -> None:
        """Keys, requests and idle connections end when the test says that their time is over."""
        with SocketServer({"default_response_timeout": 60, "keepalive_timeout": 30}, models={"m": {}}) as server:
            [worker] = server.provider.workers
            worker.holding = True
            key = server.keys.inference.secret
            idle = server.connect()
            idle.get("/ping", f"Authorization: Bearer {key}")
            waiting = server.send("POST", "/predictions/m", key, body=b"1")
            self.assertRaises(NoAnswerYet, server.answered, waiting)
            self.assertTrue(idle.open)
            server.advance(30)
            self.assertFalse(idle.open)
            server.advance(31)
            self.assertEqual(server.answered(waiting).status, 500)
            server.advance(3600 - 61 - 0.001)
            self.assertEqual(server.request("GET", "/ping", key).status, 200)
            server.advance(0.001)
            self.assertEqual(server.request("GET", "/ping", key).status, 400)

    def test_shared_clock(self) -> None:
        """Two servers have ports of their own and, if the test says so, one time."""
        reactor = SocketReactor()
        self.addCleanup(reactor.discard)
        servers = [SocketServer(clock=reactor, seed=seed) for seed in range(2)]
        for server in servers:
            self.addCleanup(server.close)
        self.assertEqual(len({server.server.addresses[Role.INFERENCE].port for server in servers}), 2)
        servers[0].advance(3601)
        for server in servers:
            self.assertEqual(server.request("GET", "/ping", server.keys.inference.secret).status, 400)

    def test_nothing_left(self) -> None:
        """A closed server leaves no port, no connection and no delayed call; its reactor begins anew."""
        with SocketServer() as server:
            reactor = server.clock
            port = server.server.addresses[Role.INFERENCE].port
            server.connect().send(b"GET / HTTP/1.1\r\n")
            server.advance(1)
        # What is left is what wakes the reactor for signals and threads.
        self.assertEqual((len(reactor.getReaders()), reactor.getWriters(), reactor.getDelayedCalls()), (1, [], []))
        self.assertEqual(reactor.seconds(), 0)
        self.assertFalse(server.directory.exists())
        with SocketServer() as other:
            self.assertIs(other.clock, reactor)
            self.assertNotEqual(other.server.addresses[Role.INFERENCE].port, port)

    def test_endless_calls(self) -> None:
        """A call without a delay that schedules itself again ends the test, not the patience."""
        reactor = SocketReactor()
        self.addCleanup(reactor.discard)

        def again() -> None:
            reactor.callLater(0, again)

        again()
        self.assertRaises(RuntimeError, reactor.advance, 1)
