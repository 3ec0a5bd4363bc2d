# SPDX-License-Identifier: Apache-2.0
"""
Generate keys, their dates and lifetimes, the instants at which mistakes hide, and invalid credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from random import Random

from attrs import field, frozen
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from twisted_serve.auth.tokens import TOKEN_BYTES, Entropy, KeySet, Token, TokenKind, fresh_keys

__all__ = [
    "AROUND",
    "SPOILED",
    "Replacement",
    "Spoiled",
    "authorization_headers",
    "aware_datetimes",
    "entropies",
    "instants_around",
    "key_sets",
    "lifetimes",
    "near",
    "presented_tokens",
    "rotations",
    "spoiled_keys",
    "token_kinds",
    "tokens",
]

_MICROSECOND = timedelta(microseconds=1)

#: How far from a boundary mistakes are looked for, the instant itself first.
AROUND = (
    timedelta(0),
    -_MICROSECOND,
    _MICROSECOND,
    *(sign * timedelta(seconds=seconds) for seconds in (0.001, 1, 60) for sign in (-1, 1)),
)

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


def near(lifetime: timedelta | float) -> SearchStrategy[float]:
    """
    Generate ages of a key in seconds: most of them close to its lifetime, to the microsecond; others up to twice that.

    :param lifetime: A duration, or seconds.
    """
    lifetime = lifetime if isinstance(lifetime, timedelta) else timedelta(seconds=lifetime)
    close = [lifetime + distance for distance in AROUND if lifetime + distance >= timedelta(0)]
    anywhere = st.integers(0, 2 * lifetime // _MICROSECOND).map(lambda count: count * _MICROSECOND)
    return st.one_of(st.just(lifetime), st.sampled_from(close), anywhere).map(timedelta.total_seconds)


def instants_around(key: Token) -> SearchStrategy[datetime]:
    """
    Generate dates just before, at and just after the expiry of a key.

    :raise ValueError: for a key that never expires.
    """
    expires = key.expires
    if expires is None:
        raise ValueError(f"the {key.kind.value} key never expires")
    return st.sampled_from(AROUND).map(lambda distance: expires + distance)


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


@frozen(repr=False)
class Spoiled:
    """
    A way to present a valid key that must not open: in several headers, shortened, changed.

    :ivar words: The way in words, its representation.
    :ivar headers: Return the values of the ``Authorization`` headers with a key.
    """

    words: str
    headers: Callable[[str], list[str]] = field(eq=False)

    def __repr__(self) -> str:
        """Return the way in words."""
        return f"<{self.words}>"


#: All ways to present a valid key that must not open.
SPOILED = (
    Spoiled("two headers with the key", lambda key: [f"Bearer {key}", f"Bearer {key}"]),
    Spoiled("the key after an empty header", lambda key: ["", f"Bearer {key}"]),
    Spoiled("the key before another one", lambda key: [f"Bearer {key}", f"Bearer {key[::-1]}"]),
    Spoiled("the key after another one", lambda key: [f"Bearer {key[::-1]}", f"Bearer {key}"]),
    Spoiled("another scheme", lambda key: [f"Basic {key}"]),
    Spoiled("no scheme", lambda key: [key]),
    Spoiled("the key twice in one header", lambda key: [f"Bearer {key} {key}"]),
    Spoiled("two keys with a comma", lambda key: [f"Bearer {key}, Bearer {key}"]),
    Spoiled("half of the key", lambda key: [f"Bearer {key[: len(key) // 2]}"]),
    Spoiled("all but the last character", lambda key: [f"Bearer {key[:-1]}"]),
    Spoiled("all but the first character", lambda key: [f"Bearer {key[1:]}"]),
    Spoiled("one more character", lambda key: [f"Bearer {key}A"]),
    Spoiled("another last character", lambda key: [f"Bearer {key[:-1]}{'B' if key[-1] == 'A' else 'A'}"]),
    Spoiled("upper and lower case swapped", lambda key: [f"Bearer {key.swapcase()}"]),
)


def spoiled_keys() -> SearchStrategy[Spoiled]:
    """Generate ways to present a valid key that must not open."""
    return st.sampled_from(SPOILED)
