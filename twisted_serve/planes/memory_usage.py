# SPDX-License-Identifier: Apache-2.0
"""
This module implements how much memory workers have, each counting only its part of what several share (PSS).

The kernel adds that up page by page, which takes milliseconds for a large model: it is asked in a thread, and what it
said is good for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import psutil

from twisted_serve.eventloop.threads import DeferToThread

# Seconds that a reading is good for.
FRESH = 2.0


def measured(pids: Iterable[int]) -> dict[int, int]:
    """Read the bytes of processes; those that are not there have none."""
    return {pid: _bytes_of(pid) for pid in pids}


def _bytes_of(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        # Not every system can say it.
        whole = process.memory_full_info()
        return int(getattr(whole, "pss", 0) or whole.rss)
    except (psutil.Error, OSError, ValueError):
        # It may go while it is looked at.
        return 0


class Memory:
    """
    Knows it of the workers that it was asked for lately.

    :param seconds: The time.
    """

    def __init__(self, defer_to_thread: DeferToThread, seconds: Callable[[], float]) -> None:
        self._defer_to_thread = defer_to_thread
        self._seconds = seconds
        self._readings: dict[int, tuple[float, int]] = {}

    async def of(self, pids: Iterable[int]) -> Mapping[int, int]:
        """Return the bytes of each of these processes, 0 for one that is not there."""
        wanted = set(pids)
        oldest = self._seconds() - FRESH
        self._readings = {pid: reading for pid, reading in self._readings.items() if reading[0] > oldest}
        unknown = wanted - set(self._readings)
        if unknown:
            read = await self._defer_to_thread(measured, sorted(unknown))
            self._readings.update({pid: (self._seconds(), size) for pid, size in read.items()})
        return {pid: self._readings[pid][1] for pid in wanted if pid in self._readings}
