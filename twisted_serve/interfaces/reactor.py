# SPDX-License-Identifier: Apache-2.0
"""
Define the reactor interfaces that a server needs, and the source of dates.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorProcess,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
)

#: Returns the current date and time, always timezone-aware and in UTC.
Now: TypeAlias = Callable[[], datetime]


class IServeReactor(
    IReactorCore,
    IReactorTime,
    IReactorTCP,
    IReactorUNIX,
    IReactorProcess,
    IReactorSocket,
    IReactorThreads,
    IReactorFDSet,
):
    """The reactor interfaces that a server needs."""
