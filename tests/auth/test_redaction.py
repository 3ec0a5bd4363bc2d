# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.redaction``.
"""

from __future__ import annotations

from random import Random
from urllib.parse import quote, unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.named.secrets import fresh_secret
from twisted_serve.auth.redaction import REDACTED, redacted, redacting
from twisted_serve.auth.tokens import KeySet
from twisted_serve.testing.strategies.tokens import key_sets


def escape(text: str, every: int) -> str:
    """Percent-encode each ``every``-th character, which needs it or not."""
    return "".join(f"%{ord(c):02x}" if i % every == 0 else c for i, c in enumerate(text))


class RedactionTests(SynchronousTestCase):
    """Tests for what is left of a target."""

    @given(key_sets(), st.text(max_size=10), st.integers(1, 40), st.integers(0, 3))
    def test_gone(self, keys: KeySet, around: str, every: int, layers: int) -> None:
        """A key cannot be had from what is left, plain or encoded, once or over and over."""
        secrets = [token.secret.encode() for token in keys]
        for token in keys:
            hidden = escape(token.secret, every)
            for _ in range(layers):
                hidden = quote(hidden, safe="")
            left = redacted(f"/{quote(around)}?x={hidden}&y=1".encode(), secrets)
            for _ in range(6):
                self.assertNotIn(token.secret.encode(), left)
                left = unquote_to_bytes(left)

    @given(st.randoms(use_true_random=False), st.text(max_size=10), st.integers(1, 50), st.integers(0, 3))
    def test_named(self, random: Random, around: str, every: int, layers: int) -> None:
        """Nor can the secret of a named key, of which the server has a digest."""
        secret = fresh_secret(random.randbytes)
        hidden = escape(secret, every)
        for _ in range(layers):
            hidden = quote(hidden, safe="")
        left = redacted(f"/{quote(around)}?x={hidden}&y=1".encode(), [])
        for _ in range(6):
            self.assertNotIn(secret.encode(), left)
            left = unquote_to_bytes(left)
        self.assertEqual(redacted(f"/a{secret}{secret}b".encode(), []), b"/a" + 2 * REDACTED + b"b")
        self.assertEqual(redacted(secret[:-1].encode(), []), secret[:-1].encode())

    @given(key_sets(), st.binary(max_size=100))
    def test_nothing_else(self, keys: KeySet, target: bytes) -> None:
        """What holds no key is left as it is."""
        self.assertEqual(redacted(target, [token.secret.encode() for token in keys]), target)

    def test_in_place(self) -> None:
        """A plain key is replaced where it stands."""
        self.assertEqual(redacted(b"/a?key=SECRETSECRET&b=1", [b"SECRETSECRET"]), b"/a?key=" + REDACTED + b"&b=1")

    def test_short_targets(self) -> None:
        """The secrets are not even asked for where none fits in."""

        def secrets() -> list[bytes]:
            raise AssertionError("asked for")

        self.assertEqual(redacting(secrets, 8)(b"/ping"), b"/ping")
