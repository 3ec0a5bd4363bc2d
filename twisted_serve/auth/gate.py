# SPDX-License-Identifier: Apache-2.0
"""
Decide whether a request presents the token it needs.

The decision uses plain values only, so that the channel can make it as soon as the
headers have arrived, the guard can repeat it before a route runs, and other
transports can use it too.  An application may decide instead, later or at once (`asking`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from attrs import frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.auth.keyring import Granted, Keyring, Reason, Refused
from twisted_serve.auth.redaction import REDACTED
from twisted_serve.auth.scopes import Scope
from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.interfaces import Now

_log = Logger("twisted_serve.auth")

#: Maps a method and a target to the scope needed; ``None`` for a public target.
AccessPolicy: TypeAlias = Callable[[bytes, Target], "Scope | None"]

# Both texts are TorchServe's; they differ in one word (``docs/torchserve/rest_api.md`` §15.2).
AUTHORIZATION_FAILED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
AUTHENTICATION_FAILED = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"

# In bytes; longer than any token. The presented token is compared in full, hence the bound.
_LONGEST_TOKEN = 512


def refusal_text(kind: TokenKind) -> str:
    """Return the error message for a client without a token of this kind."""
    return AUTHENTICATION_FAILED if kind is TokenKind.API else AUTHORIZATION_FAILED


def bearer_token(headers: Sequence[bytes]) -> bytes | Reason:
    """
    Return the token of the only ``Authorization`` header of a request, or the reason why there is none.

    The scheme is matched case-insensitively (RFC 9110 §11.1) and followed by one or more
    spaces, the token, and nothing else.

    :param headers: The values of all ``Authorization`` headers.
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
class Allowed:
    """
    The request is allowed.

    :ivar scope: The scope that the request needed; ``None`` for a public target.
    """

    scope: Scope | None


@frozen
class Denied:
    """The request needs a valid token of ``kind`` and does not present one."""

    kind: TokenKind
    reason: Reason
    key_id: str | None = None


class Authorizer:
    """
    Authorize the requests of one listener.

    :param policy: The kind of token that each request needs on this listener.
    """

    def __init__(self, policy: AccessPolicy, keyring: Keyring, now: Now) -> None:
        self._policy = policy
        self._keyring = keyring
        self._now = now

    def ask(self, method: bytes, target: Target, authorization: Sequence[bytes]) -> Allowed | Denied:
        """
        Return whether a request is allowed.

        :param authorization: The values of all its ``Authorization`` headers.
        """
        kind = self._policy(method, target)
        if kind is None:
            return _ALLOWED[None]
        presented = bearer_token(authorization)
        if isinstance(presented, Reason):
            return Denied(kind, presented)
        # The keyring may be an application's: what is not a plain yes is a no.
        try:
            verdict: object = self._keyring.check(kind, presented, self._now())
        except Exception:
            text = Failure().getTraceback().replace(presented.decode("latin-1"), REDACTED.decode("ascii"))
            _log.error("The keyring has failed, so a request is refused: {text}", text=text)
            return Denied(kind, Reason.UNKNOWN)
        if isinstance(verdict, Granted):
            return _ALLOWED[kind]
        if isinstance(verdict, Refused):
            return Denied(kind, verdict.reason, verdict.key_id)
        _log.error(
            "The keyring has answered {type}, expected Granted or Refused: the request is refused",
            type=type(verdict).__name__,
        )
        return Denied(kind, Reason.UNKNOWN)


class OpenAuthorizer:
    """Allow every request: token authorization is switched off, and only the tree of routes is selected."""

    def __init__(self, policy: AccessPolicy) -> None:
        self._policy = policy

    def ask(self, method: bytes, target: Target, authorization: Sequence[bytes]) -> Allowed | Denied:
        """Allow the request."""
        return _ALLOWED[self._policy(method, target)]


_ALLOWED: dict[Scope | None, Allowed] = {scope: Allowed(scope) for scope in (None, *TokenKind)}
