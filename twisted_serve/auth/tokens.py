# SPDX-License-Identifier: Apache-2.0
"""
Define the tokens that authorize requests, with their kind and expiry.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import TypeAlias

from attrs import Attribute, evolve, field, frozen
from attrs.validators import instance_of, matches_re

from twisted_serve.interfaces import TokenKind

__all__ = [
    "SHORTEST_SECRET",
    "TOKEN_BYTES",
    "Entropy",
    "KeySet",
    "Token",
    "TokenKind",
    "aware",
    "fresh_keys",
    "fresh_token",
    "public_id",
]

# TorchServe's keys have 8 characters (48 bits); these have 32 (192 bits), so that
# guessing is infeasible and no client needs to be throttled.
TOKEN_BYTES = 24

# In characters; a shorter string is not accepted as a secret.
SHORTEST_SECRET = 8

#: Returns this many random bytes, e.g. ``secrets.token_bytes``.
Entropy: TypeAlias = Callable[[int], bytes]


def aware(instance: object, attribute: Attribute[datetime | None], value: datetime | None) -> None:
    """
    Validate that a date has a time zone.

    :raise ValueError: naming the field of a date without one.
    """
    if value is not None and value.utcoffset() is None:
        raise ValueError(f"{attribute.name} is {value.isoformat()}, without a time zone")


@frozen
class Token:
    """
    A secret that authorizes requests of one kind until it expires.

    :ivar secret: Characters of RFC 6750's ``b64token``; opaque to clients.
    :ivar expires: The first moment at which the token is refused; ``None`` for never.
    :ivar given: The setting or variable by which an operator gives the secret; ``None`` for one that the server made.
    :ivar encoded: The secret as bytes, as in a request.
    :ivar public_id: The name of the token in logs and audit lines, which does not reveal the secret.
    """

    kind: TokenKind = field(validator=instance_of(TokenKind))
    secret: str = field(repr=False, validator=matches_re(rf"[A-Za-z0-9\-._~+/]{{{SHORTEST_SECRET},}}=*"))
    expires: datetime | None = field(default=None, validator=aware)
    given: str | None = None
    encoded: bytes = field(init=False, repr=False, eq=False)
    public_id: str = field(init=False)

    @encoded.default
    def _encoded_secret(self) -> bytes:
        return self.secret.encode()

    @public_id.default
    def _public_id_of_secret(self) -> str:
        return public_id(self.encoded)

    def is_secret(self, presented: bytes) -> bool:
        """Return whether ``presented`` is the secret, in a time independent of how much of it matches."""
        return compare_digest(self.encoded, presented)

    def expired(self, now: datetime) -> bool:
        """Return whether ``now`` is the moment of expiry or later."""
        return self.expires is not None and now >= self.expires

    def opens(self, kind: TokenKind, presented: bytes, now: datetime) -> bool:
        """Return whether ``presented`` is this token, of the kind needed, and not expired."""
        return self.is_secret(presented) and kind is self.kind and not self.expired(now)


def public_id(secret: bytes) -> str:
    """Return a short name for a secret that does not reveal it."""
    return sha256(secret).hexdigest()[:8]


def fresh_token(kind: TokenKind, entropy: Entropy, now: datetime, lifetime: timedelta | None) -> Token:
    """Create a token of ``kind`` from ``entropy``, valid for ``lifetime`` from ``now``, or forever."""
    secret = urlsafe_b64encode(entropy(TOKEN_BYTES)).rstrip(b"=").decode("ascii")
    return Token(kind, secret, None if lifetime is None else now + lifetime)


@frozen
class KeySet:
    """
    The three tokens of a server: one of each kind, all with different secrets.

    :raise ValueError: for tokens of other kinds, or with equal secrets.
    """

    management: Token
    inference: Token
    api: Token

    def __attrs_post_init__(self) -> None:
        kinds = (self.management.kind, self.inference.kind, self.api.kind)
        if kinds != (TokenKind.MANAGEMENT, TokenKind.INFERENCE, TokenKind.API):
            raise ValueError(f"tokens of the kinds {kinds} in the places of management, inference and API")
        if len({token.secret for token in self}) < len(kinds):
            raise ValueError("two tokens have the same secret: the source of random bytes is broken")

    def __iter__(self) -> Iterator[Token]:
        return iter((self.management, self.inference, self.api))

    def of(self, kind: TokenKind) -> Token:
        """Return the token of this kind."""
        return {TokenKind.MANAGEMENT: self.management, TokenKind.INFERENCE: self.inference, TokenKind.API: self.api}[
            kind
        ]

    def replacing(self, *tokens: Token) -> KeySet:
        """Return these tokens with ``tokens`` in place of those of their kinds."""
        return evolve(self, **{token.kind.value.lower(): token for token in tokens})


def fresh_keys(entropy: Entropy, now: datetime, lifetime: timedelta, found: Iterable[Token] = ()) -> KeySet:
    """
    Create three new tokens; the API token never expires (``docs/torchserve/rest_api.md`` §16.5).

    :param found: Tokens that there are already, in place of new ones of their kinds.
    """
    there = {token.kind: token for token in found}

    def token(kind: TokenKind, lifetime: timedelta | None) -> Token:
        return there.get(kind) or fresh_token(kind, entropy, now, lifetime)

    return KeySet(
        management=token(TokenKind.MANAGEMENT, lifetime),
        inference=token(TokenKind.INFERENCE, lifetime),
        api=token(TokenKind.API, None),
    )
