# SPDX-License-Identifier: Apache-2.0
"""
This module implements the strategies for keys: their dates, lifetimes, and what clients may present as one.
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

# Far enough from the ends of the calendar that a lifetime can be added.
_EARLIEST, _LATEST = datetime(2000, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 (Hypothesis adds the zone)


@frozen
class Replacement:
    """
    A key that is to be replaced.

    :ivar after: How long after the last one.
    """

    after: timedelta
    kind: TokenKind


def aware_datetimes() -> SearchStrategy[datetime]:
    """Build dates in UTC."""
    return st.datetimes(min_value=_EARLIEST, max_value=_LATEST, timezones=st.just(timezone.utc))


def lifetimes() -> SearchStrategy[timedelta]:
    """Build lifetimes of keys, from a microsecond to a hundred days."""
    return st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=100))


def token_kinds() -> SearchStrategy[TokenKind]:
    """Build kinds of tokens."""
    return st.sampled_from(TokenKind)


def entropies() -> SearchStrategy[Entropy]:
    """Build sources of random bytes, which give the same bytes in the same order again."""
    return st.integers(0, 2**64).map(lambda seed: Random(seed).randbytes)  # noqa: S311 (the same again, for tests)


@st.composite
def tokens(draw: st.DrawFn) -> Token:
    """Build tokens of any kind, some of which never expire."""
    secret = draw(st.text("abcXYZ019-_", min_size=8, max_size=64))
    return Token(draw(token_kinds()), secret, draw(st.none() | aware_datetimes()))


@st.composite
def key_sets(draw: st.DrawFn) -> KeySet:
    """Build the three keys of a server as it makes them."""
    return fresh_keys(draw(entropies()), draw(aware_datetimes()), draw(lifetimes()))


def rotations(longest: timedelta = timedelta(hours=2)) -> SearchStrategy[list[Replacement]]:
    """Build what an operator may do to a server's keys in the course of time."""
    waits = st.timedeltas(timedelta(0), longest)
    kinds = st.sampled_from([TokenKind.MANAGEMENT, TokenKind.INFERENCE])
    return st.lists(st.builds(Replacement, waits, kinds), max_size=8)


def presented_tokens() -> SearchStrategy[bytes]:
    """Build what a client may present that is no key."""
    return st.binary(max_size=2 * TOKEN_BYTES)


def authorization_headers() -> SearchStrategy[list[bytes]]:
    """Build the ``Authorization`` headers of a request that has no key: none, one, several, of all schemes."""
    schemes = st.sampled_from([b"Bearer ", b"bearer ", b"Basic ", b"", b"Bearer", b"Token ", b" "])
    return st.lists(st.builds(bytes.__add__, schemes, presented_tokens()), max_size=3)
