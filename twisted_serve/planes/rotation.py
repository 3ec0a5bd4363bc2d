# SPDX-License-Identifier: Apache-2.0
"""
Replace tokens on request.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_serve.auth.audit import AuditLog
from twisted_serve.auth.keyring import Keyring, Replacement
from twisted_serve.auth.tokens import Token, TokenKind
from twisted_serve.errors import BadRequest, Conflict, InternalError
from twisted_serve.interfaces import Now

_REPLACEABLE = {kind.value: kind for kind in (TokenKind.MANAGEMENT, TokenKind.INFERENCE)}


class Rotation:
    """Token rotation on a keyring, recorded in the audit log."""

    def __init__(self, keyring: Keyring, now: Now, audit_log: AuditLog) -> None:
        self._keyring = keyring
        self._now = now
        self._audit_log = audit_log

    def replace(self, kind: TokenKind, by: str) -> Deferred[Token]:
        """
        Replace the token of a kind; the Deferred fires with the new one.

        Cancelling the Deferred only ends the wait: a rotation in progress completes, so that the key file and the
        live keys agree. The Deferred fails with `OSError` if the key file cannot be written; the old token stays
        valid.
        """

        def replaced(tokens: Replacement) -> Token:
            self._audit_log.rotated(tokens.old, tokens.new, by, tokens.until)
            return tokens.new

        def failed(failure: Failure) -> Failure:
            if isinstance(failure.value, OSError):
                self._audit_log.rotation_failed(kind, failure.value)
            return failure

        done = self._keyring.rotate(kind, self._now()).addCallbacks(replaced, failed)
        wait: Deferred[Token] = Deferred()
        done.addCallbacks(wait.callback, wait.errback)
        return wait

    async def replace_named(self, name: str | None, by: str) -> Token:
        """
        Replace the token of the kind that a client names.

        :raise BadRequest: if the kind is unknown or cannot be replaced.
        :raise Conflict: if the token is given by the operator, and so is replaced elsewhere.
        :raise InternalError: if the key file cannot be written; the old token stays valid.
        """
        if name is None:
            raise BadRequest("Parameter type is required: management or inference.")
        kind = _REPLACEABLE.get(name)
        if kind is None:
            raise BadRequest(f"Parameter type must be management or inference, not {name!r}.")
        given = self._keyring.keys.of(kind).given
        if given is not None:
            raise Conflict(f"The {name} key is given by {given}: replace it there.")
        try:
            return await self.replace(kind, by)
        except OSError as e:
            raise InternalError(
                f"The {name} key stays as it was: {e.strerror or 'the key file cannot be written'}."
            ) from e

    def exchange(self, tokens: Sequence[Token]) -> Deferred[None]:
        """Use tokens that the operator gives in place of others; the Deferred fails as `Keyring.exchange` does."""

        def record(replacements: list[Replacement]) -> None:
            for each in replacements:
                self._audit_log.rotated(each.old, each.new, each.new.given or "", each.until)

        return self._keyring.exchange(tokens, self._now()).addCallback(record)

    async def save_again(self) -> None:
        """Write the live keys to the key file again, which may have been deleted; log a failure."""
        try:
            await self._keyring.save_again()
        except OSError as e:
            self._audit_log.not_saved_again(e)
