# SPDX-License-Identifier: Apache-2.0
"""
Plant bugs in the replacement of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from tests.testing.planted.bug import TOO_SHORT, Concern, Planted, replacing
from twisted_serve.auth.keyring import Granted, Keyring, Refused, Replacement
from twisted_serve.auth.live import LiveToken
from twisted_serve.auth.tokens import Token, TokenKind

_check = Keyring.check
_replace = Keyring._replace
_rotate = Keyring.rotate


@contextmanager
def _old_keys_kept() -> Iterator[None]:
    """Accept replaced keys until they expire."""
    replaced: WeakKeyDictionary[Keyring, list[Token]] = WeakKeyDictionary()

    async def replace(self: Keyring, token: Token, deadline: float, *when: Any) -> Replacement:
        done = await _replace(self, token, deadline, *when)
        replaced.setdefault(self, []).append(done.old)
        return done

    def check(self: Keyring, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        kept = any(token.opens(kind, presented, now) for token in replaced.get(self, ()))
        return Granted("kept") if kept else _check(self, kind, presented, now)

    with replacing(Keyring, _replace=replace, check=check)():
        yield


def _after_replacement(change: Callable[[Keyring, Token], None]) -> Callable[[], AbstractContextManager[None]]:
    """Change the live tokens after each replacement."""

    async def replace(self: Keyring, token: Token, deadline: float, *when: Any) -> Replacement:
        done = await _replace(self, token, deadline, *when)
        change(self, token)
        return done

    return replacing(Keyring, _replace=replace)


def _end(ring: Keyring, *kinds: TokenKind) -> None:
    for live in ring._live:
        live.ended = live.ended or live.token.kind in kinds


def _end_other(ring: Keyring, token: Token) -> None:
    _end(ring, *{TokenKind.MANAGEMENT, TokenKind.INFERENCE} - {token.kind})


def _renew_all(ring: Keyring, _token: Token) -> None:
    """Give every key another lifetime, its date aside."""
    deadline = ring._deadline()
    ring._use(ring.keys, tuple(LiveToken(live.token, deadline) for live in ring._live))


def _a_minute_less(self: Keyring, kind: TokenKind, now: datetime) -> Any:
    """Replace by a key with a lifetime that is a minute too short."""
    with patch.object(self, "_lifetime", self._lifetime - timedelta(minutes=1)):
        return _rotate(self, kind, now)


def _expiry_of_the_old(self: Keyring, kind: TokenKind, now: datetime) -> Any:
    """Replace by a key that expires when the old one would have expired."""
    expires = self.keys.of(kind).expires
    assert expires is not None
    return _rotate(self, kind, expires - self._lifetime)


def _without_file(self: Keyring, kind: TokenKind, now: datetime) -> Any:
    """Replace in memory alone."""
    with patch.object(self, "_save", lambda keys: None):
        return _rotate(self, kind, now)


async def _live_before_saved(self: Keyring, token: Token, deadline: float, *when: Any) -> Replacement:
    """Use the new key before it is saved."""
    fresh = LiveToken(token, deadline)
    self._use(
        self.keys.replacing(token), tuple(fresh if each.token.kind is token.kind else each for each in self._live)
    )
    return await _replace(self, token, deadline, *when)


BUGS = (
    Planted(
        "rotation keeps the old key",
        Concern.ROTATION,
        r"a former (management|inference) key opened GET /(models|ping) at [-\d:. ]+, which had been replaced$",
        _old_keys_kept,
    ),
    Planted(
        "rotation kills both",
        Concern.ROTATION,
        r"the (management|inference) key did not open GET /(models|ping) at [-\d:. ]+, .* before its expiry: 400$",
        _after_replacement(lambda ring, token: _end(ring, token.kind)),
    ),
    Planted(
        "rotation kills the other key",
        Concern.OTHER_KEY,
        r"the (management|inference) key did not open GET /(models|ping) at [-\d:. ]+, .* before its expiry: 400$",
        _after_replacement(_end_other),
    ),
    Planted(
        "rotation renews the other key",
        Concern.OTHER_KEY,
        r"the (management|inference) key opened GET /(models|ping) at [-\d:. ]+, (at|.* after|although)",
        _after_replacement(_renew_all),
    ),
    Planted(
        "a rotated key lives a minute less",
        Concern.EXPIRY | Concern.ROTATION,
        TOO_SHORT,
        replacing(Keyring, rotate=_a_minute_less),
    ),
    Planted(
        "a rotated key expires with the old one",
        Concern.EXPIRY | Concern.ROTATION,
        TOO_SHORT,
        replacing(Keyring, rotate=_expiry_of_the_old),
    ),
    Planted(
        "the file differs from memory",
        Concern.FILE,
        r"(key_file.json does not have the live (management|inference) key|no file could be written, was answered)",
        replacing(Keyring, rotate=_without_file),
    ),
    Planted(
        "a write failure loses the key",
        Concern.FILE,
        r"POST /token\?type=(management|inference) at [-\d:. ]+, when no file could be written, changed the live keys$",
        replacing(Keyring, _replace=_live_before_saved),
    ),
)
