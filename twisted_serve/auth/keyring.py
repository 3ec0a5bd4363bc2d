# SPDX-License-Identifier: Apache-2.0
"""
Check and rotate the live keys of a server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeAlias

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred

from twisted_serve.auth.tokens import Entropy, KeySet, Token, TokenKind, fresh_keys, fresh_token

# How many replaced keys are still redacted in logs: the request that replaces a key may hold it.
_REDACTED_REPLACED = 16


class Reason(Enum):
    """Why a request was refused: for counters and logs, never for the client."""

    MISSING = "missing"
    MALFORMED = "malformed"
    SEVERAL = "several"
    UNKNOWN = "unknown"
    WRONG_KIND = "wrong_kind"
    EXPIRED = "expired"
    DISABLED = "disabled"
    SCOPE = "scope"
    RATE = "rate"
    CONCURRENT = "concurrent"


@frozen
class Granted:
    """The presented token is valid."""

    key_id: str


@frozen
class Refused:
    """
    The presented token is not valid for the request.

    :ivar key_id: The public id of the presented token, if it is one of ours.
    """

    reason: Reason
    key_id: str | None = None


@frozen
class Replacement:
    """A rotation: the old token and the new one."""

    old: Token
    new: Token


class _LiveToken:
    """
    A live token with its end: at its expiry date or after its lifetime, whichever comes first.

    The date alone is not enough, since the wall clock can be set back; the lifetime alone is
    not enough, since clients are given the date.

    :ivar deadline: In seconds of the steady clock; ``None`` for a token that never expires.
    :ivar ended: Whether the token was seen to have ended, which is final.
    """

    __slots__ = ("deadline", "ended", "token")

    def __init__(self, token: Token, deadline: float | None) -> None:
        self.token = token
        self.deadline = None if token.expires is None else deadline
        self.ended = False

    def seconds_left(self, now: datetime, seconds: float) -> float:
        """Return the seconds until the token ends, or 0 once it has ended, even if the clock is set back later."""
        expires, deadline = self.token.expires, self.deadline
        if expires is None or deadline is None:
            return float("inf")
        left = 0.0 if self.ended else min((expires - now).total_seconds(), deadline - seconds)
        if left <= 0:
            self.ended = True
            return 0.0
        return left

    def expired(self, now: datetime, seconds: Callable[[], float]) -> bool:
        """Return whether the token has ended now or had ended at any earlier check."""
        if self.deadline is None:
            return False
        if not self.ended:
            self.ended = self.token.expired(now) or seconds() >= self.deadline
        return self.ended


#: Saves a set of keys durably, or raises `OSError` and changes nothing; it may block.
Save: TypeAlias = Callable[[KeySet], None]

#: Calls a function with the keys, in a thread for example; the Deferred fires when the call has returned.
Defer: TypeAlias = Callable[[Callable[[KeySet], None], KeySet], Deferred[None]]


class Keyring:
    """
    The three live tokens of a server.

    Enforcement needs no timer: every check compares the expiry with ``now``, an argument, and with the steady clock.

    :param seconds: A clock that is never set and keeps running while the machine is suspended.
    :param defer: Runs ``save`` for a rotation; one set of keys is saved at a time.
    """

    def __init__(
        self,
        keys: KeySet,
        save: Save,
        entropy: Entropy,
        lifetime: timedelta,
        seconds: Callable[[], float],
        defer: Defer = maybeDeferred,
    ) -> None:
        self._save = save
        self._entropy = entropy
        self._lifetime = lifetime
        self._seconds = seconds
        self._defer = defer
        self._lock = DeferredLock()
        self._replaced: deque[bytes] = deque(maxlen=_REDACTED_REPLACED)
        self._pending: list[bytes] = []
        deadline = self._deadline()
        self._use(keys, tuple(_LiveToken(token, deadline) for token in keys))

    @classmethod
    def create(
        cls,
        save: Save,
        entropy: Entropy,
        lifetime: timedelta,
        now: datetime,
        seconds: Callable[[], float],
        defer: Defer = maybeDeferred,
    ) -> Keyring:
        """
        Make fresh keys and save them.

        :raise OSError: when they cannot be saved.
        """
        keyring = cls(fresh_keys(entropy, now, lifetime), save, entropy, lifetime, seconds, defer)
        save(keyring.keys)
        return keyring

    @property
    def keys(self) -> KeySet:
        """The tokens that are live now."""
        return self._keys

    def check(self, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        """Return whether ``presented`` is the token of ``kind`` and has not expired at ``now``."""
        live: _LiveToken | None = None
        # All three are compared every time, so that the timing does not reveal which one matches.
        for each in self._live:
            if each.token.is_secret(presented):
                live = each
        if live is None:
            return Refused(Reason.UNKNOWN)
        token = live.token
        if token.kind is not kind:
            return Refused(Reason.WRONG_KIND, token.public_id)
        if live.expired(now, self._seconds):
            return Refused(Reason.EXPIRED, token.public_id)
        return Granted(token.public_id)

    def seconds_left(self, kind: TokenKind, now: datetime) -> float:
        """Return the seconds until the token of a kind expires: 0 when it has, infinity when it never will."""
        [left] = [each.seconds_left(now, self._seconds()) for each in self._live if each.token.kind is kind]
        return left

    def rotate(self, kind: TokenKind, now: datetime) -> Deferred[Replacement]:
        """
        Replace the token of ``kind``; the old one is refused as soon as the Deferred fires.

        The new set is saved first and becomes live second: when saving fails (with an `OSError`)
        the old token stays valid, in memory and in the file.  Rotations run one at a time, in order.

        :raise ValueError: for the API token, which lives as long as the server.
        """
        if kind is TokenKind.API:
            raise ValueError("the API token is replaced by a restart only")
        token = fresh_token(kind, self._entropy, now, self._lifetime)
        return self._lock.run(lambda deadline: Deferred.fromCoroutine(self._replace(token, deadline)), self._deadline())

    def save_again(self) -> Deferred[None]:
        """Save the live keys unchanged, after the rotations requested before; fails with `OSError`."""
        return self._lock.run(lambda: self._defer(self._save, self._keys))

    def secrets(self) -> Sequence[bytes]:
        """Return the keys that must not be logged: the live ones, those being saved, and those replaced recently."""
        return self._secrets

    async def _replace(self, token: Token, deadline: float) -> Replacement:
        old = self._keys.of(token.kind)
        keys = self._keys.replacing(token)
        # From the start of the save on, an operator can read the new key in the file and send it.
        self._pending = [token.encoded]
        self._use(self._keys, self._live)
        try:
            await self._defer(self._save, keys)
        except BaseException:
            # The new key may have been in the file for a moment: redact it, although it never became live.
            self._replaced.append(token.encoded)
            raise
        else:
            self._replaced.append(old.encoded)
            fresh = _LiveToken(token, deadline)
            self._use(keys, tuple(fresh if each.token is old else each for each in self._live))
        finally:
            self._pending = []
            self._use(self._keys, self._live)
        return Replacement(old, token)

    def _deadline(self) -> float:
        return self._seconds() + self._lifetime.total_seconds()

    def _use(self, keys: KeySet, live: tuple[_LiveToken, ...]) -> None:
        """Set the live tokens, and precompute the secrets, which every logged request needs."""
        self._keys = keys
        self._live = live
        self._secrets = (*[token.encoded for token in keys], *self._pending, *self._replaced)


#: Makes the keyring of a server, with the arguments of `Keyring.create`, which is one; it saves the first keys.
MakeKeyring: TypeAlias = Callable[[Save, Entropy, timedelta, datetime, Callable[[], float], Defer], Keyring]
