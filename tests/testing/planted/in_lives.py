# SPDX-License-Identifier: Apache-2.0
"""
Plant bugs in the expiry of keys, and in what a restart does to keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import evolve

from tests.testing.planted.bug import TOO_SHORT, Concern, Planted, replacing
from twisted_serve.auth import keyring, tokens
from twisted_serve.auth.keyring import Granted, Keyring, Refused
from twisted_serve.auth.live import LiveToken
from twisted_serve.auth.tokens import KeySet, Token, TokenKind, fresh_token

_OPENED = r"^the (management|inference) key opened GET /(models|ping) at [-\d:. ]+, "

# What the machine says about a key that opens at its end, and about one that opens then or later.
AT_THE_END = _OPENED + "at the (instant of its expiry|end of its lifetime)$"
LATE = _OPENED + r"(at the instant|at the end|[\w µ]+ after (it had|the end)|although it had expired before the date) "

_check = Keyring.check
_begin = Keyring.__init__


def _opens_when(
    opens: Callable[[datetime, datetime, float, float], bool], final: bool = True
) -> Callable[[], AbstractContextManager[None]]:
    """
    Let a check of a request decide anew whether a token that expires is still open.

    :param opens: Gets the date and the token's expiry, the seconds and the token's deadline.
    :param final: Whether a token that was seen to have ended stays so.
    """

    def expired(self: LiveToken, now: datetime, seconds: Callable[[], float]) -> bool:
        if self.token.expires is None or self.deadline is None:
            return False
        if not (final and self.ended):
            self.ended = not opens(now, self.token.expires, seconds(), self.deadline)
        return self.ended

    return replacing(LiveToken, expired=expired)


def _late(more: timedelta) -> Callable[[], AbstractContextManager[None]]:
    """Open for longer than the lifetime."""
    seconds = more.total_seconds()
    return _opens_when(lambda now, expires, at, deadline: now < expires + more and at < deadline + seconds)


def _longer(more: timedelta) -> Callable[[], AbstractContextManager[None]]:
    """Make keys with a lifetime that is too long; their expiry date tells it."""

    def make(kind: TokenKind, entropy: Any, now: datetime, lifetime: timedelta | None) -> Token:
        return fresh_token(kind, entropy, now, None if lifetime is None else lifetime + more)

    def deadline(self: Keyring) -> float:
        return self._seconds() + (self._lifetime + more).total_seconds()

    @contextmanager
    def plant() -> Iterator[None]:
        everywhere = replacing(keyring, fresh_token=make), replacing(tokens, fresh_token=make)
        with everywhere[0](), everywhere[1](), replacing(Keyring, _deadline=deadline)():
            yield

    return plant


def _date_behind(self: Keyring, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
    """Compare with a date that is a minute behind; the steady clock is right."""
    return _check(self, kind, presented, now - timedelta(minutes=1))


def _expired_by_date(self: Token, now: datetime) -> bool:
    """Compare with the wrong one of two signs."""
    return self.expires is not None and now > self.expires


@contextmanager
def _expiry_kept() -> Iterator[None]:
    """Give the keys of a later start the expiry dates of the first ones."""
    first: dict[Path, KeySet] = {}

    def begin(self: Keyring, keys: KeySet, save: Any, *others: Any) -> None:
        dates = first.setdefault(save.__self__.path, keys)
        management = evolve(keys.management, expires=dates.management.expires)
        inference = evolve(keys.inference, expires=dates.inference.expires)
        _begin(self, KeySet(management, inference, keys.api), save, *others)

    with replacing(Keyring, __init__=begin)():
        yield


@contextmanager
def _keys_kept() -> Iterator[None]:
    """Accept the last keys of earlier runs, too, for their lifetimes."""
    runs: dict[Path, list[Keyring]] = {}

    def begin(self: Keyring, keys: KeySet, save: Any, *others: Any) -> None:
        runs.setdefault(save.__self__.path, []).append(self)
        _begin(self, keys, save, *others)

    def check(self: Keyring, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        [earlier] = [each for each in runs.values() if self in each]
        kept = any(token.opens(kind, presented, now) for ring in earlier if ring is not self for token in ring.keys)
        return Granted("kept") if kept else _check(self, kind, presented, now)

    with replacing(Keyring, __init__=begin, check=check)():
        yield


BUGS = (
    Planted(
        "opens at the instant of expiry",
        Concern.EXPIRY,
        AT_THE_END,
        _opens_when(lambda now, expires, at, deadline: now <= expires and at <= deadline),
    ),
    Planted(
        "opens a microsecond too long",
        Concern.EXPIRY,
        AT_THE_END,
        _late(timedelta(microseconds=1)),
    ),
    Planted(
        "opens two microseconds too long",
        Concern.EXPIRY,
        LATE,
        _late(timedelta(microseconds=2)),
    ),
    Planted(
        "opens a second too long",
        Concern.EXPIRY,
        LATE,
        _late(timedelta(seconds=1)),
    ),
    Planted(
        "lives a microsecond too long",
        Concern.EXPIRY,
        r"key_file.json says that the management key expires at [-\dT:]+\.000001Z, not at [-\dT:]+\.000000Z$",
        _longer(timedelta(microseconds=1)),
    ),
    Planted(
        "lives a second too long",
        Concern.EXPIRY,
        r"key_file.json says that the management key expires at [-\dT:]+01\.000000Z, not at [-\dT:]+00\.000000Z$",
        _longer(timedelta(seconds=1)),
    ),
    Planted(
        "opens when the date is set back after its expiry",
        Concern.EXPIRY,
        LATE,
        _opens_when(lambda now, expires, at, deadline: now < expires, final=False),
    ),
    Planted(
        "opens by a date that is a minute behind",
        Concern.DATE,
        LATE,
        replacing(Keyring, check=_date_behind),
    ),
    Planted(
        "opens at the instant of its date",
        Concern.DATE,
        AT_THE_END,
        replacing(Token, expired=_expired_by_date),
    ),
    Planted(
        "ends with the date alone",
        Concern.DATE,
        LATE,
        replacing(LiveToken, expired=lambda self, now, seconds: self.token.expired(now)),
    ),
    Planted(
        "expiry survives a restart",
        Concern.EXPIRY | Concern.RESTART,
        TOO_SHORT,
        _expiry_kept,
    ),
    Planted(
        "keys survive a restart",
        Concern.RESTART,
        r"a former (management|inference) key opened GET /(models|ping) at [-\d:. ]+, which had ended with ",
        _keys_kept,
    ),
)
