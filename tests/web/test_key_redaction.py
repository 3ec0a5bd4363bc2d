# SPDX-License-Identifier: Apache-2.0
"""Tests that no secret of a named key is in a log, wherever a client puts it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

from twisted.logger import capturedLogs, formatEvent

from tests.web.routes.keys_case import KeysCase
from twisted_serve.errors import WorkerFailed
from twisted_serve.logs.records import without_keys
from twisted_serve.testing.server import Role


class KeyRedactionTests(KeysCase):
    """Tests for what is logged, and what other clients are told."""

    options = {"prediction_error_detail": True}

    def test_everywhere(self) -> None:
        """A key in a path, a query, a header or a body, good or not, plain or encoded, is in no line of any log."""
        good = self.make("ada", ["inference:m", "tokens"])
        secrets = (good, good[:-1] + ("a" if good[-1] != "a" else "b"))
        with capturedLogs() as events:
            for secret in secrets:
                encoded = "".join(f"%{ord(character):02x}" for character in secret)
                for text in (secret, encoded, quote(encoded, safe="")):
                    for path in (
                        f"/{text}",
                        f"/ping?key={text}",
                        f"/predictions/{text}",
                        f"/predictions/m/{text}",
                        f"/predictions/x{text}y?a={text}",
                        f"/models/{text}",
                        f"/keys/{text}",
                        f"/keys/{text}/rotate",
                        f"/token?type={text}",
                        f"/{text}/%zz",
                    ):
                        self.send(path, good, text)
                        self.send(path, secrets[1], text)
                for path in ("/keys", "/models", "/predictions/m"):
                    self.send(path, good, secret, method="POST", body=f'{{"{secret}": "{secret}"}}')
                    self.send(path, good, secret, method=secret)
        self.server.server.reload()
        lines = [str(formatEvent(event)) for event in without_keys(events, self.server.server.secrets)]
        self.assertIn("<redacted>", "\n".join(lines))
        for line in lines:
            # A client may encode it more than once.
            for text in (line, unquote(line), unquote(unquote(line))):
                for secret in secrets:
                    self.assertNotIn(secret, text)

    def test_error_of_a_handler(self) -> None:
        """A key that a handler puts into its error is not shown."""
        good = self.make()
        [worker, _other] = self.server.provider.workers
        worker.holding = True
        connection = self.server.connect()
        connection.send(f"GET /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {good}\r\n\r\n".encode())
        worker.answer(WorkerFailed(500, "Prediction failed", detail=f"KeyError: {good}"))
        self.assertIn(b" 500 ", connection.received)
        self.assertIn(b"KeyError: <redacted>", connection.received)
        self.assertNotIn(good.encode(), connection.received)

    def send(self, path: str, key: str, text: str, method: str = "GET", body: str = "") -> Any:
        """Send a request with a key, and a text in its headers."""
        role = Role.MANAGEMENT if path.split("/")[1] in ("keys", "models", "token") else Role.INFERENCE
        connection = self.server.connect(role)
        connection.send(
            f"{method} {path} HTTP/1.1\r\nHost: {text}\r\nAuthorization: Bearer {key}\r\nUser-Agent: {text}\r\n"
            f"X-Request-Id: {unquote(unquote(text))}\r\nReferer: {text}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        connection.leave()
        return connection
