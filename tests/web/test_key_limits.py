# SPDX-License-Identifier: Apache-2.0
"""Tests for the limits of named keys through HTTP: where requests count, and where their places are given back."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.web.routes.keys_case import KeysCase
from tests.web.site_case import Client
from twisted_serve.testing.server import Role


class LimitTests(KeysCase):
    """Tests for ``rate`` and ``concurrent``."""

    def setUp(self) -> None:
        super().setUp()
        [self.worker, _other] = self.server.provider.workers

    def request(self, key: str, path: str = "/predictions/m", body: bytes = b"x", headers: str = "") -> bytes:
        """Return a request as bytes."""
        return (
            f"POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def send(self, data: bytes) -> Any:
        connection = self.server.connect()
        connection.send(data)
        return connection

    def in_flight(self, name: str = "ada") -> int:
        """Return how many requests of a key are in progress, from what is accepted under its limit."""
        site: Any = self.server.server.site_of(Role.INFERENCE)
        usage: Any = site.authorizer._named.index.by_name[name].state.usage
        in_flight: int = usage.in_flight
        return in_flight

    def test_rate(self) -> None:
        """Requests over the rate are 429 and say when to try again; then they are accepted. No other key waits."""
        key, other = self.make(rate=2), self.make("bob")
        statuses = [self.ping(key) for _ in range(3)]
        self.assertEqual(statuses, [200, 200, 429])
        answer = self.server.request("GET", "/ping", key)
        self.assertEqual((answer.headers["retry-after"], answer.json["type"]), ("30", "TooManyRequestsException"))
        self.assertIn("ada", answer.json["message"])
        self.assertNotIn("www-authenticate", answer.headers)
        self.assertEqual([self.ping(other) for _ in range(50)], [200] * 50)
        self.server.advance(29)
        self.assertEqual(self.ping(key), 429)
        self.server.advance(1)
        self.assertEqual([self.ping(key), self.ping(key)], [200, 429])

    def test_once(self) -> None:
        """A request with a body counts once, although its head is checked before its body and its route."""
        key = self.make(rate=3)
        for _ in range(3):
            self.assertIn(b" 200 ", self.send(self.request(key)).received)
        refused = self.send(self.request(key, body=b"")[:-4] + b"\r\nExpect: 100-continue\r\n\r\n")
        self.assertIn(b" 429 ", refused.received)

    def test_before_the_body(self) -> None:
        """A request over a limit is refused at its head, and its body is not taken."""
        key = self.make(rate=1)
        self.ping(key)
        connection = self.send(self.request(key, body=b"x" * 1000)[:-999])
        self.assertIn(b" 429 ", connection.received)
        self.assertIn(b"Retry-After: 60\r\n", connection.received)

    def test_concurrent(self) -> None:
        """The place of a request is taken until its response is sent."""
        key = self.make(concurrent=1)
        self.worker.holding = True
        first = self.send(self.request(key))
        self.assertEqual(self.in_flight(), 1)
        second = self.send(self.request(key))
        self.assertIn(b" 429 ", second.received)
        self.assertIn(b"Retry-After: 1\r\n", second.received)
        self.worker.holding = False
        self.worker.answer()
        self.assertIn(b" 200 ", first.received)
        self.assertEqual(self.in_flight(), 0)
        self.assertIn(b" 200 ", self.send(self.request(key)).received)

    def test_given_back(self) -> None:
        """However a request ends, its place is given back."""
        key = self.make(concurrent=1, scopes=["inference:m"])
        self.worker.holding = True
        begun = self.request(key, body=b"x" * 100)[:-50]
        for case, sent, answered in (
            ("the client leaves while it waits", self.request(key), b""),
            ("the client leaves within the body", begun, b""),
            ("an unknown version", self.request(key, "/predictions/m/7"), b" 404 "),
            ("a body that is too large", self.request(key).replace(b"Length: 1", b"Length: 999999999"), b" 413 "),
            ("a chunked body that breaks", self.request(key, headers="Transfer-Encoding: chunked\r\n"), b" 400 "),
            ("a coding that is not there", self.request(key, headers="Content-Encoding: br\r\n"), b" 415 "),
            ("an expectation", self.request(key, headers="Expect: x\r\n"), b" 417 "),
            ("a model that is forbidden", self.request(key, "/predictions/secret-m"), b" 403 "),
            ("a malformed path", self.request(key, "/predictions/%zz"), b" 40"),
        ):
            connection = self.send(sent)
            self.assertIn(answered, connection.received, case)
            self.assertNotIn(b" 429 ", connection.received, case)
            connection.leave()
            self.assertEqual(self.in_flight(), 0, case)

    def test_pipelined(self) -> None:
        """Of requests that are pipelined each takes its place when its turn comes; a client that leaves frees it."""
        key = self.make(concurrent=1)
        self.worker.holding = True
        connection = self.send(self.request(key) * 3)
        self.assertEqual(self.in_flight(), 1)
        self.worker.answer()
        self.server.advance(0.1)
        self.assertEqual((connection.received.count(b" 200 "), self.in_flight()), (1, 1))
        connection.leave()
        self.assertEqual(self.in_flight(), 0)

    def test_mounted(self) -> None:
        """In an application's own site limits hold as well, and places are given back when a client leaves."""
        key = self.make(concurrent=1)
        root = Resource()
        root.putChild(b"ml", self.server.server.resource(Role.INFERENCE))
        site = Site(root, reactor=self.server.clock)
        self.worker.holding = True
        first, second = Client(site), Client(site)
        first.send(self.request(key, "/ml/predictions/m"))
        self.assertEqual(self.in_flight(), 1)
        self.assertIn(b" 429 ", second.send(self.request(key, "/ml/predictions/m")))
        self.assertIn(b"Retry-After: 1\r\n", second.received)
        first.transport.loseConnection()
        self.assertEqual(self.in_flight(), 0)
        third = Client(site)
        third.send(self.request(key, "/ml/predictions/m"))
        while self.worker.busy:
            self.worker.answer()
        self.assertIn(b" 200 ", third.received)
        self.assertEqual(self.in_flight(), 0)

    def test_changed(self) -> None:
        """A limit that is changed counts at once, and what is in progress stays counted."""
        key = self.make(concurrent=2)
        self.worker.holding = True
        connections = [self.send(self.request(key)) for _ in range(2)]
        self.ask("PATCH", "/keys/ada", {"concurrent": 1})
        connections[0].leave()
        self.assertEqual(self.ping(key), 429)
        connections[1].leave()
        self.assertEqual(self.ping(key), 200)
        self.ask("PATCH", "/keys/ada", {"concurrent": None, "rate": 1})
        self.assertEqual([self.ping(key), self.ping(key)], [200, 429])

    def test_metrics(self) -> None:
        """Requests are counted by name and outcome; a revoked key has no counters."""
        key = self.make(rate=2, scopes=["inference"])
        for path in ("/ping", "/models", "/ping", "/ping"):
            self.server.request("GET", path, key)
        text = self.server.request("GET", "/metrics").body.decode()
        for outcome, number in (("admitted", 2), ("scope", 1), ("rate", 1)):
            self.assertIn(f'ts_key_requests_total{{key="ada",outcome="{outcome}",}} {number}.0', text)
        self.ask("DELETE", "/keys/ada")
        self.assertNotIn('key="ada"', self.server.request("GET", "/metrics").body.decode())
