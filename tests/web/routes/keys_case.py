# SPDX-License-Identifier: Apache-2.0
"""What the tests of named keys share: a server with a store of them."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import Answer, MemoryServer

MODELS: dict[str, dict[str, str]] = {"m": {}, "secret-m": {}}


class KeysCase(SynchronousTestCase):
    """A server with a model, and with an empty store of named keys."""

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.store = Path(directory.name) / "keys.json"
        self.server = self.serve()

    def serve(self, **options: Any) -> MemoryServer:
        """Start a server on the store."""
        server = MemoryServer({"token_store": self.store, **self.options, **options}, models=MODELS)
        self.addCleanup(server.close)
        return server

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str) -> Answer:
        """Send a request about keys, with the API key or another one."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.server.request(method, path, self.server.key(TokenKind.API) if key is None else key, headers, data)

    def make(self, name: str = "ada", scopes: Any = ("inference",), **values: Any) -> str:
        """Make a key, and return its secret."""
        answer = self.ask("POST", "/keys", {"name": name, "scopes": scopes, **values})
        self.assertEqual(answer.status, 201, answer)
        secret: str = answer.json["key"]
        return secret

    def ping(self, key: str) -> int:
        """Return the status of a request with a key."""
        return self.server.request("GET", "/ping", key).status

    def stored(self) -> list[dict[str, Any]]:
        """Return the keys of the store."""
        keys: list[dict[str, Any]] = json.loads(self.store.read_bytes())["keys"]
        return keys

    def assertError(self, answer: Answer, status: int, *words: str) -> None:
        """Fail unless an answer is an error that says these words."""
        self.assertEqual(answer.status, status, answer)
        for word in words:
            self.assertIn(word, answer.json["message"])
