# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.gate``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.gate import Allowed, Authorizer, Denied, OpenAuthorizer, bearer_token, refusal_text
from twisted_serve.auth.keyring import Keyring, Reason
from twisted_serve.auth.needs import Need
from twisted_serve.auth.targets import Target, parse_target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.strategies.tokens import authorization_headers

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def counting() -> Keyring:
    """Make a keyring whose keys are not random, which is enough here, and saved nowhere."""
    numbers = iter(range(1, 1000))
    return Keyring.create(lambda keys: None, lambda size: next(numbers).to_bytes(size, "big"), HOUR, NOW, lambda: 0.0)


def policy(method: bytes, target: Target) -> Need:
    """Need the token which the first segment names; nothing for ``open``."""
    return Need(None, None if target.first == "open" else TokenKind(target.first))


class BearerTests(SynchronousTestCase):
    """Tests for reading the ``Authorization`` header."""

    def test_token(self) -> None:
        """The scheme in any case, blanks, then the token."""
        for value in (b"Bearer abc", b"bearer abc", b"BEARER    abc", b"Bearer abc  "):
            self.assertEqual(bearer_token([value]), b"abc", value)

    def test_no_token(self) -> None:
        """A request without the header has no token, and one with several headers has none that counts."""
        self.assertIs(bearer_token([]), Reason.MISSING)
        self.assertIs(bearer_token([b"Bearer abc", b"Bearer abc"]), Reason.SEVERAL)

    def test_malformed(self) -> None:
        """Anything else is malformed, what is too long to be a token included."""
        for value in (
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearerabc",
            b"Basic abc",
            b"Bearer a b",
            b"Bearer\tabc",
            b"Bearer a\tb",
            b"Bearer a\x0bb",
            b" Bearer abc",
            b"Bearer " + b"a" * 513,
        ):
            self.assertIs(bearer_token([value]), Reason.MALFORMED, value)

    @given(authorization_headers())
    def test_never_raises(self, headers: list[bytes]) -> None:
        """Whatever is sent, it is one token without blanks, or a reason why it is none."""
        presented = bearer_token(headers)
        if isinstance(presented, bytes):
            self.assertEqual(len(headers), 1)
            self.assertEqual(presented.split(), [presented])
            self.assertTrue(headers[0].rstrip(b" ").endswith(presented))


class GateTests(SynchronousTestCase):
    """Tests for the decision about a request."""

    def setUp(self) -> None:
        self.now = NOW
        self.keyring = counting()
        self.gate = Authorizer(policy, self.keyring, lambda: self.now)

    def ask(self, path: bytes, *authorization: bytes) -> Allowed | Denied:
        return self.gate.ask(b"GET", parse_target(path), authorization)

    def bearer(self, kind: TokenKind) -> bytes:
        return b"Bearer " + self.keyring.keys.of(kind).secret.encode()

    def test_matrix(self) -> None:
        """Each token opens what its kind may, and nothing else; a refusal names the kind and the key."""
        for needed in TokenKind:
            for presented in TokenKind:
                verdict = self.ask(b"/" + needed.value.encode(), self.bearer(presented))
                if presented is needed:
                    self.assertEqual(verdict, Allowed(needed))
                else:
                    key_id = self.keyring.keys.of(presented).public_id
                    self.assertEqual(verdict, Denied(needed, Reason.WRONG_KIND, key_id))

    def test_no_right_token(self) -> None:
        """Who has no token, a broken one or one of nobody's is stopped, and told apart for the record."""
        for headers, reason in (
            ((), Reason.MISSING),
            ((b"Bearer a", b"Bearer b"), Reason.SEVERAL),
            ((b"nonsense",), Reason.MALFORMED),
            ((b"Bearer unknown",), Reason.UNKNOWN),
            ((b"Bearer \xff\xfe",), Reason.UNKNOWN),
        ):
            self.assertEqual(self.ask(b"/inference", *headers), Denied(TokenKind.INFERENCE, reason))

    def test_expiry(self) -> None:
        """A token opens until just before its expiry, and not at that instant."""
        self.now = NOW + HOUR - timedelta(microseconds=1)
        self.assertEqual(self.ask(b"/inference", self.bearer(TokenKind.INFERENCE)), Allowed(TokenKind.INFERENCE))
        self.now = NOW + HOUR
        key_id = self.keyring.keys.inference.public_id
        self.assertEqual(
            self.ask(b"/inference", self.bearer(TokenKind.INFERENCE)),
            Denied(TokenKind.INFERENCE, Reason.EXPIRED, key_id),
        )

    def test_public(self) -> None:
        """A public target needs no token, and the verdict says that it is public."""
        for headers in ((), (b"nonsense",), (self.bearer(TokenKind.API),)):
            self.assertEqual(self.ask(b"/open", *headers), Allowed(None))

    def test_no_tokens(self) -> None:
        """With token authorization switched off every request is allowed, with the scope that it would need."""
        gate = OpenAuthorizer(policy)
        self.assertEqual(gate.ask(b"GET", parse_target(b"/inference"), ()), Allowed(TokenKind.INFERENCE))
        self.assertEqual(gate.ask(b"GET", parse_target(b"/open"), ()), Allowed(None))

    @given(st.sampled_from(list(TokenKind)), authorization_headers())
    def test_guesses(self, kind: TokenKind, headers: list[bytes]) -> None:
        """No invented token is accepted."""
        gate = Authorizer(policy, counting(), lambda: NOW)
        self.assertIsInstance(gate.ask(b"GET", Target((kind.value,)), headers), Denied)

    def test_texts(self) -> None:
        """A refusal has the predecessor's text, which differs in one word at the token API."""
        self.assertIn("Token Authentication failed.", refusal_text(TokenKind.API))
        for kind in (TokenKind.MANAGEMENT, TokenKind.INFERENCE):
            self.assertIn("Token Authorization failed.", refusal_text(kind))
