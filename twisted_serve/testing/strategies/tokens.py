# SPDX-License-Identifier: Apache-2.0
"""
Generate keys, their dates and lifetimes, and invalid credentials.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from random import Random

from attrs import frozen
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from twisted_serve.auth.tokens import TOKEN_BYTES, Entropy, KeySet, Token, TokenKind, fresh_keys

__all__ = [
    "Replacement",
    "authorization_headers",
    "aware_datetimes",
    "entropies",
    "key_sets",
    "lifetimes",
    "presented_tokens",
    "rotations",
    "token_kinds",
    "tokens",
]

# Far enough from the limits of datetime that a lifetime can be added.
_EARLIEST, _LATEST = datetime(2000, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 (Hypothesis adds the zone)


@frozen
class Replacement:
    """
    The replacement of a key.

    :ivar after: The time since the previous replacement.
    """

    after: timedelta
    kind: TokenKind


def aware_datetimes() -> SearchStrategy[datetime]:
    """Generate dates in UTC."""
    return st.datetimes(min_value=_EARLIEST, max_value=_LATEST, timezones=st.just(timezone.utc))


def lifetimes() -> SearchStrategy[timedelta]:
    """Generate lifetimes of keys, from a microsecond to a hundred days."""
    return st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=100))


def token_kinds() -> SearchStrategy[TokenKind]:
    """Generate kinds of tokens."""
    return st.sampled_from(TokenKind)


def entropies() -> SearchStrategy[Entropy]:
    """Generate reproducible sources of random bytes."""
    return st.integers(0, 2**64).map(lambda seed: Random(seed).randbytes)  # noqa: S311 (the same again, for tests)


@st.composite
def tokens(draw: st.DrawFn) -> Token:
    """Generate tokens of any kind, some without an expiry date."""
    secret = draw(st.text("abcXYZ019-_", min_size=8, max_size=64))
    return Token(draw(token_kinds()), secret, draw(st.none() | aware_datetimes()))


@st.composite
def key_sets(draw: st.DrawFn) -> KeySet:
    """Generate the three keys of a server."""
    return fresh_keys(draw(entropies()), draw(aware_datetimes()), draw(lifetimes()))


def rotations(longest: timedelta = timedelta(hours=2)) -> SearchStrategy[list[Replacement]]:
    """Generate sequences of key replacements by an operator."""
    waits = st.timedeltas(timedelta(0), longest)
    kinds = st.sampled_from([TokenKind.MANAGEMENT, TokenKind.INFERENCE])
    return st.lists(st.builds(Replacement, waits, kinds), max_size=8)


def presented_tokens() -> SearchStrategy[bytes]:
    """Generate bearer tokens that are not valid keys."""
    return st.binary(max_size=2 * TOKEN_BYTES)


def authorization_headers() -> SearchStrategy[list[bytes]]:
    """Generate ``Authorization`` headers without a valid key: none, one or several, of all schemes."""
    schemes = st.sampled_from([b"Bearer ", b"bearer ", b"Basic ", b"", b"Bearer", b"Token ", b" "])
    return st.lists(st.builds(bytes.__add__, schemes, presented_tokens()), max_size=3)
