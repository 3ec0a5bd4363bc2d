# SPDX-License-Identifier: Apache-2.0
"""
Decide whether a request presents the token it needs.

The decision uses plain values only, so that the channel can make it as soon as the
headers have arrived, the guard can repeat it before a route runs, and other
transports can use it too.  An application may decide instead, later or at once (`asking`).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.auth.keyring import Granted, Keyring, Reason, Refused
from twisted_serve.auth.named.live import LiveKey, NamedKeys
from twisted_serve.auth.named.secrets import PREFIX
from twisted_serve.auth.needs import Need, NeedPolicy
from twisted_serve.auth.redaction import REDACTED
from twisted_serve.auth.scopes import Scope
from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.interfaces import Now

_log = Logger("twisted_serve.auth")

# Both texts are TorchServe's; they differ in one word (``docs/torchserve/rest_api.md`` §15.2).
AUTHORIZATION_FAILED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
AUTHENTICATION_FAILED = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"

_PREFIX = PREFIX.encode("ascii")
_UNKNOWN = Refused(Reason.UNKNOWN)

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
    :ivar key: The named key of the sender; ``None`` if the sender has presented one of the three keys, or none.
    :ivar need: What the key was checked for; ``None`` without a named key.
    """

    scope: Scope | None
    key: LiveKey | None = None
    need: Need | None = None


@frozen
class Denied:
    """
    The request is not allowed: it needs a valid token of ``kind`` and does not present one, or the key may not do this.

    :ivar name: The name of the key, if it is a good named key that lacks a scope or has reached a limit.
    :ivar retry_after: Seconds after which a limit allows the request, if there is one.
    """

    kind: TokenKind
    reason: Reason
    key_id: str | None = None
    name: str | None = None
    need: Need | None = None
    retry_after: int | None = None


@frozen
class Question:
    """
    What is asked about a request: what it needs, and what it presents.

    Neither changes, so that the question about requests with the same head can be put again and again. The answer
    does: each request is decided about anew.

    :ivar presented: The token, or the reason why there is none.
    """

    need: Need
    presented: bytes | Reason = field(repr=False)


class Authorizer:
    """
    Authorize the requests of one listener.

    :param policy: What each request needs on this listener.
    :param named: The named keys; ``None`` if there are none (``token_store``).
    """

    def __init__(self, policy: NeedPolicy, keyring: Keyring, now: Now, named: NamedKeys | None = None) -> None:
        self._policy = policy
        self._keyring = keyring
        self._now = now
        self._named = named

    def ask(self, method: bytes, target: Target, authorization: Sequence[bytes]) -> Allowed | Denied:
        """
        Return whether a request is allowed.

        :param authorization: The values of all its ``Authorization`` headers.
        """
        return self.decide(self.question(method, target, authorization))

    def question(self, method: bytes, target: Target, authorization: Sequence[bytes]) -> Question:
        """Return the question that `ask` decides."""
        need = self._policy(method, target)
        return Question(need, Reason.MISSING if need.scope is None else bearer_token(authorization))

    def decide(self, question: Question) -> Allowed | Denied:
        """Return whether a request is allowed."""
        need, presented = question.need, question.presented
        kind = need.scope
        if kind is None:
            return _ALLOWED[None]
        if isinstance(presented, Reason):
            return Denied(kind, presented)
        if self._named is not None and presented.startswith(_PREFIX):
            found = self._named.check(presented, self._now())
            # One in 2 ** 24 of the three keys begins like a named one.
            if found != _UNKNOWN:
                return self._judge(found, need, kind)
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

    def ask_again(self, allowed: Allowed) -> Allowed | Denied:
        """Return whether what was allowed is still allowed: for the next message of an open stream."""
        if self._named is None or allowed.key is None or allowed.need is None or allowed.scope is None:
            return allowed
        return self._judge(self._named.check_again(allowed.key, self._now()), allowed.need, allowed.scope)

    @staticmethod
    def _judge(found: LiveKey | Refused, need: Need, kind: Scope) -> Allowed | Denied:
        if isinstance(found, Refused):
            return Denied(kind, found.reason, found.key_id)
        record = found.record
        if record.scopes.allows(need):
            return Allowed(kind, found, need)
        return Denied(kind, Reason.SCOPE, record.id, record.name, need)


class OpenAuthorizer:
    """Allow every request: token authorization is switched off, and only the tree of routes is selected."""

    def __init__(self, policy: NeedPolicy) -> None:
        self._policy = policy

    def ask(self, method: bytes, target: Target, authorization: Sequence[bytes]) -> Allowed | Denied:
        """Allow the request."""
        return self.decide(self.question(method, target, authorization))

    def question(self, method: bytes, target: Target, authorization: Sequence[bytes]) -> Question:
        """Return the question that `ask` decides."""
        return Question(self._policy(method, target), Reason.MISSING)

    def decide(self, question: Question) -> Allowed | Denied:
        """Allow the request."""
        return _ALLOWED[question.need.scope]


_ALLOWED: dict[Scope | None, Allowed] = {scope: Allowed(scope) for scope in (None, *TokenKind)}
