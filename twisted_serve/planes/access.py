# SPDX-License-Identifier: Apache-2.0
"""
Authorize the clients of all listeners: by keys, by an application's authorizer, or not at all.

What a refusal looks like is each transport's affair.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from twisted_serve.auth.asking import Asking
from twisted_serve.auth.audit import AuditLog
from twisted_serve.auth.gate import Allowed, Authorizer, Denied, OpenAuthorizer
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.named.live import NamedKeys
from twisted_serve.auth.needs import NeedPolicy
from twisted_serve.auth.redaction import Redact, redacting
from twisted_serve.auth.tokens import SHORTEST_SECRET
from twisted_serve.interfaces import IAuthorizer, Now
from twisted_serve.planes.rotation import Rotation
from twisted_serve.planes.senders import Sender, taken


@frozen
class TokenAccess:
    """
    Token authorization.

    :ivar named: The named keys; ``None`` without a store of them (``token_store``).
    :ivar redact: Replaces the keys in a path or a text.
    """

    keyring: Keyring
    rotation: Rotation
    audit_log: AuditLog
    now: Now
    named: NamedKeys | None = None
    redact: Redact = field(init=False)

    @redact.default
    def _redact_keys(self) -> Redact:
        return redacting(self.keyring.secrets, SHORTEST_SECRET)

    def authorizer(self, policy: NeedPolicy) -> Authorizer:
        """Return the authorizer of a listener."""
        return Authorizer(policy, self.keyring, self.now, self.named)

    def record(self, denied: Denied, peer: str, method: str, path: bytes) -> None:
        """
        Record a refused request in the audit log, with the keys in its path redacted.

        :param path: With or without the query, which is not recorded.
        """
        shown = self.redact(path.partition(b"?")[0]).decode("latin-1")
        self.audit_log.refused(denied, peer, method, shown)

    def take(self, allowed: Allowed, peer: str, method: str, path: bytes) -> Sender | Denied:
        """
        Take a request with a named key, whose sender leaves when the request ends.

        The first use of a key from an address is in the audit log.

        :return: Why the request is not allowed, if the key has reached a limit.
        :raise ValueError: for a request without a named key.
        """
        sender = taken(allowed, lambda denied: self.record(denied, peer, method, path))
        if allowed.key is not None:
            self.audit_log.key_used(allowed.key.record, peer)
            if isinstance(sender, Sender):
                self.audit_log.key_admitted(allowed.key.record)
        return sender


@frozen
class OpenAccess:
    """Replaces `TokenAccess` when token authorization is off: no request is denied."""

    def redact(self, text: bytes) -> bytes:
        """Return the text unchanged: there are no keys."""
        return text

    def authorizer(self, policy: NeedPolicy) -> OpenAuthorizer:
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
