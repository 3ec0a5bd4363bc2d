# SPDX-License-Identifier: Apache-2.0
"""
Check and rotate the live keys of a server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol, TypeAlias

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred

from twisted_serve.auth.live import LiveToken
from twisted_serve.auth.tokens import Entropy, KeySet, Token, TokenKind, fresh_keys, fresh_token

# How many replaced keys are still redacted in logs: the request that replaces a key may hold it.
_REDACTED_REPLACED = 16

#: How many replaced tokens of a kind are accepted, or known to have ended: each is compared at every check, and a
#: client that can rotate must not make checks slower. Enough for a rotation in each quarter of an overlap.
MOST_FORMER = 4


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
    """
    A rotation: the old token and the new one.

    :ivar until: When the old token ends, which is accepted until then; ``None`` if it has ended.
    """

    old: Token
    new: Token
    until: datetime | None = None


#: Saves a set of keys durably, or raises `OSError` and changes nothing; it may block.
Save: TypeAlias = Callable[[KeySet], None]

#: Calls a function with the keys, in a thread for example; the Deferred fires when the call has returned.
Defer: TypeAlias = Callable[[Callable[[KeySet], None], KeySet], Deferred[None]]


class Keyring:
    """
    The three live tokens of a server, and replaced ones for as long as they overlap with their successors.

    Enforcement needs no timer: every check compares the expiry with ``now``, an argument, and with the steady clock.

    :param seconds: A clock that is never set and keeps running while the machine is suspended.
    :param defer: Runs ``save`` for a rotation; one set of keys is saved at a time.
    :param overlap: How long a replaced token is still accepted, unless it expires sooner.
    """

    def __init__(
        self,
        keys: KeySet,
        save: Save,
        entropy: Entropy,
        lifetime: timedelta,
        seconds: Callable[[], float],
        defer: Defer = maybeDeferred,
        overlap: timedelta = timedelta(0),
    ) -> None:
        self._save = save
        self._overlap = overlap
        self._former: tuple[LiveToken, ...] = ()
        self._entropy = entropy
        self._lifetime = lifetime
        self._seconds = seconds
        self._defer = defer
        self._lock = DeferredLock()
        self._replaced: deque[bytes] = deque(maxlen=_REDACTED_REPLACED)
        self._pending: list[bytes] = []
        deadline = self._deadline()
        self._use(keys, tuple(LiveToken(token, deadline) for token in keys))

    @classmethod
    def create(
        cls,
        save: Save,
        entropy: Entropy,
        lifetime: timedelta,
        now: datetime,
        seconds: Callable[[], float],
        defer: Defer = maybeDeferred,
        overlap: timedelta = timedelta(0),
        found: Sequence[Token] = (),
    ) -> Keyring:
        """
        Make fresh keys and save them.

        :param found: Tokens that there are already, in place of fresh ones of their kinds.
        :raise OSError: when they cannot be saved.
        """
        keyring = cls(fresh_keys(entropy, now, lifetime, found), save, entropy, lifetime, seconds, defer, overlap)
        for live in keyring._live:
            # By the steady clock, a token that has lived before ends with its date.
            if live.token in found and live.token.expires is not None:
                live.deadline = seconds() + (live.token.expires - now).total_seconds()
        save(keyring.keys)
        return keyring

    @property
    def keys(self) -> KeySet:
        """The tokens that are live now."""
        return self._keys

    def check(self, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        """Return whether ``presented`` is a token of ``kind``, live or replaced lately, and not ended."""
        live: LiveToken | None = None
        # All are compared every time, so that the timing does not reveal which one matches.
        for each in self._known:
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
        Replace the token of ``kind``; the old one is accepted for the overlap, which begins when the Deferred fires.

        The new set is saved first and becomes live second: when saving fails (with an `OSError`)
        the old token stays valid, in memory and in the file.  Rotations run one at a time, in order.

        :raise ValueError: for the API token, which lives as long as the server, and for a given one.
        """
        if kind is TokenKind.API:
            raise ValueError("the API token is replaced by a restart only")
        if (given := self._keys.of(kind).given) is not None:
            raise ValueError(f"the {kind.value} token is replaced where it is given: {given}")
        token = fresh_token(kind, self._entropy, now, self._lifetime)
        return self._lock.run(
            lambda deadline, began: Deferred.fromCoroutine(self._replace(token, deadline, now, began)),
            self._deadline(),
            self._seconds(),
        )

    def exchange(self, tokens: Sequence[Token], now: datetime) -> Deferred[list[Replacement]]:
        """
        Use tokens that an operator gives, at once; those with the live secrets change nothing.

        The Deferred fires with what was replaced.  Nothing is saved: given tokens are in no file.

        :param tokens: At most one of each kind, all with different secrets.
        :raise ValueError: when one has the secret of a token of another kind (by the Deferred): nothing has changed.
        """
        began = self._seconds()
        return self._lock.run(lambda: self._exchange(tokens, now + timedelta(seconds=self._seconds() - began)))

    def _exchange(self, tokens: Sequence[Token], now: datetime) -> list[Replacement]:
        given = {token.kind: token for token in tokens}
        for token in tokens:
            if any(token.secret == each.secret for each in self._keys if each.kind not in given):
                raise ValueError(f"{token.given} is the same as another of the three keys")
        new = [token for token in tokens if token.secret != self._keys.of(token.kind).secret]
        done = [Replacement(old := self._keys.of(token.kind), token, self._retire(old, now)) for token in new]
        keys = self._keys.replacing(*new)
        fresh = {token.kind: LiveToken(token, None) for token in new}
        # What is given again is not a former token any longer.
        self._former = tuple(each for each in self._former if each.token.secret not in {key.secret for key in keys})
        self._use(keys, tuple(fresh.get(each.token.kind, each) for each in self._live))
        return done

    def save_again(self) -> Deferred[None]:
        """Save the live keys unchanged, after the rotations requested before; fails with `OSError`."""
        return self._lock.run(lambda: self._defer(self._save, self._keys))

    def secrets(self) -> Sequence[bytes]:
        """Return the keys that must not be logged: the live ones, those being saved, and those replaced recently."""
        return self._secrets

    async def _replace(self, token: Token, deadline: float, now: datetime, began: float) -> Replacement:
        """
        Save a token, and use it in place of the one of its kind.

        :param now: The date when the steady clock was at ``began``.
        """
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
            # Dates are of the clock at the start, should it have been set meanwhile.
            until = self._retire(old, now + timedelta(seconds=self._seconds() - began))
            fresh = LiveToken(token, deadline)
            self._use(keys, tuple(fresh if each.token is old else each for each in self._live))
        finally:
            self._pending = []
            self._use(self._keys, self._live)
        return Replacement(old, token, until)

    def _retire(self, old: Token, now: datetime) -> datetime | None:
        """Let a token that is replaced now live on for the overlap, and return when it ends, if it has not ended."""
        self._replaced.append(old.encoded)
        [live] = [each for each in self._live if each.token is old]
        if not self._overlap or live.expired(now, self._seconds):
            return None
        former = live.until(now + self._overlap, self._seconds() + self._overlap.total_seconds())
        same = [each for each in self._former if each.token.kind is old.kind]
        others = [each for each in self._former if each.token.kind is not old.kind]
        self._former = (*others, *same[1 - MOST_FORMER :], former)
        return former.token.expires

    def _deadline(self) -> float:
        return self._seconds() + self._lifetime.total_seconds()

    def _use(self, keys: KeySet, live: tuple[LiveToken, ...]) -> None:
        """Set the live tokens, and precompute the secrets, which every logged request needs."""
        self._keys = keys
        self._live = live
        # A live token comes after a replaced one with the same secret, and so decides.
        self._known = (*self._former, *live)
        self._secrets = (*[each.token.encoded for each in self._known], *self._pending, *self._replaced)


class MakeKeyring(Protocol):
    """
    Makes the keyring of a server and saves its first keys; `Keyring.create` is one.

    What comes after ``defer`` is passed only if an option asks for it, so that a function without it will do.
    """

    def __call__(
        self,
        save: Save,
        entropy: Entropy,
        lifetime: timedelta,
        now: datetime,
        seconds: Callable[[], float],
        defer: Defer,
        /,
        *,
        overlap: timedelta = ...,
        found: Sequence[Token] = ...,
    ) -> Keyring:
        """Make the keyring."""
