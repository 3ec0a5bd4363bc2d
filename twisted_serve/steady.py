# SPDX-License-Identifier: Apache-2.0
"""
Measure time with a clock that is never set.

The date may go back: NTP corrects it, operators set it, virtual machines wake up with another.  What must happen after
so many seconds is measured by the time since the machine was started, which also counts while it is suspended.
"""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime

# Linux stops the monotonic clock during suspension, and counts on in this one; macOS has it the other way round.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Return the seconds since the machine was started."""
    return time.clock_gettime(_CLOCK)


def use_steady_clock(reactor: IReactorTime) -> bool:
    """
    Let a reactor of our own measure its delays with `steady_seconds`.

    Twisted's reactors measure them with the date: when it is set back by an hour, every time limit lasts an hour more.

    :return: Whether the reactor does so now; not if it is no reactor of Twisted's, or calls are scheduled already.
    """
    if not isinstance(reactor, ReactorBase) or type(reactor).seconds is not ReactorBase.seconds:
        return False
    if reactor.getDelayedCalls():
        return False
    reactor.seconds = steady_seconds
    return True
