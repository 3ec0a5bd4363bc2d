# SPDX-License-Identifier: Apache-2.0
"""
Ask an application's authorizer, and bound how long it may take and what it may answer.

No answer admits but a `Principal`.  Whatever else an authorizer does is an error of the server.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.auth.needs import NeedPolicy
from twisted_serve.auth.redaction import REDACTED
from twisted_serve.auth.scopes import Operation, Scope
from twisted_serve.auth.targets import Target
from twisted_serve.errors import InternalError, ServeError, ServiceUnavailable
from twisted_serve.interfaces import AccessRequest, IAuthorizer, Principal, Refusal

_log = Logger("twisted_serve.auth")

# In characters. A shorter text may be in a log line by chance.
_SHORTEST_SECRET = 4


@frozen
class Asked:
    """
    The outcome for a request that is admitted.

    :ivar operation: What the request may do; ``None`` if it has no route.
    :ivar principal: The sender; ``None`` for a public target.
    """

    operation: Operation | None
    principal: str | None = None


@frozen
class Declined:
    """
    The outcome for a request that is not admitted.

    :ivar answer: The authorizer's answer, or the error in place of one.
    """

    scope: Scope
    answer: Refusal | ServeError


#: What comes of a question.
Outcome: TypeAlias = "Asked | Declined"


class Asking:
    """
    Asks about the requests of one listener.

    :param timeout: Seconds that the authorizer has for an answer.
    """

    def __init__(self, authorizer: IAuthorizer, policy: NeedPolicy, clock: IReactorTime, timeout: float) -> None:
        self._authorizer = authorizer
        self._policy = policy
        self._clock = clock
        self._timeout = timeout

    def ask(self, method: bytes, target: Target, authorization: Sequence[bytes], peer: IAddress) -> Deferred[Outcome]:
        """
        Ask whether a request is admitted.

        :return: Fires once and fails only if it is cancelled, which cancels the authorizer's Deferred.
        """
        need = self._policy(method, target)
        outcome: Deferred[Outcome]
        if need.scope is None:
            outcome = Deferred()
            outcome.callback(Asked(need.operation))
            return outcome
        asked = AccessRequest(
            need.operation, need.scope, tuple(authorization), peer, method.decode("latin-1"), target.segments
        )
        return _Question(asked, self._clock, self._timeout).put_to(self._authorizer)


class _Question:
    """
    A question that waits for its answer.

    :ivar over: Whether the outcome is known, or nothing waits for it because the client has disconnected.
    """

    def __init__(self, asked: AccessRequest, clock: IReactorTime, timeout: float) -> None:
        self._asked = asked
        self._clock = clock
        self._timeout = timeout
        self._timer: IDelayedCall | None = None
        self._outcome: Deferred[Outcome] = Deferred(self._abandoned)
        self._answer: Deferred[Any] = Deferred()
        self.over = False

    def put_to(self, authorizer: IAuthorizer) -> Deferred[Outcome]:
        """Ask the authorizer, and return the outcome."""
        self._answer = maybeDeferred(authorizer.authorize, self._asked)
        self._answer.addCallbacks(self._answered, self._failed)
        if not self.over:
            self._timer = self._clock.callLater(self._timeout, self._too_late)
        return self._outcome

    def _answered(self, verdict: object) -> object:
        if not self.over:
            self._end(_outcome_of(verdict, self._asked))
        return verdict

    def _failed(self, failure: Failure) -> None:
        if not (self.over and failure.check(CancelledError)):
            _log_failure(failure, self._asked)
        if not self.over:
            self._end(Declined(self._asked.scope, InternalError("Internal server error.")))

    def _too_late(self) -> None:
        self._timer = None
        _log.error("The authorizer has not answered within {seconds:g} s", seconds=self._timeout)
        self._end(Declined(self._asked.scope, ServiceUnavailable("The request could not be authorized in time.")))
        self._cancel()

    def _end(self, outcome: Outcome) -> None:
        self._close()
        self._outcome.callback(outcome)

    def _abandoned(self, _outcome: object) -> None:
        self._close()
        self._cancel()

    def _close(self) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel(self) -> None:
        try:
            self._answer.cancel()
        except Exception:
            _log_failure(Failure(), self._asked)


def _outcome_of(verdict: object, asked: AccessRequest) -> Outcome:
    if isinstance(verdict, Principal):
        return Asked(asked.operation, verdict.name)
    if isinstance(verdict, Refusal):
        return Declined(asked.scope, verdict)
    # The value itself may hold credentials.
    _log.error(
        "The authorizer has answered {type}, expected Principal or Refusal: the request is refused",
        type=type(verdict).__name__,
    )
    return Declined(asked.scope, InternalError("Internal server error."))


def _log_failure(failure: Failure, asked: AccessRequest) -> None:
    """Log the failure of an authorizer; without the client's credentials, which its message may hold."""
    text = failure.getTraceback()
    found = [secret for secret in _secrets_of(asked.authorization) if secret in text]
    if not found:
        _log.failure("The authorizer has failed", failure)
        return
    for secret in sorted(found, key=len, reverse=True):
        text = text.replace(secret, REDACTED.decode("ascii"))
    _log.error("The authorizer has failed: {text}", text=text)


def _secrets_of(authorization: Sequence[bytes]) -> Iterator[str]:
    """Yield the texts in ``Authorization`` headers that must not be logged: values, credentials, decoded passwords."""
    for value in authorization:
        credentials = value.partition(b" ")[2].strip(b" ")
        texts = [value, credentials]
        try:
            decoded = b64decode(credentials, validate=True)
        except (NotBase64, ValueError):
            pass
        else:
            texts += [decoded, decoded.partition(b":")[2]]
        for text in texts:
            if len(text) >= _SHORTEST_SECRET:
                for encoding in ("utf-8", "latin-1"):
                    yield text.decode(encoding, "replace")
