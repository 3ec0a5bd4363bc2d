# SPDX-License-Identifier: Apache-2.0
"""
Measure time with a clock that is never set.

The wall clock may go back: NTP corrects it, operators set it, virtual machines resume with another time.  Timeouts are
measured with the time since the machine was started, which includes the time for which the machine was suspended.
"""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime

# On Linux the monotonic clock stops during suspension, and this one continues; on macOS it is the other way round.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Return the seconds since the machine was started, suspension included."""
    return time.clock_gettime(_CLOCK)


def use_steady_clock(reactor: IReactorTime) -> bool:
    """
    Make our reactor measure its delays with `steady_seconds`.

    Twisted's reactors use the wall clock: when it is set back by an hour, every timeout takes an hour longer.

    :return: Whether the reactor uses it now; not if the reactor is not Twisted's, or has scheduled calls already.
    """
    if not isinstance(reactor, ReactorBase) or type(reactor).seconds is not ReactorBase.seconds:
        return False
    if reactor.getDelayedCalls():
        return False
    reactor.seconds = steady_seconds
    return True
