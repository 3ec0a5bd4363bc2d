# SPDX-License-Identifier: Apache-2.0
"""
Authorize calls at their headers, with the keys and the operations of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime

from twisted_serve.auth.asking import Asking, Declined, Outcome
from twisted_serve.auth.gate import Allowed, Authorizer, Denied
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.refusals import refusal_error
from twisted_serve.auth.targets import parse_target
from twisted_serve.errors import ServeError
from twisted_serve.listening.roles import Role
from twisted_serve.planes.access import Access, ApplicationAccess, TokenAccess
from twisted_serve.planes.inference import InferencePlane, SharedInference
from twisted_serve.planes.senders import Sender
from twisted_serve.rpc.contracts import Admitted, Call, Door, Known, KnownTo
from twisted_serve.rpc.methods import HEALTH, KSERVE, need_policy
from twisted_serve.rpc.statuses import Code, Status, status_of

# The method of every call (``docs/torchserve/grpc_workflows_kserve.md`` §1.5), and its name in logs.
_METHOD = b"POST"
_NAME = "gRPC"

_ADMITTED = Admitted()
_UNKNOWN = Admitted(known=False)

# A method that tells which models there are.
_INSPECTION = parse_target(f"/{KSERVE}/ModelReady".encode("ascii"))

# The codes of the statuses with which an application's authorizer refuses; any other is PERMISSION_DENIED.
_CODES = {401: Code.UNAUTHENTICATED, 404: Code.NOT_FOUND, 429: Code.RESOURCE_EXHAUSTED}


def door_of(access: Access, roles: Role, exempt_ping: bool, clock: IReactorTime) -> Door:
    """
    Return the door of a listener.

    :param exempt_ping: Whether ``Ping`` needs no key (``token_exempt_ping``).
    """
    if isinstance(access, ApplicationAccess):
        return ApplicationDoor(access, access.asking(need_policy(roles, exempt_ping), clock))
    if isinstance(access, TokenAccess):
        return TokenDoor(access, roles, exempt_ping)
    return OpenDoor()


def models_known(access: Access, exempt_ping: bool, plane: SharedInference) -> KnownTo:
    """Return the function that finds the models which the caller of an open method may know."""
    all_models = plane.seen_by(None)
    if isinstance(access, TokenAccess):
        authorizer = access.authorizer(need_policy(Role.INFERENCE, exempt_ping))

        def known_by_key(call: Call) -> Known:
            presented = [value for name, value in call.metadata if name == b"authorization"]
            verdict = authorizer.ask(_METHOD, _INSPECTION, presented)
            if isinstance(verdict, Denied):
                # The call goes on without the key; but a key is not tried in silence, even here.
                if verdict.reason not in (Reason.MISSING, Reason.SCOPE):
                    access.record(verdict, _host_of(call.peer), _NAME, HEALTH.encode("ascii"))
                return lambda: None
            return (lambda: all_models) if verdict.key is None else partial(_known_to_key, authorizer, verdict, plane)

        return known_by_key
    # An application's authorizer answers later, and is not asked about open methods.
    known = None if isinstance(access, ApplicationAccess) else all_models
    return lambda _call: lambda: known


def _known_to_key(authorizer: Authorizer, allowed: Allowed, plane: SharedInference) -> InferencePlane | None:
    """Return the models that a named key opens now; ``None`` once it is not good."""
    verdict = authorizer.ask_again(allowed)
    if isinstance(verdict, Denied):
        return None
    # An open method is not counted, and what it does not show is not refused.
    return plane.seen_by(Sender(verdict, None, lambda _denied: None))


def _host_of(peer: Any) -> str:
    """Return the client's address without the port, which differs for each connection."""
    return str(getattr(peer, "host", None) or "127.0.0.1")


def _refusal(denied: Denied) -> Status:
    return status_of(refusal_error(denied))


class OpenDoor:
    """Admits every call: token authorization is off."""

    def ask(self, path: bytes, authorization: Sequence[bytes], peer: IAddress) -> Admitted:
        """Admit the call."""
        return _ADMITTED


class TokenDoor:
    """Admits calls with the key that their operation needs."""

    def __init__(self, access: TokenAccess, roles: Role, exempt_ping: bool) -> None:
        self._access = access
        self._authorizer = access.authorizer(need_policy(roles, exempt_ping))

    def ask(self, path: bytes, authorization: Sequence[bytes], peer: IAddress) -> Admitted | Status:
        """Return `Admitted`, or the status of a refusal."""
        verdict = self._authorizer.ask(_METHOD, parse_target(path), authorization)
        if isinstance(verdict, Denied):
            self._access.record(verdict, _host_of(peer), _NAME, path)
            return _refusal(verdict)
        if verdict.key is not None:
            return self._taken(verdict, _host_of(peer), path)
        return _UNKNOWN if verdict.scope is None else _ADMITTED

    def _taken(self, allowed: Allowed, peer: str, path: bytes) -> Admitted | Status:
        """Admit a call with a named key, unless the key has reached a limit."""
        sender = self._access.take(allowed, peer, _NAME, path)
        if isinstance(sender, Denied):
            self._access.record(sender, peer, _NAME, path)
            return _refusal(sender)
        name = None if allowed.key is None else allowed.key.record.name

        def go_on(first: bool) -> Status | None:
            denied = sender.go_on(self._authorizer, first)
            return None if denied is None else _refusal(denied)

        return Admitted(name, sender=sender, go_on=go_on)


class ApplicationDoor:
    """Admits the calls that an application's authorizer admits."""

    def __init__(self, access: ApplicationAccess, asking: Asking) -> None:
        self._access = access
        self._asking = asking

    def ask(self, path: bytes, authorization: Sequence[bytes], peer: IAddress) -> Deferred[Admitted | Status]:
        """Ask the authorizer; return `Admitted`, or the status of its refusal, later."""
        asked = self._asking.ask(_METHOD, parse_target(path), authorization, peer)
        return asked.addCallback(self._decided, path, peer)

    def _decided(self, outcome: Outcome, path: bytes, peer: IAddress) -> Admitted | Status:
        if not isinstance(outcome, Declined):
            return _UNKNOWN if outcome.principal is None else Admitted(outcome.principal)
        self._access.audit_log.declined(outcome, _host_of(peer), _NAME, path.partition(b"?")[0].decode("latin-1"))
        answer = outcome.answer
        if isinstance(answer, ServeError):
            return status_of(answer)
        return Status(_CODES.get(answer.status, Code.PERMISSION_DENIED), answer.message)
