# SPDX-License-Identifier: Apache-2.0
"""
Decide when a client sends too many cheap frames that make the server work.
"""

from __future__ import annotations


class Bucket:
    """
    A token bucket.

    :param size: Tokens at once.
    :param rate: Tokens that come back in each second.
    """

    __slots__ = ("_at", "_left", "_rate", "_size")

    def __init__(self, size: int, rate: float, now: float) -> None:
        self._size = self._left = float(size)
        self._rate = rate
        self._at = now

    def take(self, now: float, tokens: int = 1) -> bool:
        """Take tokens; return whether there were so many."""
        self._left = min(self._size, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < tokens:
            return False
        self._left -= tokens
        return True


class PingGuard:
    """
    The rule of gRPC's servers for pings of clients (keepalive).

    A ping that follows an earlier one too soon is a strike, and the third strike is too many.  Pings between which the
    server has sent headers or data are not counted, because clients measure their bandwidth with such.

    :param interval: Seconds between pings during calls.
    :param idle_interval: Seconds between pings without calls.
    """

    __slots__ = ("_idle_interval", "_interval", "_last", "_strikes")

    def __init__(self, interval: float, idle_interval: float) -> None:
        self._interval, self._idle_interval = interval, idle_interval
        self._last: float | None = None
        self._strikes = 0

    def sent(self) -> None:
        """Note that headers or data were sent."""
        self._last = None
        self._strikes = 0

    def allows(self, now: float, calls: bool) -> bool:
        """Return whether the client may ping now."""
        last, self._last = self._last, now
        if last is not None and now - last < (self._interval if calls else self._idle_interval):
            self._strikes += 1
        return self._strikes <= 2
