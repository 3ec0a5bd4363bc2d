# SPDX-License-Identifier: Apache-2.0
"""
Measure the memory of worker processes, counting a proportional share of shared pages (PSS).

The kernel sums PSS page by page, which takes milliseconds for a large model; so readings are taken in a thread and
cached for `FRESH` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import psutil

from twisted_serve.eventloop.threads import DeferToThread

# How long a reading is cached, in seconds.
FRESH = 2.0


def measured(pids: Iterable[int]) -> dict[int, int]:
    """Return the memory of processes in bytes, 0 for a process that does not exist."""
    return {pid: _bytes_of(pid) for pid in pids}


def _bytes_of(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        # PSS is not available on every system.
        whole = process.memory_full_info()
        return int(getattr(whole, "pss", 0) or whole.rss)
    except (psutil.Error, OSError, ValueError):
        # The process may exit while it is read.
        return 0


class Memory:
    """
    A cache of the memory of worker processes.

    :param seconds: Return the time in seconds.
    """

    def __init__(self, defer_to_thread: DeferToThread, seconds: Callable[[], float]) -> None:
        self._defer_to_thread = defer_to_thread
        self._seconds = seconds
        self._readings: dict[int, tuple[float, int]] = {}

    async def of(self, pids: Iterable[int]) -> Mapping[int, int]:
        """Return the memory of processes in bytes, 0 for a process that does not exist."""
        wanted = set(pids)
        oldest = self._seconds() - FRESH
        self._readings = {pid: reading for pid, reading in self._readings.items() if reading[0] > oldest}
        unknown = wanted - set(self._readings)
        if unknown:
            read = await self._defer_to_thread(measured, sorted(unknown))
            self._readings.update({pid: (self._seconds(), size) for pid, size in read.items()})
        return {pid: self._readings[pid][1] for pid in wanted if pid in self._readings}
