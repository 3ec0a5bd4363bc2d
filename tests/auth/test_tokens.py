# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.tokens``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TOKEN_BYTES, Entropy, KeySet, Token, TokenKind, fresh_keys, fresh_token
from twisted_serve.testing.strategies.tokens import (
    aware_datetimes,
    entropies,
    key_sets,
    lifetimes,
    presented_tokens,
    token_kinds,
    tokens,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


class TokenTests(SynchronousTestCase):
    """Tests for one token."""

    @given(token_kinds(), entropies(), aware_datetimes(), lifetimes())
    def test_opens_until_expiry(self, kind: TokenKind, entropy: Entropy, now: datetime, lifetime: timedelta) -> None:
        """A token is accepted up to, and not at, the end of its lifetime."""
        token = fresh_token(kind, entropy, now, lifetime)
        secret = token.secret.encode()
        self.assertTrue(token.opens(kind, secret, now))
        self.assertTrue(token.opens(kind, secret, now + lifetime - timedelta(microseconds=1)))
        self.assertFalse(token.opens(kind, secret, now + lifetime))
        self.assertFalse(token.opens(kind, secret, now + 2 * lifetime))

    @given(tokens(), token_kinds(), aware_datetimes())
    def test_other_kinds(self, token: Token, kind: TokenKind, now: datetime) -> None:
        """A token grants no other kind."""
        if kind is not token.kind:
            self.assertFalse(token.opens(kind, token.secret.encode(), now))

    @given(tokens(), presented_tokens(), aware_datetimes())
    def test_wrong_secret(self, token: Token, presented: bytes, now: datetime) -> None:
        """What is not the secret opens nothing, whatever its length or bytes."""
        if presented != token.secret.encode():
            self.assertFalse(token.opens(token.kind, presented, now))

    @given(tokens())
    def test_secret_not_shown(self, token: Token) -> None:
        """Neither the representation of a token nor its public id holds the secret."""
        self.assertNotIn(token.secret, repr(token))
        self.assertNotIn(token.secret, token.public_id)

    def test_never_expires(self) -> None:
        """A token without an expiry opens for ever."""
        token = fresh_token(TokenKind.API, lambda n: b"x" * n, NOW, None)
        self.assertTrue(token.opens(TokenKind.API, token.secret.encode(), NOW + timedelta(days=36500)))

    def test_strength(self) -> None:
        """A token has at least 128 random bits, asked for in one go, in URL-safe characters."""
        asked: list[int] = []

        def entropy(n: int) -> bytes:
            asked.append(n)
            return b"\xff\xef\xbe" * (n // 3)

        token = fresh_token(TokenKind.INFERENCE, entropy, NOW, None)
        self.assertEqual(asked, [TOKEN_BYTES])
        self.assertGreaterEqual(TOKEN_BYTES * 8, 128)
        self.assertRegex(token.secret, r"\A[A-Za-z0-9_-]{32}\Z")

    def test_naive_date(self) -> None:
        """An expiry which does not say its time zone is refused by name."""
        with self.assertRaisesRegex(ValueError, "expires is 2026-01-02T03:04:05"):
            Token(TokenKind.API, "abcdefgh", NOW.replace(tzinfo=None))

    @given(
        st.sampled_from(
            ["short", "with blank", "with,comma", "=in=front", "equals=inside", "", "ümlaut-ümlaut", "line\nbreakbreak"]
        )
    )
    def test_impossible_secret(self, secret: str) -> None:
        """A secret which a header could not carry as it is, is refused."""
        with self.assertRaises(ValueError):
            Token(TokenKind.API, secret)


class KeySetTests(SynchronousTestCase):
    """Tests for the three tokens together."""

    @given(key_sets())
    def test_distinct(self, keys: KeySet) -> None:
        """The three tokens are of the three kinds, differ, and only the API token never expires."""
        self.assertEqual([token.kind for token in keys], list(TokenKind))
        self.assertEqual(len({token.secret for token in keys}), 3)
        self.assertEqual([token.expires is None for token in keys], [False, False, True])

    @given(key_sets(), token_kinds(), entropies())
    def test_replacing(self, keys: KeySet, kind: TokenKind, entropy: Entropy) -> None:
        """Replacing a token changes the one of its kind and no other."""
        fresh = fresh_token(kind, entropy, NOW, None)
        assume(fresh.secret not in [token.secret for token in keys])
        replaced = keys.replacing(fresh)
        for other in TokenKind:
            self.assertIs(replaced.of(other), fresh if other is kind else keys.of(other))

    def test_wrong_places(self) -> None:
        """A token cannot be put in another's place."""
        keys = fresh_keys(Random(1).randbytes, NOW, timedelta(hours=1))
        with self.assertRaises(ValueError):
            KeySet(management=keys.inference, inference=keys.management, api=keys.api)

    def test_broken_entropy(self) -> None:
        """A source of random bytes which repeats itself is noticed."""
        with self.assertRaisesRegex(ValueError, "broken"):
            fresh_keys(lambda n: b"4" * n, NOW, timedelta(hours=1))
