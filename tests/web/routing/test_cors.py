# SPDX-License-Identifier: Apache-2.0
"""
What browsers ask before a page may call us, against the whole server in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, Role

ASKED = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
CORS = {
    "cors_allowed_origin": "https://page.example",
    "cors_allowed_methods": "GET, POST, PUT, OPTIONS",
    "cors_allowed_headers": "Authorization, Content-Type",
}


class PreflightTests(SynchronousTestCase):
    """Tests for preflight requests."""

    def server(self, **options: Any) -> MemoryServer:
        server = MemoryServer(options, models={"m": {}})
        self.addCleanup(server.close)
        return server

    def test_answered_without_a_key(self) -> None:
        """A preflight needs no key, and is told what is configured, the same for every path."""
        server = self.server(**CORS)
        answers = [
            server.request("OPTIONS", path, headers=ASKED, role=role)
            for role in Role
            for path in ("/predictions/m", "/predictions/absent", "/models/m", "/nowhere", "/token", "/")
        ]
        for answer in answers:
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(answer.headers["access-control-allow-origin"], "https://page.example")
            self.assertEqual(answer.headers["access-control-allow-methods"], "GET, POST, PUT, OPTIONS")
            self.assertEqual(answer.headers["access-control-allow-headers"], "Authorization, Content-Type")
            self.assertIn("x-request-id", answer.headers)
        self.assertEqual({tuple(answer.headers) for answer in answers}, {tuple(answers[0].headers)})
        self.assertEqual(server.provider.batches, [])

    def test_connection_goes_on(self) -> None:
        """A preflight's connection is used for the request which it was about."""
        server = self.server(**CORS)
        connection = server.connect()
        connection.send(
            b"OPTIONS /ping HTTP/1.1\r\nHost: h\r\nOrigin: https://page.example\r\n"
            b"Access-Control-Request-Method: GET\r\n\r\n"
        )
        self.assertTrue(connection.received.startswith(b"HTTP/1.1 204 "), connection.received)
        self.assertNotIn(b"\r\nContent-", connection.received)
        self.assertTrue(connection.open)
        key = f"Authorization: Bearer {server.key(TokenKind.INFERENCE)}"
        self.assertEqual(connection.get("/ping", key, "Origin: https://page.example"), 200)

    def test_nothing_else_is_let_in(self) -> None:
        """What only looks like a preflight needs its key."""
        server = self.server(**CORS)
        for method, headers in (
            ("OPTIONS", {}),
            ("OPTIONS", {"Origin": "https://page.example"}),
            ("OPTIONS", {"Access-Control-Request-Method": "POST"}),
            ("POST", ASKED),
            ("GET", ASKED),
        ):
            answer = server.request(method, "/predictions/m", headers=headers)
            self.assertEqual((answer.status, answer.json["type"]), (400, "InvalidKeyException"), (method, headers))

    def test_with_a_body(self) -> None:
        """No preflight has a body: what has one needs its key before it is read."""
        answer = self.server(**CORS).request("OPTIONS", "/predictions/m", headers=ASKED, body=b"x")
        self.assertEqual((answer.status, answer.json["type"]), (400, "InvalidKeyException"))

    def test_not_configured(self) -> None:
        """Where no page is allowed, a preflight is a request like any other."""
        server = self.server()
        self.assertEqual(server.request("OPTIONS", "/predictions/m", headers=ASKED).status, 400)
        answer = server.request("OPTIONS", "/predictions/m", server.key(TokenKind.INFERENCE), ASKED)
        self.assertIn("paths", answer.json)
