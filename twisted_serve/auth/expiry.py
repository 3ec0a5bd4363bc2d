# SPDX-License-Identifier: Apache-2.0
"""
This module implements the service which watches tokens grow old: it warns, it says so, and it can replace them.

Nothing depends on it for safety: an expired token is refused at the instant of
its expiry, whether this service has noticed or not.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.auth.key_file import instant
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.tokens import Token, TokenKind
from twisted_serve.interfaces import Now

# Often enough that the lines come when they should, and cheap: two comparisons.
INTERVAL = 1.0

# When replacing a token has failed (a full disk, say), the next attempt is that much later.
TRY_AGAIN = timedelta(seconds=30)


def seconds_left(token: Token, now: datetime) -> float:
    """Return the seconds until a token expires: 0 when it has, infinity when it never will."""
    if token.expires is None:
        return float("inf")
    return max(0.0, (token.expires - now).total_seconds())


class ExpiryChecker(Service):
    """
    A look at the clock, once a second.

    :param warning: How long before its expiry a token is warned about.
    :param rotate: Replaces the token of a kind, or ``None`` to leave expired ones
        as they are (``token_auto_rotate``).
    """

    _log = Logger()

    def __init__(
        self,
        keyring: Keyring,
        clock: IReactorTime,
        now: Now,
        warning: timedelta,
        rotate: Callable[[TokenKind], Token] | None = None,
    ) -> None:
        self._keyring = keyring
        self._now = now
        self._warning = warning
        self._rotate = rotate
        self._warned: set[str] = set()
        self._expired: set[str] = set()
        self._try_at: dict[TokenKind, datetime] = {}
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._loop.start(INTERVAL).addErrback(self._ended)

    def stopService(self) -> None:
        """Stop looking."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        now = self._now()
        keys = self._keyring.keys
        # What is said of a key is said once, and forgotten with the key.
        live = {token.public_id for token in keys}
        self._warned &= live
        self._expired &= live
        for token in keys:
            if token.expires is None:
                continue
            if token.expired(now):
                self._deal_with_expired(token, now)
            elif now >= token.expires - self._warning and token.public_id not in self._warned:
                self._warned.add(token.public_id)
                self._log.warn(
                    "The {kind} token (key {key_id}) expires in {seconds:.0f} s, at {expires}",
                    kind=token.kind.value,
                    key_id=token.public_id,
                    seconds=seconds_left(token, now),
                    expires=instant(token.expires),
                )

    def _deal_with_expired(self, token: Token, now: datetime) -> None:
        if token.public_id not in self._expired:
            self._expired.add(token.public_id)
            self._log.warn("The {kind} token (key {key_id}) has expired", kind=token.kind.value, key_id=token.public_id)
        if self._rotate is not None and now >= self._try_at.get(token.kind, now):
            self._try_at[token.kind] = now + TRY_AGAIN
            try:
                self._rotate(token.kind)
            except OSError:
                # Whoever rotates has recorded it.
                return
            except Exception:
                self._log.failure("The {kind} token could not be replaced", kind=token.kind.value)
            else:
                del self._try_at[token.kind]

    def _ended(self, failure: Failure) -> None:
        self._log.failure("The expiry checker has stopped", failure)
