# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.planes.live_keys`` in a server: the store changes, cannot be used, or is shared."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs, formatEvent

from tests.web.routes.keys_case import MODELS, KeysCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, Role


class Threads:
    """Threads that a test can hold."""

    def __init__(self) -> None:
        self.held: list[Callable[[], object]] | None = None

    def __call__(self, work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
        if self.held is None:
            return maybeDeferred(work, *args)
        done: Deferred[Any] = Deferred()
        self.held.append(lambda: maybeDeferred(work, *args).chainDeferred(done))
        return done

    def release(self) -> None:
        """Do what is held, and what follows from it."""
        held, self.held = self.held or [], None
        for work in held:
            work()


class ChangeTests(KeysCase):
    """Tests for changes that are held up, fail, or meet."""

    def setUp(self) -> None:
        self.threads = Threads()
        super().setUp()

    def serve(self, **options: Any) -> MemoryServer:
        dependencies = {"defer_to_thread": self.threads}
        server = MemoryServer({"token_store": self.store, **options}, models=MODELS, dependencies=dependencies)
        self.addCleanup(server.close)
        return server

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Begin a request with the API key on a connection."""
        connection = self.server.connect(Role.MANAGEMENT)
        data = b"" if body is None else json.dumps(body).encode()
        connection.send(
            f"{method} {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {self.server.key(TokenKind.API)}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        return connection

    def test_client_leaves(self) -> None:
        """A key whose client leaves before it is made is made nevertheless, and recorded; its secret is lost."""
        self.threads.held = []
        connection = self.send("POST", "/keys", {"name": "ada", "scopes": ["console"]})
        connection.leave()
        with capturedLogs() as events:
            self.threads.release()
        self.assertEqual([key["name"] for key in self.stored()], ["ada"])
        self.assertEqual(self.ask("GET", "/keys/ada").status, 200)
        self.assertIn("The key ada (", "\n".join(str(formatEvent(event)) for event in events))
        self.assertEqual([event for event in events if "log_failure" in event], [])

    def test_client_leaves_a_failure(self) -> None:
        """A change that fails after its client has left is logged once, without a traceback."""
        self.make()
        self.threads.held = []
        self.send("POST", "/keys", {"name": "ada", "scopes": ["console"]}).leave()
        with capturedLogs() as events:
            self.threads.release()
        self.assertEqual([event for event in events if "log_failure" in event], [])
        self.assertIn("A key has the name 'ada' already", "\n".join(str(formatEvent(event)) for event in events))

    def test_in_order(self) -> None:
        """Changes that come at once are made one after another, each from what the one before has left."""
        self.threads.held = []
        connections = [
            self.send("POST", "/keys", {"name": "ada", "scopes": ["console"]}),
            self.send("POST", "/keys", {"name": "ada", "scopes": ["console"]}),
            self.send("PATCH", "/keys/ada", {"rate": 7}),
            self.send("POST", "/keys/ada/rotate"),
            self.send("DELETE", "/keys/ada"),
            self.send("PATCH", "/keys/ada", {"rate": 7}),
            self.send("POST", "/keys", {"name": "ada", "scopes": ["tokens"]}),
        ]
        self.assertEqual(len(self.threads.held), 1)
        self.threads.release()
        said = [connection.received.split(b" ", 2)[1] for connection in connections]
        self.assertEqual(said, [b"201", b"409", b"200", b"200", b"200", b"404", b"201"])
        self.assertIn(b'"rate": 7', connections[3].received)
        self.assertEqual([key["scopes"] for key in self.stored()], [["tokens"]])

    def test_stop(self) -> None:
        """A change in progress when the server stops is finished first."""
        self.threads.held = []
        self.send("POST", "/keys", {"name": "ada", "scopes": ["console"]})
        stopped = self.server.server.stopService()
        self.assertNoResult(stopped)
        self.threads.release()
        self.server.clock.advance(60)
        self.successResultOf(stopped)
        self.assertEqual([key["name"] for key in self.stored()], ["ada"])

    def test_full_disk(self) -> None:
        """When the file cannot be written the answer is 500 with the reason; no key has changed, no file is left."""
        secret = self.make()
        before = self.store.read_bytes()
        for method, path, body in (
            ("POST", "/keys", {"name": "b", "scopes": ["console"]}),
            ("PATCH", "/keys/ada", {"disabled": True}),
            ("POST", "/keys/ada/rotate", None),
            ("DELETE", "/keys/ada", None),
        ):
            with patch.object(os, "fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
                answer = self.ask(method, path, body)
            self.assertError(answer, 500, "stay as they were", "No space left on device")
        self.assertEqual(self.store.read_bytes(), before)
        self.assertEqual([path.name for path in self.store.parent.iterdir()], ["keys.json"])
        self.assertEqual(self.ping(secret), 200)
        self.assertEqual([key["name"] for key in self.ask("GET", "/keys").json["keys"]], ["ada"])

    def test_open_connection(self) -> None:
        """A key that is revoked is refused at the next request of a connection that is open."""
        secret = self.make()
        connection = self.server.connect()
        ask = f"GET /ping HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {secret}\r\n\r\n".encode()
        connection.send(ask)
        self.assertEqual((connection.received.count(b" 200 OK"), connection.open), (1, True))
        self.ask("DELETE", "/keys/ada")
        connection.send(ask)
        self.assertEqual((connection.received.count(b" 200 OK"), connection.received.count(b" 400 ")), (1, 1))


class SharedStoreTests(KeysCase):
    """Tests for a store that another server changes, or that something breaks."""

    def both(self, method: str, path: str, body: Any = None) -> list[int]:
        """Ask both servers."""
        statuses = []
        for server in (self.server, self.other):
            key = server.key(TokenKind.API)
            data = b"" if body is None else json.dumps(body).encode()
            statuses.append(server.request(method, path, key, {}, data).status)
        return statuses

    def setUp(self) -> None:
        super().setUp()
        self.other = self.serve()

    def test_shared(self) -> None:
        """Each server accepts and refuses within a second what the other has made or revoked; nothing is lost."""
        first = self.make("a")
        self.assertEqual(self.other.request("GET", "/ping", first).status, 400)
        self.other.advance(1)
        self.assertEqual(self.other.request("GET", "/ping", first).status, 200)
        # Each makes a key before it has seen that of the other.
        self.assertEqual(self.both("POST", "/keys", {"name": "b", "scopes": ["console"]}), [201, 409])
        self.server, self.other = self.other, self.server
        second = self.make("c")
        self.server.advance(1)
        self.other.advance(1)
        self.assertEqual([key["name"] for key in self.stored()], ["a", "b", "c"])
        for server in (self.server, self.other):
            self.assertEqual([server.request("GET", "/ping", key).status for key in (first, second)], [200, 200])
        self.ask("DELETE", "/keys/a")
        self.other.advance(1)
        for server in (self.server, self.other):
            self.assertEqual([server.request("GET", "/ping", key).status for key in (first, second)], [400, 200])

    def test_reload(self) -> None:
        """SIGHUP reads the file at once."""
        secret = self.make()
        self.other.server.reload()
        self.assertEqual(self.other.request("GET", "/ping", secret).status, 200)

    def test_broken(self) -> None:
        """A file that cannot be used leaves the keys as they are; it is logged once, and when it is mended."""
        secret = self.make()
        good = self.store.read_bytes()
        with capturedLogs() as events:
            self.store.write_bytes(good[:-10])
            self.server.advance(5)
            self.assertEqual(self.ping(secret), 200)
            self.assertError(self.ask("DELETE", "/keys/ada"), 500, "stay as they were")
            self.assertEqual(self.store.read_bytes(), good[:-10])
            self.server.advance(5)
            self.store.write_bytes(good)
            self.server.advance(5)
        lines = [str(formatEvent(event)) for event in events]
        self.assertEqual(len([line for line in lines if line.startswith("The named keys stay as they were")]), 1, lines)
        self.assertEqual(len([line for line in lines if "can be used again" in line]), 1, lines)
        self.assertEqual(self.ask("DELETE", "/keys/ada").status, 200)

    def test_gone(self) -> None:
        """A file that is gone leaves the keys as they are."""
        secret = self.make()
        self.store.unlink()
        self.server.advance(2)
        self.assertEqual(self.ping(secret), 200)
        self.assertFalse(self.store.exists())

    def test_replaced(self) -> None:
        """A file that an operator puts in its place counts: other keys, other limits, and what is gone is refused."""
        one, two = self.make("a"), self.make("b")
        keys = self.stored()
        keys[0]["scopes"] = ["models:read"]
        text = json.dumps({"format": 1, "keys": [keys[0]]})
        draft = self.store.with_name("draft")
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o600)
        draft.rename(self.store)
        self.server.advance(1)
        self.assertEqual((self.ping(one), self.ping(two)), (403, 400))

    def test_bad_start(self) -> None:
        """A server does not start with a file that it cannot use: it says why, and changes and leaves nothing."""
        for content, mode, word in (
            (b"", 0o600, "JSON"),
            (b'{"format": 2, "keys": []}', 0o600, "format"),
            (b'{"format": 1, "keys": []}', 0o644, "0600"),
        ):
            self.store.write_bytes(content)
            self.store.chmod(mode)
            error = self.assertRaises(ValueError, MemoryServer, {"token_store": self.store})
            self.assertIn("token_store", str(error))
            self.assertIn(word, str(error))
            self.assertEqual(self.store.read_bytes(), content)
            self.assertEqual([path.name for path in self.store.parent.iterdir()], ["keys.json"])
