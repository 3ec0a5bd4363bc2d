# SPDX-License-Identifier: Apache-2.0
"""What the tests of the management API share."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import Answer, MemoryServer

MANIFEST = json.dumps({"model": {"modelName": "m", "modelVersion": "2.0", "handler": "handler.py"}})


class ManagementTestCase(SynchronousTestCase):
    """A server with two versions of a model in its store."""

    options: dict[str, Any] = {"default_workers_per_model": 0}

    def setUp(self) -> None:
        self.server = MemoryServer(self.options)
        self.addCleanup(self.server.close)
        self.server.add_model("m", {})
        self.server.add_model("m2", {"MAR-INF/MANIFEST.json": MANIFEST})

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.server.request(method, path, self.server.key(TokenKind.MANAGEMENT), headers, data)

    def assertError(self, answer: Answer, status: int, kind: str, message: str) -> None:
        self.assertEqual(answer.status, status, answer)
        self.assertEqual((answer.json["code"], answer.json["type"]), (status, kind), answer)
        self.assertEqual(answer.json["message"], message)

    def assertStatus(self, answer: Answer, status: int, text: str) -> None:
        self.assertEqual((answer.status, answer.json), (status, {"status": text}))

    def workers(self, name: str = "m") -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self.request("GET", f"/models/{name}").json[0]["workers"]
        return workers
