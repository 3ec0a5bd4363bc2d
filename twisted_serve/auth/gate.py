# SPDX-License-Identifier: Apache-2.0
"""
This module implements the gate: which token a request needs, and whether it has it.

It decides on values alone, so that the channel can ask as soon as the headers
are in, the guard again before a route runs, and another transport in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from attrs import frozen

from twisted_serve.auth.keyring import Keyring, Reason, Refused
from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.interfaces import Now

#: Which token a method on a target needs; ``None`` for an open door.
Doors: TypeAlias = Callable[[bytes, Target], "TokenKind | None"]

# Both texts are the predecessor's; one word differs (``docs/torchserve/rest_api.md`` §15.2).
AUTHORIZATION_FAILED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
AUTHENTICATION_FAILED = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"

# Longer than any token; compared in full, so it is bounded.
_LONGEST_TOKEN = 512


def refusal_text(kind: TokenKind) -> str:
    """Return what a refused client is told."""
    return AUTHENTICATION_FAILED if kind is TokenKind.API else AUTHORIZATION_FAILED


def bearer_token(headers: Sequence[bytes]) -> bytes | Reason:
    """
    Read the token from all ``Authorization`` headers of a request.

    The scheme is compared without regard to case (RFC 9110 §11.1), one or more
    blanks follow it, then the token and nothing else.
    """
    if not headers:
        return Reason.MISSING
    if len(headers) > 1:
        return Reason.SEVERAL
    scheme, _, token = headers[0].partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or not token or len(token) > _LONGEST_TOKEN or token.split() != [token]:
        return Reason.MALFORMED
    return token


@frozen
class Pass:
    """
    The request may go on, through one door.

    :ivar door: The kind of token which opens it; ``None`` for an open one, where anybody may stand.
    """

    door: TokenKind | None


@frozen
class Stop:
    """The request needs a token of ``kind`` and has none."""

    kind: TokenKind
    reason: Reason
    key_id: str | None = None


class Gate:
    """
    The gate of one listener.

    :param doors: Which token each request needs there.
    """

    def __init__(self, doors: Doors, keyring: Keyring, now: Now) -> None:
        self._doors = doors
        self._keyring = keyring
        self._now = now

    def ask(self, method: bytes, target: Target, authorization: Sequence[bytes]) -> Pass | Stop:
        """
        Decide about a request.

        :param authorization: The values of all its ``Authorization`` headers.
        """
        kind = self._doors(method, target)
        if kind is None:
            return _PASSES[None]
        presented = bearer_token(authorization)
        if isinstance(presented, Reason):
            return Stop(kind, presented)
        verdict = self._keyring.check(kind, presented, self._now())
        if isinstance(verdict, Refused):
            return Stop(kind, verdict.reason, verdict.key_id)
        return _PASSES[kind]


class OpenGate:
    """The gate when token authorization is switched off: the doors are there, and need no token."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    def ask(self, method: bytes, target: Target, authorization: Sequence[bytes]) -> Pass | Stop:
        """Let everybody pass."""
        return _PASSES[self._doors(method, target)]


_PASSES: dict[TokenKind | None, Pass] = {door: Pass(door) for door in (None, *TokenKind)}
