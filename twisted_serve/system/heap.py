# SPDX-License-Identifier: Apache-2.0
"""
Return free heap memory to the system, which large bodies leave in the C library's heap.

glibc keeps free memory below a block that is still in use, some 80 MB after 64 clients have sent 1 MB each. Bodies in
separate pages (``M_MMAP_THRESHOLD``) would be returned immediately, at the cost of half of the requests per second.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime

# Seconds between two calls: one takes 0.1 ms, or 10 ms for each 100 MB that is returned.
INTERVAL = 60.0

Trim = Callable[[], object]


def heap_trimmer() -> Trim | None:
    """Return a function that returns all free heap memory to the system (``malloc_trim``); only glibc has it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else partial(trim, ctypes.c_size_t(0))


def trimming(clock: IReactorTime, trim: Trim) -> TimerService:
    """Return a service that calls ``trim`` periodically."""
    service = TimerService(INTERVAL, trim)
    service.clock = clock
    return service
