# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.web.routes.keys``: bad input, and which keys may manage keys."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import capturedLogs, formatEvent

from tests.web.routes.keys_case import KeysCase
from twisted_serve.web.routes.keys import LONGEST_BODY

SECRET = "tsk_" + "a" * 38

#: Of a key to be made: the members, and words of the error.
BAD: tuple[tuple[Any, tuple[str, ...]], ...] = (
    ({}, ("scopes",)),
    ({"name": "a"}, ("scopes",)),
    ({"name": 7, "scopes": ["console"]}, ("name is 7", "str")),
    ({"name": "", "scopes": ["console"]}, ("name is ''",)),
    ({"name": ".a", "scopes": ["console"]}, ("name is '.a'",)),
    ({"name": "a/b", "scopes": ["console"]}, ("name is 'a/b'",)),
    ({"name": "a\n", "scopes": ["console"]}, ("name is 'a\\n'",)),
    ({"name": "é", "scopes": ["console"]}, ("name is",)),
    ({"name": "a" * 65, "scopes": ["console"]}, ("name is",)),
    ({"name": "a", "scopes": []}, ("scopes", "needs a scope")),
    ({"name": "a", "scopes": "inference"}, ('scopes is "inference"', "array")),
    ({"name": "a", "scopes": [1]}, ("scopes is [1]",)),
    ({"name": "a", "scopes": None}, ("scopes is null",)),
    ({"name": "a", "scopes": ["inference", "admin"]}, ("'admin' is no scope",)),
    ({"name": "a", "scopes": ["inference:"]}, ("'inference:' is no scope",)),
    ({"name": "a", "scopes": ["inference:a b"]}, ("'inference:a b' is no scope",)),
    ({"name": "a", "scopes": ["inference:" + "a" * 257]}, ("is no scope",)),
    ({"name": "a", "scopes": [f"inference:{i}" for i in range(65)]}, ("scopes", "64")),
    ({"name": "a", "scopes": ["console"], "rate": 0}, ("rate is 0",)),
    ({"name": "a", "scopes": ["console"], "rate": -1}, ("rate is -1",)),
    ({"name": "a", "scopes": ["console"], "rate": 1.5}, ("rate is 1.5",)),
    ({"name": "a", "scopes": ["console"], "rate": True}, ("rate is true",)),
    ({"name": "a", "scopes": ["console"], "rate": "60"}, ('rate is "60"',)),
    ({"name": "a", "scopes": ["console"], "rate": 10**30}, ("rate is 1000",)),
    ({"name": "a", "scopes": ["console"], "concurrent": 0}, ("concurrent is 0",)),
    ({"name": "a", "scopes": ["console"], "expires": "tomorrow"}, ('expires is "tomorrow"',)),
    ({"name": "a", "scopes": ["console"], "expires": "2027-01-01T00:00:00"}, ("expires is", "timezone")),
    ({"name": "a", "scopes": ["console"], "expires": "2027-02-30T00:00:00Z"}, ("expires is",)),
    ({"name": "a", "scopes": ["console"], "expires": "0001-01-01T00:00:00+14:00"}, ("expires is", "UTC")),
    ({"name": "a", "scopes": ["console"], "expires": "9999-12-31T23:59:59-14:00"}, ("expires is", "UTC")),
    ({"name": "a", "scopes": ["console"], "expires": "2026-01-01T00:00:00Z"}, ("expires is", "over")),
    ({"name": "a", "scopes": ["console"], "expires": 1e9}, ("expires is 1000000000.0",)),
    ({"name": "a", "scopes": ["console"], "expires_in_sec": 0}, ("expires_in_sec is 0",)),
    ({"name": "a", "scopes": ["console"], "expires_in_sec": -5}, ("expires_in_sec is -5",)),
    ({"name": "a", "scopes": ["console"], "expires_in_sec": None}, ("expires_in_sec is null",)),
    ({"name": "a", "scopes": ["console"], "expires_in_sec": 1e300}, ("expires_in_sec is 1e+300",)),
    ({"name": "a", "scopes": ["console"], "expires_in_sec": 1, "expires": None}, ("Both", "expires_in_sec")),
    ({"name": "a", "scopes": ["console"], "disabled": True}, ("unknown", "disabled")),
    ({"name": "a", "scopes": ["console"], "key": SECRET}, ("unknown", "key")),
    ({"name": "a", "scopes": ["console"], SECRET: 1}, ("unknown", "<redacted>")),
    ({"name": SECRET + "-", "scopes": ["console"], "rate": 0}, ("rate is 0",)),
    ({"name": SECRET + "/", "scopes": ["console"]}, ("name is '<redacted>/'",)),
    (b"", ("cannot be read",)),
    (b"null", ("not an object",)),
    (b"[]", ("not an object",)),
    (b"{", ("cannot be read",)),
    (b'{"name": "\xff"}', ("cannot be read",)),
    (b'{"name": "a", "name": "b", "scopes": ["console"]}', ("'name' is there twice",)),
    (b'{"name": "a", "scopes": ["console"], "expires_in_sec": NaN}', ("NaN",)),
    (b'{"name": "a", "scopes": ["console"], "expires_in_sec": 1e999}', ("expires_in_sec is inf",)),
    (b'{"name": "a", "scopes": ["console"], "rate": ' + b"9" * 5000 + b"}", ("cannot be read",)),
    (b"[" * 15000, ("cannot be read",)),
    (b'{"name": "\\ud800", "scopes": ["console"]}', ("name is",)),
)  # fmt: skip

PATHS = (
    ("GET", "/keys"),
    ("POST", "/keys"),
    ("GET", "/keys/ada"),
    ("PATCH", "/keys/ada"),
    ("DELETE", "/keys/ada"),
    ("POST", "/keys/ada/rotate"),
)


class BadInputTests(KeysCase):
    """Tests for what is refused."""

    def test_table(self) -> None:
        """Each is refused with its name and value, and without a secret; nothing is made, and nothing logged of it."""
        with capturedLogs() as events:
            for body, words in BAD:
                with self.subTest(body=body):
                    answer = self.ask("POST", "/keys", body)
                    self.assertError(answer, 400, *words)
                    self.assertNotIn(SECRET, answer.body.decode())
                    self.assertLess(len(answer.body), 1000)
        self.assertFalse(self.store.exists())
        self.assertEqual([formatEvent(event) for event in events if "log_failure" in event], [])
        self.assertNotIn(SECRET, "".join(str(formatEvent(event)) for event in events))

    def test_large_body(self) -> None:
        """A body over the limit is not parsed."""
        body = json.dumps({"name": "a", "scopes": ["console"], "x": "x" * LONGEST_BODY}).encode()
        self.assertError(self.ask("POST", "/keys", body), 413, str(len(body)))

    def test_change(self) -> None:
        """A change is as strict, and changes nothing when it is refused."""
        self.make(rate=5)
        before = self.store.read_bytes()
        for body, words in (
            ({}, ("nothing to change",)),
            ({"name": "b"}, ("unknown", "name")),
            ({"disabled": None}, ("disabled is null",)),
            ({"disabled": 1}, ("disabled is 1",)),
            ({"scopes": []}, ("scopes",)),
            ({"rate": 0, "scopes": ["console"]}, ("rate is 0",)),
            ({"expires": "2025-01-01T00:00:00Z"}, ("expires", "over")),
        ):
            with self.subTest(body=body):
                self.assertError(self.ask("PATCH", "/keys/ada", body), 400, *words)
        self.assertError(self.ask("POST", "/keys/ada/rotate", {"x": 1}), 400, "no parameters")
        self.assertEqual(self.store.read_bytes(), before)

    def test_names(self) -> None:
        """A name that is taken is 409, one that no key has 404 for each route, and quotes no secret."""
        self.make()
        self.assertError(self.ask("POST", "/keys", {"name": "ada", "scopes": ["console"]}), 409, "'ada'")
        before = self.store.read_bytes()
        for name in ("Ada", "ad", "ada%00", "ada%2F", "%20", "..", "a" * 5000, SECRET):
            for method, path in PATHS[2:]:
                answer = self.ask(method, path.replace("ada", name), {"rate": 1} if method == "PATCH" else None)
                self.assertIn(answer.status, (400,) if name in ("ada%00", "ada%2F", "..") else (404,), (method, name))
                self.assertNotIn(SECRET, answer.body.decode())
                self.assertLess(len(answer.body), 1000)
        self.assertEqual(self.store.read_bytes(), before)

    def test_methods(self) -> None:
        """Another method is 405 with those that are there; HEAD is as GET, and OPTIONS as elsewhere."""
        self.make()
        for path, allowed in (
            ("/keys", "GET, HEAD, POST"),
            ("/keys/ada", "DELETE, GET, HEAD, PATCH"),
            ("/keys/ada/rotate", "POST"),
        ):
            answer = self.ask("PUT", path)
            self.assertEqual((answer.status, answer.headers["allow"]), (405, allowed))
            self.assertEqual(self.ask("OPTIONS", path).status, 405)
        self.assertEqual(self.ask("HEAD", "/keys/ada").status, 200)
        self.assertEqual(self.ask("HEAD", "/keys/ada/rotate").status, 405)

    def test_keys_that_open(self) -> None:
        """The API key and the scope ``tokens`` open each route, no other key does, whether or not there is the key."""
        self.make()
        others = [
            self.make(f"k{number}", [scope])
            for number, scope in enumerate(
                ("inference", "inference:*", "models:read", "models:write", "metrics", "console")
            )
        ]
        admin = self.make("admin", ["tokens"])
        before = self.store.read_bytes()
        for path in ("ada", "nobody"):
            for method, target in PATHS:
                target = target.replace("ada", path)  # noqa: PLW2901
                three = self.server.keys
                for key in (three.inference.secret, three.management.secret, "", "x", SECRET):
                    self.assertEqual(self.ask(method, target, key=key).status, 400, (method, target))
                for key in others:
                    answer = self.ask(method, target, key=key)
                    self.assertError(answer, 403, "no scope for this request")
                    self.assertEqual(answer.json["type"], "InsufficientScopeException")
        self.assertEqual(self.store.read_bytes(), before)
        self.assertEqual(self.ask("GET", "/keys", key=admin).status, 200)
        self.assertEqual(self.ask("POST", "/keys", {"name": "b", "scopes": ["console"]}, admin).status, 201)
        self.assertEqual(self.ask("PATCH", "/keys/b", {"rate": 1}, admin).status, 200)
        self.assertEqual(self.ask("POST", "/keys/b/rotate", key=admin).status, 200)
        self.assertEqual(self.ask("DELETE", "/keys/b", key=admin).status, 200)
        self.assertEqual(self.ask("POST", "/token?type=inference", key=admin).status, 200)

    def test_pages(self) -> None:
        """A list is on pages in the order of creation; odd numbers count as those of other lists do."""
        for number in range(5):
            self.make(f"k{4 - number}", ["console"])
        first = self.ask("GET", "/keys?limit=2").json
        self.assertEqual([key["name"] for key in first["keys"]], ["k4", "k3"])
        second = self.ask("GET", f"/keys?limit=2&next_page_token={first['nextPageToken']}").json
        self.assertEqual([key["name"] for key in second["keys"]], ["k2", "k1"])
        third = self.ask("GET", f"/keys?limit=2&next_page_token={second['nextPageToken']}").json
        self.assertEqual(([key["name"] for key in third["keys"]], third.get("nextPageToken")), (["k0"], None))
        for query in ("limit=0", "limit=-1", "limit=x", "limit=101", "next_page_token=-7", "next_page_token=x"):
            self.assertEqual(len(self.ask("GET", f"/keys?{query}").json["keys"]), 5, query)
        self.assertEqual(self.ask("GET", "/keys?next_page_token=2147483647").json, {"keys": []})

    def test_audit(self) -> None:
        """Each change has a line with the key, what was done, and the origin; no line has a secret."""
        with capturedLogs() as events:
            secrets = [self.make(), self.make("admin", ["tokens"])]
            admin = self.ask("GET", "/keys/admin").json["id"]
            self.ask("PATCH", "/keys/ada", {"rate": 1, "disabled": True}, secrets[1])
            secrets.append(self.ask("POST", "/keys/ada/rotate").json["key"])
            self.ask("DELETE", "/keys/ada", key=secrets[1])
            self.ask("POST", "/token?type=inference", key=secrets[1])
        lines = [str(formatEvent(event)) for event in events]
        said = "\n".join(line for line in lines if line.startswith("AUDIT"))
        for words in (
            "The key ada (",
            "was created with the scopes inference by 127.0.0.1\n",
            f"was changed in rate, disabled by 127.0.0.1 with the key admin ({admin})",
            "was given a new secret instead of",
            f"was revoked by 127.0.0.1 with the key admin ({admin})",
            f"The inference token was replaced by 127.0.0.1 with the key admin ({admin})",
        ):
            self.assertIn(words, said)
        for secret in secrets:
            self.assertNotIn(secret, "\n".join(lines))

    def test_warnings(self) -> None:
        """A pattern without a model of its kind is accepted, with a warning; other scopes need no model."""
        scopes = ["inference:m*", "inference:resnet*", "console"]
        answer = self.ask("POST", "/keys", {"name": "ada", "scopes": scopes})
        self.assertEqual(answer.json["warnings"], ["inference:resnet* matches no model that is registered now."])
        answer = self.ask("PATCH", "/keys/ada", {"scopes": ["inference:m*"]})
        self.assertNotIn("warnings", answer.json)

    def test_dates(self) -> None:
        """A date is in UTC, whatever zone the client writes it in, and can be taken back; then the key lives on."""
        secret = self.make(expires="2026-01-01T02:00:00+01:00")
        self.assertEqual(self.ask("GET", "/keys/ada").json["expires"], "2026-01-01T01:00:00.000000Z")
        self.server.advance(3599)
        self.assertEqual(self.ping(secret), 200)
        self.assertIsNone(self.ask("PATCH", "/keys/ada", {"expires": None}).json["expires"])
        self.server.advance(3600)
        self.assertEqual(self.ping(secret), 200)
        self.ask("PATCH", "/keys/ada", {"expires_in_sec": 1})
        self.server.advance(1)
        self.assertEqual(self.ping(secret), 400)
