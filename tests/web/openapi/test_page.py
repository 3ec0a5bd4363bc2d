# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``/docs``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.web.api.route import Surface
from twisted_serve.web.api.surface import described_routes
from twisted_serve.web.openapi.page import page_of


class Reader(HTMLParser):
    """Reads a page: its tags, its attributes, its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


class PageTests(SynchronousTestCase):
    """Tests for the description as a page."""

    def test_served(self) -> None:
        """Every listener shows its operations, to anybody, and to browsers as nothing but a page."""
        with MemoryServer() as server:
            for role in Role:
                answer = server.request("GET", "/docs", role=role)
                self.assertEqual((answer.status, answer.headers["content-type"]), (200, "text/html; charset=utf-8"))
                policy = answer.headers["content-security-policy"]
                self.assertTrue(policy.startswith("default-src 'none'; style-src 'sha256-"), policy)
                self.assertNotIn("unsafe", policy)
                [style] = re.findall(rb"<style>(.*?)</style>", answer.body, re.S)
                self.assertIn(b64encode(sha256(style).digest()).decode(), policy)
                self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
                text = Reader(answer.body).text
                for operation in described_routes(Surface(role, tokens=True)):
                    self.assertIn(operation.path, text)
                    self.assertIn(operation.summary, text)

    def test_nothing_from_elsewhere(self) -> None:
        """The page has no scripts, frames, forms or links."""
        with MemoryServer() as server:
            reader = Reader(server.request("GET", "/docs", role=Role.MANAGEMENT).body)
        self.assertEqual(reader.tags & {"script", "iframe", "form", "a", "img", "link", "object", "base"}, set())
        self.assertLessEqual(reader.attributes, {"lang", "charset", "name", "content", "colspan"})

    def test_escaped(self) -> None:
        """Whatever a description says is text."""
        evil = "</style><script>alert(1)</script>"
        operation = {
            "summary": evil,
            "parameters": [{"name": evil, "in": "query", "description": evil, "schema": {"type": evil}}],
            "responses": {evil: {"description": evil, "content": {evil: {}}}},
        }
        page = page_of({"info": {"title": evil, "version": evil}, "paths": {evil: {"get": operation}}})
        self.assertNotIn(b"<script", page)
        self.assertEqual(Reader(page).text.count("alert(1)"), 11)

    def test_only_read(self) -> None:
        """The page can be read, and nothing else."""
        with MemoryServer() as server:
            self.assertEqual(server.request("POST", "/docs").status, 405)
