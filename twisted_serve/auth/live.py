# SPDX-License-Identifier: Apache-2.0
"""
Decide when a live token ends, by the date and by a clock that is never set.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from attrs import evolve

from twisted_serve.auth.tokens import Token


class LiveToken:
    """
    A live token with its end: at its expiry date or after its lifetime, whichever comes first.

    The date alone is not enough, since the wall clock can be set back; the lifetime alone is
    not enough, since clients are given the date.

    :ivar deadline: In seconds of the steady clock; ``None`` for a token that never expires.
    :ivar ended: Whether the token was seen to have ended, which is final.
    """

    __slots__ = ("deadline", "ended", "token")

    def __init__(self, token: Token, deadline: float | None) -> None:
        self.token = token
        self.deadline = None if token.expires is None else deadline
        self.ended = False

    def seconds_left(self, now: datetime, seconds: float) -> float:
        """Return the seconds until the token ends, or 0 once it has ended, even if the clock is set back later."""
        expires, deadline = self.token.expires, self.deadline
        if expires is None or deadline is None:
            return float("inf")
        left = 0.0 if self.ended else min((expires - now).total_seconds(), deadline - seconds)
        if left <= 0:
            self.ended = True
            return 0.0
        return left

    def expired(self, now: datetime, seconds: Callable[[], float]) -> bool:
        """Return whether the token has ended now or had ended at any earlier check."""
        if self.deadline is None:
            return False
        if not self.ended:
            self.ended = self.token.expired(now) or seconds() >= self.deadline
        return self.ended

    def until(self, date: datetime, deadline: float) -> LiveToken:
        """Return the token with an end at a date and at a deadline, or at its own ones where those come first."""
        expires = self.token.expires
        sooner = LiveToken(
            evolve(self.token, expires=date if expires is None else min(date, expires)),
            deadline if self.deadline is None else min(deadline, self.deadline),
        )
        sooner.ended = self.ended
        return sooner
