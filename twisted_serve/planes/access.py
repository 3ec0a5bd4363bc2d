# SPDX-License-Identifier: Apache-2.0
"""
Authorize the clients of all listeners: by keys, by an application's authorizer, or not at all.

What a refusal looks like is each transport's affair.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from twisted_serve.auth.asking import Asking, NeedPolicy
from twisted_serve.auth.audit import AuditLog
from twisted_serve.auth.gate import AccessPolicy, Authorizer, OpenAuthorizer
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.redaction import Redact, redacting
from twisted_serve.auth.tokens import SHORTEST_SECRET
from twisted_serve.interfaces import IAuthorizer, Now
from twisted_serve.planes.rotation import Rotation


@frozen
class TokenAccess:
    """
    Token authorization.

    :ivar redact: Replaces the keys in a path or a text.
    """

    keyring: Keyring
    rotation: Rotation
    audit_log: AuditLog
    now: Now
    redact: Redact = field(init=False)

    @redact.default
    def _redact_keys(self) -> Redact:
        return redacting(self.keyring.secrets, SHORTEST_SECRET)

    def authorizer(self, policy: AccessPolicy) -> Authorizer:
        """Return the authorizer of a listener."""
        return Authorizer(policy, self.keyring, self.now)


@frozen
class OpenAccess:
    """Replaces `TokenAccess` when token authorization is off: no request is denied."""

    def redact(self, text: bytes) -> bytes:
        """Return the text unchanged: there are no keys."""
        return text

    def authorizer(self, policy: AccessPolicy) -> OpenAuthorizer:
        """Return the authorizer of a listener."""
        return OpenAuthorizer(policy)


@frozen
class ApplicationAccess(OpenAccess):
    """
    Authorization by an application's authorizer, without tokens.

    :ivar timeout: Seconds that it has for an answer.
    """

    application: IAuthorizer
    timeout: float
    audit_log: AuditLog

    def asking(self, policy: NeedPolicy, clock: IReactorTime) -> Asking:
        """Return the questions of a listener to the authorizer."""
        return Asking(self.application, policy, clock, self.timeout)


#: How the clients of a server are authorized.
Access: TypeAlias = "TokenAccess | OpenAccess"
