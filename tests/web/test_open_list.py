# SPDX-License-Identifier: Apache-2.0
"""Tests that what is open without a token is what docs/tokens.md lists, and nothing else: each route is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.web.api.access import OPEN

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tokens.md"

METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")

# What the list calls open on every listener.
EVERYWHERE = {"/livez", "/readyz", "/api-description", "/docs", "OPTIONS /"}


class OpenListTests(SynchronousTestCase):
    """Tests for the list."""

    def found(self, role: Role, **options: Any) -> set[str]:
        """Ask each route that any listener describes, and some more, without a token; return what is not refused."""
        with MemoryServer({"ts_open_inference_protocol": True, **options}, models={"m": {}}) as server:
            paths = {"/", "/nowhere", "/metrics", "/docs", "/docs/x", "/livez/x", "/token", "/ping/x", "/favicon.ico"}
            for each in Role:
                described = server.request("GET", "/api-description", role=each).json["paths"]
                paths |= {re.sub(r"\{[^}]*\}", "m", path) for path in described}
            found = set()
            for path in sorted(paths):
                for method in METHODS:
                    # What was open may have closed the connection, but keeps the server.
                    answer = server.request(method, path, role=role)
                    refused = answer.status == 400 and answer.json["type"] == "InvalidKeyException"
                    if not refused:
                        found.add(f"{method} {path}" if path == "/" else path)
            return found

    def test_page(self) -> None:
        """The page has the list as the code has it."""
        rows = "".join(f"| {what} | {where} |\n" for what, where in OPEN)
        self.assertIn(f"nothing else is open:\n\n| what | where |\n| --- | --- |\n{rows}\n", PAGE.read_text())

    def test_every_listener(self) -> None:
        """What is open on the inference and on the management listener is what the list says, and nothing more."""
        self.assertEqual(self.found(Role.INFERENCE), EVERYWHERE)
        self.assertEqual(self.found(Role.MANAGEMENT), EVERYWHERE)
        self.assertEqual(self.found(Role.INFERENCE, token_exempt_ping=True), EVERYWHERE | {"/ping"})
        for path in {each.rpartition(" ")[2] for each in EVERYWHERE} - {"/"}:
            self.assertTrue(any(f"`{path}`" in what for what, where in OPEN if where == "every listener"), path)

    def test_shared(self) -> None:
        """On a shared address the metrics are open only where the metrics listener is."""
        address = "http://127.0.0.1:9000"
        both = {"inference_address": address, "management_address": address}
        self.assertEqual(self.found(Role.INFERENCE, **both), EVERYWHERE)
        self.assertEqual(self.found(Role.INFERENCE, **both, metrics_address=address), EVERYWHERE | {"/metrics"})

    def test_metrics_listener(self) -> None:
        """On the metrics listener nothing but the metrics and what is open everywhere is there, with a token or not."""
        with MemoryServer(models={"m": {}}) as server:
            for path in ("/models", "/ping", "/predictions/m", "/token?type=inference", "/nowhere"):
                for key in (None, server.key(TokenKind.MANAGEMENT)):
                    self.assertEqual(server.request("GET", path, key, role=Role.METRICS).status, 404, path)
            self.assertEqual(server.request("GET", "/metrics").status, 200)

    def test_metrics_token(self) -> None:
        """With a token of their own the metrics want it."""
        path = Path(self.mktemp())
        path.write_text("a-long-enough-word")
        with MemoryServer({"metrics_token_file": path.absolute()}) as server:
            self.assertEqual(server.request("GET", "/metrics").status, 401)
            self.assertEqual(server.request("GET", "/metrics", "a-long-enough-word").status, 200)
            path.unlink()
            self.assertEqual(server.request("GET", "/metrics", "a-long-enough-word").status, 401)

    def test_browser(self) -> None:
        """A browser is sent from the root to the page; a preflight is answered only if other origins may read."""
        preflight = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}
        with MemoryServer() as server:
            self.assertEqual(server.connect().get("/", "Accept: text/html"), 302)
            self.assertEqual(server.request("GET", "/").status, 400)
            self.assertEqual(server.request("OPTIONS", "/predictions/m", headers=preflight).status, 400)
        with MemoryServer({"cors_allowed_origin": "*"}) as server:
            self.assertEqual(server.request("OPTIONS", "/predictions/m", headers=preflight).status, 204)
