# SPDX-License-Identifier: Apache-2.0
"""Tests for the table of scopes in docs/tokens.md."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from docs.generators.key_scopes import PAGE, block, calls_of, requests_of, with_block
from twisted_serve.auth.named.scopes import SCOPES
from twisted_serve.auth.scopes import required
from twisted_serve.interfaces import Operation
from twisted_serve.rpc.methods import SERVICES
from twisted_serve.web.api.surface import EVERY_ROUTE


class KeyScopesTests(SynchronousTestCase):
    """Tests for the page."""

    def test_page(self) -> None:
        """The page has the table as it is made; if not: python -m docs.generators.key_scopes"""
        page = PAGE.read_text(encoding="utf-8")
        self.assertIn(block(), page)
        self.assertEqual(with_block(page), page)

    def test_every_scope(self) -> None:
        """The page says of each scope what it is for."""
        page = PAGE.read_text(encoding="utf-8")
        for scope in SCOPES:
            self.assertRegex(page, rf"(?m)^\| `{re.escape(scope)}` \| [^|]+ \|$")

    def test_whole(self) -> None:
        """Each route and each method with an operation that needs a key is in the table."""
        text = block()
        for route in EVERY_ROUTE:
            if required(route.operation) is not None:
                self.assertIn(f"`{route.method.upper()} {route.path}`", text)
        for service in SERVICES.values():
            for method, operation in service.methods.items():
                if operation is not None and required(operation) is not None:
                    self.assertIn(f"/{method}`", text)

    def test_nothing_is_empty(self) -> None:
        """Each operation of a scope is a request or a call."""
        for operations in SCOPES.values():
            for operation in operations:
                self.assertTrue(requests_of(operation) or calls_of(operation), operation)
        self.assertEqual(calls_of(Operation.SCRAPE_METRICS), [])
