# SPDX-License-Identifier: Apache-2.0
"""
Use the public strategies as users do: against a whole server in memory.
"""

from __future__ import annotations

import json

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.targets import parse_target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.testing.strategies.requests import ClientRequest, client_requests
from twisted_serve.testing.strategies.tokens import Replacement, rotations
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
