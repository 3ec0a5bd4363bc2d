# SPDX-License-Identifier: Apache-2.0
"""
Log a warning before a token expires and a line when it has expired; rotate it if configured.

Security does not depend on this service: an expired token is refused from the
instant of its expiry, whether the service has run in the meantime or not.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.auth.key_file import instant
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.tokens import Token, TokenKind
from twisted_serve.interfaces import Now
from twisted_serve.interfaces.events import KeyExpired, KeyExpiring, Notify, ignore

_log = Logger("twisted_serve.auth")

# Seconds between checks: the lines are at most this late, and a check costs two comparisons.
INTERVAL = 1.0

# Seconds until a failed rotation (because the disk is full, for example) is retried.
RETRY_DELAY = 30.0


def replaced_ahead(overlap: timedelta, lifetime: timedelta) -> timedelta:
    """
    Return how long before its expiry a token is replaced, so that the whole overlap comes before the expiry.

    The checks have an interval, which is added. A token is never replaced in the first half of its life, or servers
    with an overlap that is longer than the lifetime would replace tokens all the time.
    """
    return min(overlap + timedelta(seconds=INTERVAL), lifetime / 2) if overlap else timedelta(0)


class ExpiryChecker(Service):
    """
    Check the expiry of the live tokens once a second.

    :param warning: How long before the expiry of a token the warning is logged.
    :param rotate: Replaces the token of a kind (``token_auto_rotate``); ``None`` to leave
        expired tokens in place.
    :param notify: Told once of each token that expires soon or has expired.
    :param ahead: How long before its expiry a token is replaced, so that it is accepted together with its successor
        for that long.
    """

    def __init__(
        self,
        keyring: Keyring,
        clock: IReactorTime,
        now: Now,
        warning: timedelta,
        rotate: Callable[[TokenKind], Deferred[Token]] | None = None,
        notify: Notify = ignore,
        ahead: timedelta = timedelta(0),
    ) -> None:
        self._notify = notify
        self._ahead = ahead.total_seconds()
        self._keyring = keyring
        self._now = now
        self._warning = warning
        self._rotate = rotate
        self._warned: set[str] = set()
        self._expired: set[str] = set()
        self._clock = clock
        self._rotating: set[TokenKind] = set()
        self._retry_at: dict[TokenKind, float] = {}
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock

    def startService(self) -> None:
        """Start the periodic check."""
        super().startService()
        self._loop.start(INTERVAL).addErrback(self._ended)

    def stopService(self) -> None:
        """Stop the periodic check."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _check(self) -> None:
        now = self._now()
        keys = self._keyring.keys
        # Each line is logged once per key; the record of it is dropped with the key.
        live = {token.public_id for token in keys}
        self._warned &= live
        self._expired &= live
        for token in keys:
            if token.expires is None:
                continue
            left = self._keyring.seconds_left(token.kind, now)
            if left <= 0:
                self._handle_expired(token, token.expires)
            elif left <= self._warning.total_seconds() and token.public_id not in self._warned:
                self._warned.add(token.public_id)
                _log.warn(
                    "The {kind} token (key {key_id}) expires in {seconds:.0f} s, at {expires}",
                    kind=token.kind.value,
                    key_id=token.public_id,
                    seconds=left,
                    expires=instant(token.expires),
                )
                self._notify(KeyExpiring(token.kind, token.public_id, token.expires, left))
            if left <= self._ahead:
                self._replace(token.kind)

    def _handle_expired(self, token: Token, expires: datetime) -> None:
        kind = token.kind
        if token.public_id not in self._expired:
            self._expired.add(token.public_id)
            _log.warn("The {kind} token (key {key_id}) has expired", kind=kind.value, key_id=token.public_id)
            self._notify(KeyExpired(kind, token.public_id, expires))

    def _replace(self, kind: TokenKind) -> None:
        """Replace a token, unless that is done already or has just failed."""
        if self._rotate is None or kind in self._rotating or self._clock.seconds() < self._retry_at.get(kind, 0.0):
            return
        self._rotating.add(kind)
        maybeDeferred(self._rotate, kind).addCallbacks(
            self._rotated, self._rotation_failed, callbackArgs=(kind,), errbackArgs=(kind,)
        )

    def _rotated(self, _token: Token, kind: TokenKind) -> None:
        self._rotating.discard(kind)
        self._retry_at.pop(kind, None)

    def _rotation_failed(self, failure: Failure, kind: TokenKind) -> None:
        self._rotating.discard(kind)
        self._retry_at[kind] = self._clock.seconds() + RETRY_DELAY
        # The rotation itself logs that the file could not be written.
        if failure.check(OSError) is None:
            _log.failure("The {kind} token could not be replaced", failure, kind=kind.value)

    def _ended(self, failure: Failure) -> None:
        _log.failure("The expiry checker has stopped", failure)
