# SPDX-License-Identifier: Apache-2.0
"""
This module implements giving memory back to the system which large bodies have left free in the C library's heap.

glibc keeps what is free below something that is still used, some 80 MB after 64 clients have sent 1 MB each. Bodies in
pages of their own (``M_MMAP_THRESHOLD``) would go at once, at the cost of half of the requests per second.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime

# Seconds between two looks: one takes 0.1 ms, or 10 ms for each 100 MB that there are to give back.
INTERVAL = 60.0

Trim = Callable[[], object]


def heap_trimmer() -> Trim | None:
    """Find what gives back to the system all that is free; only glibc has it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else partial(trim, ctypes.c_size_t(0))


def trimming(clock: IReactorTime, trim: Trim) -> TimerService:
    """Make the service that does it again and again."""
    service = TimerService(INTERVAL, trim)
    service.clock = clock
    return service
