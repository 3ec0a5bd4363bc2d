# SPDX-License-Identifier: Apache-2.0
"""
This module implements the live keys of a server: checking one, replacing one.
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

# How many replaced keys are kept out of the log like live ones: the request that replaces one may hold it.
_REMEMBERED = 16


class Reason(Enum):
    """Why a request was refused: for counters and logs, never for the client."""

    MISSING = "missing"
    MALFORMED = "malformed"
    SEVERAL = "several"
    UNKNOWN = "unknown"
    WRONG_KIND = "wrong_kind"
    EXPIRED = "expired"


@frozen
class Granted:
    """The request may pass."""

    key_id: str


@frozen
class Refused:
    """
    The request may not pass.

    :ivar key_id: The public id of the token that was presented, if it is one of ours.
    """

    reason: Reason
    key_id: str | None = None


@frozen
class Replacement:
    """One token in the place of another."""

    old: Token
    new: Token


class _Live:
    """
    A live token and when it ends: at its date or after its lifetime, whichever comes first.

    The date alone would not do, since clocks are set back; the lifetime alone would not,
    since clients are told the date.

    :ivar deadline: In seconds of the steady clock; ``None`` for a token that never expires.
    """

    __slots__ = ("deadline", "ended", "token")

    def __init__(self, token: Token, deadline: float | None) -> None:
        self.token = token
        self.deadline = None if token.expires is None else deadline
        self.ended = False

    def seconds_left(self, now: datetime, seconds: float) -> float:
        """Return the seconds until the token ends, 0 from then on; a clock that is set back gives none of them back."""
        expires, deadline = self.token.expires, self.deadline
        if expires is None or deadline is None:
            return float("inf")
        left = 0.0 if self.ended else min((expires - now).total_seconds(), deadline - seconds)
        if left <= 0:
            self.ended = True
            return 0.0
        return left

    def expired(self, now: datetime, seconds: Callable[[], float]) -> bool:
        """Return whether the token has ended, now or at any moment at which it was looked at."""
        if self.deadline is None:
            return False
        if not self.ended:
            self.ended = self.token.expired(now) or seconds() >= self.deadline
        return self.ended


#: Calls the function with the keys, in a thread say, and fires when it is done.
Defer: TypeAlias = Callable[[Callable[[KeySet], None], KeySet], Deferred[None]]


class Keyring:
    """
    The three live tokens.

    Enforcement needs no timer: every check compares with the ``now`` it is given, and with the steady clock.

    :param save: Makes a set of keys durable, or raises and has changed nothing; it may block.
    :param seconds: A clock that is never set, and goes on while the machine is suspended.
    :param defer: Where replaced keys are saved; one set is saved at a time.
    """

    def __init__(
        self,
        keys: KeySet,
        save: Callable[[KeySet], None],
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
        self._one_by_one = DeferredLock()
        self._replaced: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._coming: list[bytes] = []
        deadline = self._deadline()
        self._use(keys, tuple(_Live(token, deadline) for token in keys))

    @classmethod
    def create(
        cls,
        save: Callable[[KeySet], None],
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
        """The tokens which are live now."""
        return self._keys

    def check(self, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        """Say whether ``presented`` opens doors of ``kind`` at ``now``."""
        live: _Live | None = None
        # All three are compared every time, so that the time taken does not tell which one it is.
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
        Replace the token of ``kind``; the old one stops opening when the Deferred fires.

        The new set is saved first and becomes live second: when saving fails (an `OSError`) the
        old token stays, in memory and in the file.  Rotations are done one by one, in order.

        :raise ValueError: for the API token, which lives as long as the server.
        """
        if kind is TokenKind.API:
            raise ValueError("the API token is replaced by a restart only")
        token = fresh_token(kind, self._entropy, now, self._lifetime)
        return self._one_by_one.run(
            lambda deadline: Deferred.fromCoroutine(self._replace(token, deadline)), self._deadline()
        )

    def save_again(self) -> Deferred[None]:
        """Save the live keys as they are, after the rotations that were asked for before; `OSError` if that fails."""
        return self._one_by_one.run(lambda: self._defer(self._save, self._keys))

    def secrets(self) -> Sequence[bytes]:
        """Return what must not be written down: the live keys, those to come, and those which were replaced lately."""
        return self._secrets

    async def _replace(self, token: Token, deadline: float) -> Replacement:
        old = self._keys.of(token.kind)
        keys = self._keys.replacing(token)
        # From its saving on an operator can read it in the file, and send it.
        self._coming = [token.encoded]
        self._use(self._keys, self._live)
        try:
            await self._defer(self._save, keys)
        except BaseException:
            # It may have been in the file, and is dead.
            self._replaced.append(token.encoded)
            raise
        else:
            self._replaced.append(old.encoded)
            fresh = _Live(token, deadline)
            self._use(keys, tuple(fresh if each.token is old else each for each in self._live))
        finally:
            self._coming = []
            self._use(self._keys, self._live)
        return Replacement(old, token)

    def _deadline(self) -> float:
        return self._seconds() + self._lifetime.total_seconds()

    def _use(self, keys: KeySet, live: tuple[_Live, ...]) -> None:
        """Have these be the live tokens; what each request asks for is made ready."""
        self._keys = keys
        self._live = live
        self._secrets = (*[token.encoded for token in keys], *self._coming, *self._replaced)
