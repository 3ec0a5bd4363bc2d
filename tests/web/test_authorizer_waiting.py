# SPDX-License-Identifier: Apache-2.0
"""Tests for an application's authorizer that answers later, at a listener and mounted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.web.authorizer_case import AuthorizerCase
from tests.web.authorizers import ALICE, UNKNOWN, Saying
from tests.web.site_case import Client
from twisted_serve.interfaces import Operation
from twisted_serve.testing.server import MemoryServer, Role


class WaitingTests(AuthorizerCase):
    """An authorizer that answers later."""

    def test_body_waits(self) -> None:
        """The client is told to continue, and its body read, after the answer."""
        server = self.serve(self.slow)
        connection = server.connect()
        connection.send(self.post(b"", b"Expect: 100-continue\r\n", length=3))
        self.assertEqual(connection.received, b"")
        self.answers[0].callback(ALICE)
        self.assertEqual(self.statuses(connection), [100])
        connection.send(b"abc")
        self.assertEqual(self.statuses(connection), [100, 200])
        self.assertTrue(connection.received.endswith(b"abc"))

    def test_refused_later(self) -> None:
        """A refusal that comes later is the same; what the client has sent meanwhile is dropped."""
        server = self.serve(self.slow)
        connection = server.connect()
        connection.send(self.post(b"x" * 1000, length=100_000))
        connection.send(b"x" * 30_000)
        self.answers[0].callback(UNKNOWN)
        self.assertEqual(self.statuses(connection), [401])
        connection.send(b"x" * 69_000 + self.post(b"1"))
        self.assertEqual(self.statuses(connection), [401])
        self.assertEqual(len(self.slow.asked), 1)

    def test_reading_is_bounded(self) -> None:
        """Of a body that is sent without waiting, little is read; the rest waits for the answer."""
        server = self.serve(self.slow)
        connection = server.connect()
        for _ in range(100):
            connection.send((self.post(b"", length=1_000_000)) if not self.slow.asked else b"x" * 10_000)
        self.assertGreater(connection.unread, 900_000)
        self.answers[0].callback(ALICE)
        connection.send(b"x" * 10_000)
        self.assertEqual(self.statuses(connection), [200])
        self.assertTrue(connection.received.endswith(b"x" * 1_000_000))

    def test_chunked(self) -> None:
        """A chunked body waits, too."""
        server = self.serve(self.slow)
        connection = server.connect()
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.send(head + b"3\r\nabc\r\n")
        connection.send(b"0\r\n\r\n" + self.post(b"2"))
        self.assertEqual(connection.received, b"")
        self.answers[0].callback(ALICE)
        self.assertEqual(self.statuses(connection), [200])
        self.answers[1].callback(ALICE)
        self.assertEqual(self.statuses(connection), [200, 200])

    def test_pipelined(self) -> None:
        """Requests on one connection are asked about and answered in order, with bodies and without."""
        server = self.serve(self.slow)
        connection = server.connect()
        get = b"GET /predictions/m HTTP/1.1\r\nHost: h\r\n\r\n"
        connection.send(self.post(b"first") + get + self.post(b"third") + get)
        for number in range(4):
            self.assertEqual(len(self.slow.asked), number + 1)
            self.assertEqual(self.statuses(connection), [200] * number)
            self.answers[number].callback(ALICE)
        self.assertEqual(self.statuses(connection), [200] * 4)
        self.assertLess(connection.received.index(b"first"), connection.received.index(b"third"))

    def test_never(self) -> None:
        """One that never answers is a 503 after its time, and its Deferred is cancelled."""
        server = self.serve(self.slow)
        for sent in (b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n", self.post(b"", length=5)):
            connection = server.connect()
            connection.send(sent)
            server.advance(29.9)
            self.assertEqual(connection.received, b"")
            server.advance(0.2)
            self.assertEqual(self.statuses(connection), [503])
        self.assertEqual(self.cancelled, 2)
        self.assertIn("The authorizer has not answered within 30 s", self.lines)

    def test_too_late(self) -> None:
        """An answer after its time changes nothing, nor does a Deferred that ignores being cancelled."""
        stubborn: Deferred[Any] = Deferred(lambda _answer: None)
        stubborn.addErrback(lambda _failure: Deferred())
        server = self.serve(Saying(lambda _asked: stubborn))
        connection = server.connect()
        connection.send(self.post(b"1"))
        server.advance(31)
        self.assertEqual(self.statuses(connection), [503])
        connection.leave()
        server.advance(100)
        self.assertEqual(self.jobs(server), [])

    def test_client_leaves(self) -> None:
        """When the client disconnects, its question is cancelled, once, and nothing is logged as an error."""
        server = self.serve(self.slow)
        for sent in (b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n", self.post(b"1", length=5)):
            connection = server.connect()
            connection.send(sent)
            connection.leave()
        self.assertEqual(self.cancelled, 2)
        for answer in self.answers:
            answer.cancel()
        server.advance(100)
        self.assertEqual(self.cancelled, 2)
        self.assertEqual(self.jobs(server), [])
        self.assertFalse(any("authorizer" in line for line in self.lines[-5:]), self.lines)

    def test_canceller_raises(self) -> None:
        """A canceller that raises harms neither the connection nor the server."""

        def cancel(_answer: object) -> None:
            raise KeyError("cancel")

        server = self.serve(Saying(lambda _asked: Deferred(cancel)))
        for leave in (True, False):
            connection = server.connect()
            connection.send(self.post(b"1"))
            if leave:
                connection.leave()
            else:
                server.advance(31)
                self.assertEqual(self.statuses(connection), [503])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_deadlines(self) -> None:
        """The time of the authorizer is not the client's: neither head, body nor idle timeout end the wait."""
        options = {"header_timeout": 2, "body_timeout": 3, "keepalive_timeout": 4}
        server = self.serve(self.slow, options=options)
        connection = server.connect()
        connection.send(self.post(b"1", length=2))
        server.advance(20)
        self.assertEqual(connection.received, b"")
        self.answers[0].callback(ALICE)
        server.advance(2.9)
        self.assertEqual(connection.received, b"")
        # From now on the client has the usual time for its body.
        server.advance(0.2)
        self.assertEqual(self.statuses(connection), [408])

    def test_slow_reader(self) -> None:
        """A client that reads no responses for a while gets nothing done meanwhile."""
        server = self.serve(self.slow)
        connection = server.connect()
        connection.send(self.post(b"1"))
        connection.stop_reading()
        connection.read_on()
        self.assertEqual(self.jobs(server), [])
        connection.stop_reading()
        self.answers[0].callback(ALICE)
        connection.read_on()
        self.assertEqual(self.statuses(connection), [200])

    def test_many(self) -> None:
        """Many connections may wait; nothing is left of them when they end."""
        server = self.serve(self.slow)
        connections = [server.connect() for _ in range(300)]
        before = len(server.clock.getDelayedCalls())
        for connection in connections:
            connection.send(self.post(b"x" * 20_000, length=10**6))
        self.assertEqual(len(self.slow.asked), 300)
        for number, connection in enumerate(connections):
            if number % 3 == 0:
                connection.leave()
            elif number % 3 == 1:
                self.answers[number].callback(UNKNOWN)
        server.advance(31)
        self.assertEqual(self.cancelled, 200)
        for connection in connections:
            connection.leave()
        self.assertLessEqual(len(server.clock.getDelayedCalls()), before)

    def test_stop(self) -> None:
        """A stop does not wait for an authorizer longer than for other requests."""
        server = self.serve(self.slow)
        connection = server.connect()
        connection.send(self.post(b"1"))
        stopped = server.server.stopService()
        server.advance(server.options.shutdown_timeout + 10)
        self.successResultOf(stopped)
        self.assertEqual(self.cancelled, 1)


class MountedAuthorizerTests(AuthorizerCase):
    """A resource in an application's own site, which has read the body."""

    def mounted(self, authorizer: Saying) -> tuple[MemoryServer, Callable[[bytes], Client]]:
        server = self.serve(authorizer)
        root = Resource()
        root.putChild(b"ml", server.server.resource(Role.INFERENCE))
        site = Site(root, reactor=server.clock)

        def send(sent: bytes) -> Client:
            client = Client(site)
            client.send(sent.replace(b"/predictions", b"/ml/predictions"))
            return client

        return server, send

    def test_admitted(self) -> None:
        """Nothing is done before the answer; then it is a request of the principal, asked about once."""
        server, send = self.mounted(self.slow)
        client = send(self.post(b"1", b"Principal: root\r\n"))
        self.assertEqual(self.jobs(server), [])
        self.answers[0].callback(ALICE)
        self.assertIn(b" 200 OK", client.received)
        [headers] = self.jobs(server)
        self.assertEqual([value for name, value in headers.items() if name.lower() == "principal"], ["alice"])
        [asked] = self.slow.asked
        self.assertEqual((asked.operation, asked.segments), (Operation.PREDICT, ("predictions", "m")))

    def test_refused(self) -> None:
        """A refusal is that of a listener, and comes before what is wrong with the body."""
        server, send = self.mounted(Saying(lambda _asked: UNKNOWN))
        for headers in (b"", b"Content-Encoding: nonsense\r\n"):
            client = send(self.post(b"1", headers))
            self.assertIn(b" 401 ", client.received)
            self.assertIn(b'Basic realm="models"', client.received)
        self.assertEqual(self.jobs(server), [])

    def test_client_leaves(self) -> None:
        """When the client disconnects, or for too long, the question is cancelled."""
        server, send = self.mounted(self.slow)
        send(self.post(b"1")).transport.loseConnection()
        self.assertEqual(self.cancelled, 1)
        client = send(self.post(b"1"))
        server.advance(31)
        self.assertIn(b" 503 ", client.received)
        self.assertEqual((self.cancelled, self.jobs(server)), (2, []))
