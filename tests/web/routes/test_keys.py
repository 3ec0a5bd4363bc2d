# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.web.routes.keys``: named keys are managed."""

from __future__ import annotations

import stat
from hashlib import sha256
from typing import Any

from tests.web.routes.keys_case import KeysCase
from twisted_serve.auth.named.secrets import is_well_formed
from twisted_serve.auth.named.store import KeyStore
from twisted_serve.testing.server import MemoryServer


class KeyRouteTests(KeysCase):
    """Tests for the routes of keys."""

    def test_life(self) -> None:
        """A key is made, found in lists, used, changed, rotated and revoked; each counts at once."""
        made = self.ask("POST", "/keys", {"name": "ada", "scopes": ["inference:m", "models:read"], "rate": 60})
        self.assertEqual(made.status, 201)
        self.assertEqual(made.headers["cache-control"], "no-store")
        described = {name: value for name, value in made.json.items() if name != "key"}
        secret = made.json["key"]
        self.assertTrue(is_well_formed(secret))
        self.assertEqual(
            described,
            {
                "name": "ada",
                "id": sha256(secret.encode()).hexdigest()[:8],
                "scopes": ["inference:m", "models:read"],
                "created": "2026-01-01T00:00:00.000000Z",
                "expires": None,
                "disabled": False,
                "rate": 60,
                "concurrent": None,
                "lastUsed": None,
            },
        )
        self.assertEqual(self.ask("GET", "/keys/ada").json, described)
        self.assertEqual(self.ask("GET", "/keys").json, {"keys": [described]})
        self.assertEqual(self.ping(secret), 200)
        self.server.advance(5)
        self.assertEqual(self.server.request("GET", "/models", secret).status, 200)
        self.assertEqual(self.ask("GET", "/keys/ada").json["lastUsed"], "2026-01-01T00:00:05.000000Z")

        changed = self.ask("PATCH", "/keys/ada", {"scopes": ["models:read"], "expires_in_sec": 60, "rate": None})
        self.assertEqual(changed.status, 200)
        self.assertEqual((changed.json["scopes"], changed.json["rate"]), (["models:read"], None))
        self.assertEqual(changed.json["expires"], "2026-01-01T00:01:05.000000Z")
        self.assertEqual(self.ping(secret), 403)
        self.assertEqual(self.server.request("GET", "/models", secret).status, 200)

        rotated = self.ask("POST", "/keys/ada/rotate")
        self.assertEqual((rotated.status, rotated.headers["cache-control"]), (200, "no-store"))
        self.assertNotEqual(rotated.json["key"], secret)
        self.assertEqual(self.server.request("GET", "/models", secret).status, 400)
        secret = rotated.json["key"]
        self.assertEqual(self.server.request("GET", "/models", secret).status, 200)

        self.assertEqual(self.ask("PATCH", "/keys/ada", {"disabled": True}).json["disabled"], True)
        self.assertEqual(self.server.request("GET", "/models", secret).status, 400)
        self.assertEqual(self.ask("PATCH", "/keys/ada", {"disabled": False}).status, 200)
        self.assertEqual(self.server.request("GET", "/models", secret).status, 200)

        gone = self.ask("DELETE", "/keys/ada")
        self.assertEqual((gone.status, gone.json), (200, {"status": 'Key "ada" revoked'}))
        self.assertEqual(self.server.request("GET", "/models", secret).status, 400)
        self.assertEqual(self.ask("GET", "/keys").json, {"keys": []})
        self.assertError(self.ask("GET", "/keys/ada"), 404, "ada")

    def test_store(self) -> None:
        """The file is made with the first key, for its owner alone, without secrets; a restart finds its keys."""
        self.assertFalse(self.store.exists())
        secret = self.make()
        self.assertEqual(stat.S_IMODE(self.store.stat().st_mode), 0o600)
        self.assertNotIn(secret[4:20].encode(), self.store.read_bytes())
        self.server.close()
        self.server = self.serve()
        self.assertEqual(self.ping(secret), 200)

    def test_failed_change(self) -> None:
        """What another server has revoked is refused within a second, although a change here fails meanwhile."""
        secret = self.make()
        KeyStore(self.store).transaction(lambda keys: keys.without("ada"))
        self.assertError(self.ask("PATCH", "/keys/eve", {"disabled": True}), 404, "eve")
        self.server.advance(1)
        self.assertEqual(self.ping(secret), 400)

    def test_without_store(self) -> None:
        """Without a store each of the routes says which option is missing, to the API key alone."""
        self.server = MemoryServer({})
        self.addCleanup(self.server.close)
        for method, path in (("GET", "/keys"), ("POST", "/keys"), ("GET", "/keys/a"), ("PATCH", "/keys/a"),
                             ("DELETE", "/keys/a"), ("POST", "/keys/a/rotate")):  # fmt: skip
            self.assertError(self.ask(method, path), 404, "token_store")
            self.assertEqual(self.ask(method, path, key="").status, 400)

    def test_without_tokens(self) -> None:
        """Without tokens there are no such routes."""
        self.server = self.serve(disable_token_authorization=True)
        answer: Any = self.server.request("GET", "/keys", None, {}, b"")
        self.assertEqual(answer.status, 404)
        self.assertNotIn("token_store", answer.json["message"])
