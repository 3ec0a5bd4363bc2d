# SPDX-License-Identifier: Apache-2.0
"""Tests for the routes by which keys are replaced, and for keys that replace themselves."""

from __future__ import annotations

import errno
import json
import os
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.web.routes.management_case import ManagementTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import Answer, MemoryServer


class TokenRouteTests(ManagementTestCase):
    """Tests for ``/token``."""

    def rotate(self, query: str, method: str = "POST") -> Answer:
        return self.server.request(method, "/token" + query, self.server.key(TokenKind.API))

    def test_rotation(self) -> None:
        """The answer is the new key with its expiry, which the file has, too; the old key is dead at once."""
        for method in ("GET", "POST"):
            for kind in (TokenKind.MANAGEMENT, TokenKind.INFERENCE):
                old = self.server.keys
                self.server.advance(600)
                answer = self.rotate(f"?type={kind.value}", method)
                self.assertEqual(answer.status, 200)
                file = json.loads(self.server.key_file.read_bytes())
                self.assertEqual(answer.json, {"type": kind.value, **file[kind.value]})
                self.assertEqual(self.server.key(kind), answer.json["key"])
                self.assertNotEqual(old.of(kind).secret, answer.json["key"])
                self.assertEqual(self.server.keys.replacing(old.of(kind)), old)

    def test_bad_type(self) -> None:
        """A missing or wrong type is 400 and named; no key changes."""
        keys = self.server.keys
        for query, word in (
            ("", "required"),
            ("?type=", "''"),
            ("?type=API", "'API'"),
            ("?type=Management", "'Management'"),
            ("?type=x&type=management", "'x'"),
            ("?tyPe=inference", "required"),
        ):
            answer = self.rotate(query)
            self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"), query)
            self.assertIn("type", answer.json["message"])
            self.assertIn(word, answer.json["message"])
        self.assertEqual(self.server.keys, keys)

    def test_write_failure(self) -> None:
        """When the file cannot be written the answer is 500 and says so, and the old key goes on opening."""
        keys, text = self.server.keys, self.server.key_file.read_bytes()
        with patch.object(os, "replace", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            answer = self.rotate("?type=management")
        self.assertEqual((answer.status, answer.json["type"]), (500, "InternalServerException"))
        self.assertIn("No space left on device", answer.json["message"])
        self.assertEqual((self.server.keys, self.server.key_file.read_bytes()), (keys, text))
        self.assertEqual(self.request("GET", "/models").status, 200)
        self.assertEqual(sorted(path.name for path in self.server.directory.glob("*key*")), ["key_file.json"])

    def test_many_at_once(self) -> None:
        """However many rotations come at once, memory and file agree in the end."""
        key = self.server.key(TokenKind.API)
        connection = self.server.connect(self.role())
        head = "POST /token?type={} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\n\r\n"
        connection.send("".join(head.format(k, key) for k in ("management", "inference") * 20).encode())
        self.assertEqual(connection.received.count(b"HTTP/1.1 200"), 40)
        file = json.loads(self.server.key_file.read_bytes())
        self.assertEqual(
            {kind.value: self.server.key(kind) for kind in TokenKind}, {k: v["key"] for k, v in file.items()}
        )

    def role(self) -> Any:
        from twisted_serve.testing.server import Role

        return Role.MANAGEMENT


class AutoRotateTests(SynchronousTestCase):
    """Tests for ``token_auto_rotate``."""

    def test_replaced_when_expired(self) -> None:
        """With automatic rotation an expired key is replaced, in memory and in the file; a full disk is survived."""
        server = MemoryServer({"token_auto_rotate": True, "token_expiration_min": 1})
        self.addCleanup(server.close)
        old = server.keys
        with patch.object(os, "replace", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            server.advance(60)
        self.assertEqual(server.keys, old)
        server.advance(30)
        self.assertNotEqual(server.keys.inference, old.inference)
        self.assertNotEqual(server.keys.management, old.management)
        self.assertEqual(server.keys.api, old.api)
        self.assertEqual(server.request("GET", "/ping", server.key(TokenKind.INFERENCE)).status, 200)
        file = json.loads(server.key_file.read_bytes())
        self.assertEqual(file["inference"]["key"], server.key(TokenKind.INFERENCE))
