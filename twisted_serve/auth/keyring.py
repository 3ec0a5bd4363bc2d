# SPDX-License-Identifier: Apache-2.0
"""
This module implements the live keys of a server: checking one, replacing one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import Enum

from attrs import frozen

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


class Keyring:
    """
    The three live tokens.

    Enforcement needs no timer: every check compares with the ``now`` it is given.

    :param save: Makes a set of keys durable, or raises and has changed nothing.
    """

    def __init__(self, keys: KeySet, save: Callable[[KeySet], None], entropy: Entropy, lifetime: timedelta) -> None:
        self._save = save
        self._entropy = entropy
        self._lifetime = lifetime
        self._replaced: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._use(keys)

    @classmethod
    def create(cls, save: Callable[[KeySet], None], entropy: Entropy, lifetime: timedelta, now: datetime) -> Keyring:
        """
        Make fresh keys and save them.

        :raise OSError: when they cannot be saved.
        """
        keys = fresh_keys(entropy, now, lifetime)
        save(keys)
        return cls(keys, save, entropy, lifetime)

    @property
    def keys(self) -> KeySet:
        """The tokens which are live now."""
        return self._keys

    def check(self, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        """Say whether ``presented`` opens doors of ``kind`` at ``now``."""
        token: Token | None = None
        # All three are compared every time, so that the time taken does not tell which one it is.
        for each in self._tokens:
            if each.is_secret(presented):
                token = each
        if token is None:
            return Refused(Reason.UNKNOWN)
        if token.kind is not kind:
            return Refused(Reason.WRONG_KIND, token.public_id)
        if token.expired(now):
            return Refused(Reason.EXPIRED, token.public_id)
        return Granted(token.public_id)

    def rotate(self, kind: TokenKind, now: datetime) -> Token:
        """
        Replace the token of ``kind``; the old one stops opening at once.

        The new set is saved first and becomes live second: when saving fails the
        old token stays, in memory and in the file.

        :raise OSError: when the new keys cannot be saved.
        :raise ValueError: for the API token, which lives as long as the server.
        """
        if kind is TokenKind.API:
            raise ValueError("the API token is replaced by a restart only")
        token = fresh_token(kind, self._entropy, now, self._lifetime)
        keys = self._keys.replacing(token)
        self._save(keys)
        self._replaced.append(self._keys.of(kind).encoded)
        self._use(keys)
        return token

    def secrets(self) -> Sequence[bytes]:
        """Return what must not be written down: the live keys, and those which were replaced lately."""
        return self._secrets

    def _use(self, keys: KeySet) -> None:
        """Have these be the live tokens; what each request asks for is made ready."""
        self._keys = keys
        self._tokens = tuple(keys)
        self._secrets = (*[token.encoded for token in self._tokens], *self._replaced)
