# SPDX-License-Identifier: Apache-2.0
"""
Represent the sender of a request with a named key: which models the key opens, and whether the key is still good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from twisted_serve.auth.gate import Allowed, Authorizer, Denied
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.named.limits import Lease, Limit, Limited
from twisted_serve.auth.needs import Need
from twisted_serve.auth.refusals import refusal_error
from twisted_serve.errors import ServeError

_LIMITS = {Limit.RATE: Reason.RATE, Limit.CONCURRENT: Reason.CONCURRENT}

Record: TypeAlias = Callable[[Denied], None]


class Sender:
    """
    The sender of one request that was taken with a named key.

    :ivar allowed: What was decided, with the key as it was when the gate was asked last.
    :param lease: The place of the request among those of its key; ``None`` for a request that is not counted.
    :param record: Records a refusal in the audit log.
    """

    __slots__ = ("_lease", "_record", "allowed")

    def __init__(self, allowed: Allowed, lease: Lease | None, record: Record) -> None:
        self.allowed = allowed
        self._lease = lease
        self._record = record

    def sees(self, model: str) -> bool:
        """Return whether the key allows the request for a model, or workflow, of this name."""
        key, need = self.allowed.key, self.allowed.need
        if key is None or need is None:
            return False
        return key.record.scopes.allows(Need(need.operation, need.scope, model))

    def require(self, model: str) -> None:
        """
        Check that the key allows the request for a model; record a refusal.

        :raise InsufficientScope: if it does not, whether there is such a model or not.
        """
        if not self.sees(model):
            raise self.refused(_denied(self.allowed, Reason.SCOPE))

    def go_on(self, authorizer: Authorizer, first: bool) -> Denied | None:
        """
        Return why the next message of an open stream is refused, if it is; record the refusal.

        Each message counts for the rate of the key, the first one with the stream itself. The stream is one of the
        key's requests at the same time, however many of its messages are not answered.

        :param first: Whether it is the first message.
        """
        verdict = authorizer.ask_again(self.allowed)
        denied = verdict if isinstance(verdict, Denied) else None if first else _counted(verdict)
        if denied is not None:
            self._record(denied)
        elif isinstance(verdict, Allowed):
            self.allowed = verdict
        return denied

    def refused(self, denied: Denied) -> ServeError:
        """Record a refusal, and return the error for the client."""
        self._record(denied)
        return refusal_error(denied)

    def leave(self) -> None:
        """Give the place of the request back; idempotent."""
        if self._lease is not None:
            self._lease.leave()


def taken(allowed: Allowed, record: Record) -> Sender | Denied:
    """
    Take a request with a named key, which counts once, or return why the key has reached a limit.

    :raise ValueError: for a request without a named key.
    """
    if allowed.key is None:
        raise ValueError("a request without a named key")
    lease = allowed.key.state.usage.enter()
    return _limited(allowed, lease) if isinstance(lease, Limited) else Sender(allowed, lease, record)


def _counted(allowed: Allowed) -> Denied | None:
    limited = None if allowed.key is None else allowed.key.state.usage.count()
    return None if limited is None else _limited(allowed, limited)


def _limited(allowed: Allowed, limited: Limited) -> Denied:
    return _denied(allowed, _LIMITS[limited.limit], limited.retry_after)


def _denied(allowed: Allowed, reason: Reason, retry_after: int | None = None) -> Denied:
    key, scope = allowed.key, allowed.scope
    if key is None or scope is None:
        raise ValueError("a request without a named key")
    return Denied(scope, reason, key.record.id, key.record.name, allowed.need, retry_after)
