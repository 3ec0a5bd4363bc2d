# SPDX-License-Identifier: Apache-2.0
"""
Limit how many requests of a key there are: in a minute, and at the same time.

The limit by the minute is a bucket that holds as many requests as the key may send in a minute, so that

* a client that sends no more than that in any minute is never refused;
* in ``t`` minutes there are never more than ``rate * t + rate``, however they are spread.

Nothing waits: a request enters, or it is refused with the seconds after which it may try again.  A refused request
counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from attrs import frozen

__all__ = ["Lease", "Limit", "Limited", "Usage"]

_SECOND: Final = 1_000_000_000

# What is spent is counted in these: a request is so many, and in a nanosecond as many are forgotten as requests may
# come in a minute. Integers, so that nothing is lost or won by rounding.
_REQUEST: Final = 60 * _SECOND


class Limit(Enum):
    """A limit on the requests of a key; the values are the names of the key's members."""

    RATE = "rate"
    CONCURRENT = "concurrent"


@frozen
class Limited:
    """
    A request is refused because its key has reached a limit.

    :ivar allowed: How many the limit allows, in a minute or at the same time.
    :ivar retry_after: Whole seconds, at least one: after them the rate allows a request. When a request will end is
        not known, so it is always one second for `Limit.CONCURRENT`.
    """

    limit: Limit
    allowed: int
    retry_after: int


class Lease:
    """The place of one request among those of its key; to be given back when the request ends."""

    __slots__ = ("_usage",)

    def __init__(self, usage: Usage) -> None:
        self._usage: Usage | None = usage

    def leave(self) -> None:
        """Give the place back; idempotent."""
        usage, self._usage = self._usage, None
        if usage is not None:
            usage._in_flight -= 1


class Usage:
    """
    The requests of one key, under limits that may change meanwhile.

    :param seconds: The clock's time, as ``IReactorTime.seconds``. While it does not move or goes back nothing is
        forgotten; after a step back it counts from there.
    :param rate: Requests that may be sent in a minute; ``None`` for any number.
    :param concurrent: Requests that may be answered at the same time; ``None`` for any number.
    """

    __slots__ = ("_concurrent", "_in_flight", "_rate", "_seconds", "_seen", "_spent")

    def __init__(self, seconds: Callable[[], float], rate: int | None = None, concurrent: int | None = None) -> None:
        self._seconds = seconds
        self._rate = rate
        self._concurrent = concurrent
        self._in_flight = 0
        # As nothing is spent, there is no time to remember.
        self._spent = self._seen = 0

    @property
    def in_flight(self) -> int:
        """The number of requests that have entered and not left."""
        return self._in_flight

    def enter(self) -> Lease | Limited:
        """Count a request, or refuse it."""
        if self._concurrent is not None and self._in_flight >= self._concurrent:
            return Limited(Limit.CONCURRENT, self._concurrent, 1)
        limited = self.count()
        if limited is not None:
            return limited
        self._in_flight += 1
        return Lease(self)

    def count(self) -> Limited | None:
        """Count a request for the rate alone, such as a message of a stream that has entered; or refuse it."""
        if self._rate is not None:
            self._forget(self._rate)
            missing = self._spent + _REQUEST - self._rate * _REQUEST
            if missing > 0:
                return Limited(Limit.RATE, self._rate, -(-missing // (self._rate * _SECOND)))
            self._spent += _REQUEST
        return None

    def change(self, rate: int | None, concurrent: int | None) -> None:
        """
        Change the limits; what is in flight or spent stays counted.

        With a lower rate no more counts as spent than this rate allows, so that no wait is longer than a minute.
        """
        if self._rate is not None:
            self._forget(self._rate)
        if rate is not None:
            self._spent = min(self._spent, rate * _REQUEST)
        self._rate = rate
        self._concurrent = concurrent

    def _forget(self, rate: int) -> None:
        """Forget what the time since the last call pays for."""
        now = self._now()
        self._spent = max(0, self._spent - rate * max(0, now - self._seen))
        self._seen = now

    def _now(self) -> int:
        return int(self._seconds() * _SECOND)
