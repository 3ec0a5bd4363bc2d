# SPDX-License-Identifier: Apache-2.0
"""
Use the public strategies as users do: against a whole server in memory.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

from hypothesis import find, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.targets import parse_target
from twisted_serve.auth.tokens import Token, TokenKind
from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.testing.strategies.requests import ClientRequest, client_requests
from twisted_serve.testing.strategies.tokens import (
    AROUND,
    SPOILED,
    Replacement,
    instants_around,
    near,
    rotations,
)
from twisted_serve.web.api.access import is_open


class RequestTests(SynchronousTestCase):
    """Any request of any client, to a server that requires a key and to one that does not."""

    def setUp(self) -> None:
        self.server = MemoryServer(models={"m": {}})
        self.addCleanup(self.server.close)
        self.unlocked = MemoryServer({"disable_token_authorization": True}, models={"m": {}})
        self.addCleanup(self.unlocked.close)

    @given(client_requests())
    def test_without_a_key(self, request: ClientRequest) -> None:
        """Without a key a request is refused, unless its path is one of the few public ones."""
        keys = self.server.keys
        for role in (Role.INFERENCE, Role.MANAGEMENT):
            received = self.server.connect(role).send(request.render())
            status = int(received.split(b" ", 2)[1])
            target = parse_target(request.target.encode("latin-1"))
            if target.flaw is None and is_open(request.method.encode(), target, role, exempt_ping=False):
                self.assertIn(status, (200, 404, 405, 503), received)
            else:
                self.assertEqual(status, 400, received)
                self.assertTrue(request.method == "HEAD" or b"InvalidKeyException" in received, received)
        self.assertEqual(self.server.keys, keys)

    @given(client_requests())
    def test_always_answered(self, request: ClientRequest) -> None:
        """Any request is answered immediately, with an intended status and without an internal error."""
        for role in Role:
            received = self.unlocked.connect(role).send(request.render())
            status = int(received.split(b" ", 2)[1])
            self.assertIn(status, (200, 202, 400, 403, 404, 405, 409, 413, 503), received)
        self.assertEqual(self.flushLoggedErrors(), [])


class RotationTests(SynchronousTestCase):
    """Any sequence of key rotations by an operator."""

    @given(rotations())
    def test_last_keys_count(self, replacements: list[Replacement]) -> None:
        """What is in the file opens, if it is in time; whatever was in it before does not."""
        with MemoryServer(models={}) as server:
            dead = set()
            for replacement in replacements:
                server.advance(replacement.after.total_seconds())
                dead.add(server.key(replacement.kind))
                answer = server.request("POST", f"/token?type={replacement.kind.value}", server.key(TokenKind.API))
                self.assertEqual(answer.status, 200)
            file = json.loads(server.key_file.read_bytes())
            for kind, path in ((TokenKind.MANAGEMENT, "/models"), (TokenKind.INFERENCE, "/ping")):
                in_time = not server.keys.of(kind).expired(server.now())
                status = server.request("GET", path, file[kind.value]["key"]).status
                self.assertEqual(status, 200 if in_time else 400)
                for key in dead:
                    self.assertEqual(server.request("GET", path, key).status, 400)


class BoundaryTests(SynchronousTestCase):
    """The instants at which mistakes hide."""

    MICROSECOND = timedelta(microseconds=1)

    def test_near(self) -> None:
        """All instants around a lifetime are generated, and others up to twice it; the simplest is the end."""
        for distance in AROUND:
            seconds = (timedelta(hours=1) + distance).total_seconds()
            self.assertEqual(find(near(3600), seconds.__eq__), seconds)
        self.assertEqual(find(near(timedelta(minutes=5)), lambda _: True), 300)
        find(near(3600), lambda seconds: 1000 < seconds < 2000)
        find(near(3600), lambda seconds: 5000 < seconds < 6000)

    @given(st.timedeltas(MICROSECOND, timedelta(days=30)).flatmap(lambda life: st.tuples(st.just(life), near(life))))
    def test_ages(self, example: tuple[timedelta, float]) -> None:
        """Ages are whole microseconds, not negative, and at most twice the lifetime or a minute more than it."""
        lifetime, seconds = example
        self.assertGreaterEqual(seconds, 0)
        self.assertLessEqual(timedelta(seconds=seconds), max(2 * lifetime, lifetime + timedelta(minutes=1)))
        self.assertEqual(timedelta(seconds=seconds).total_seconds(), seconds)

    def test_instants(self) -> None:
        """The instants around a key are those around its expiry; a key that never expires has none."""
        expires = datetime(2026, 1, 1, tzinfo=timezone.utc)
        instants = instants_around(Token(TokenKind.INFERENCE, "abcdefgh", expires))
        self.assertEqual(find(instants, lambda _: True), expires)
        for instant in (expires - self.MICROSECOND, expires + self.MICROSECOND):
            find(instants, instant.__eq__)
        with self.assertRaisesRegex(ValueError, "^the API key never expires$"):
            instants_around(Token(TokenKind.API, "abcdefgh"))

    def test_spoiled(self) -> None:
        """No way to spoil a key leaves it as it is, and all differ."""
        key = "abcdefghIJKLMNOP"
        headers = [tuple(way.headers(key)) for way in SPOILED]
        self.assertNotIn((f"Bearer {key}",), headers)
        self.assertEqual(len(set(headers)), len(SPOILED))
        self.assertEqual(repr(SPOILED[0]), "<two headers with the key>")
