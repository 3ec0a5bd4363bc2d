# SPDX-License-Identifier: Apache-2.0
"""
This module implements the readings of processors, memory and disk that TorchServe's ``ts.metrics`` offers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil

from twisted_serve.handlers.collected_metrics import Metric
from twisted_serve.handlers.metrics import Dimension

__all__ = [
    "collect_all",
    "cpu_utilization",
    "disk_available",
    "disk_used",
    "disk_utilization",
    "get_cpu_usage",
    "memory_available",
    "memory_used",
    "memory_utilization",
    "system_metrics",
]

_MEGABYTE = 1024**2
_GIGABYTE = 1024**3
_HOST = [Dimension("Level", "Host")]

#: What was read so far.
system_metrics: list[Metric] = []


def _note(name: str, value: float, unit: str) -> None:
    system_metrics.append(Metric(name, value, unit, _HOST))


def cpu_utilization() -> None:
    """Read how busy the processors were since the last reading."""
    _note("CPUUtilization", psutil.cpu_percent(), "percent")


def memory_used() -> None:
    """Read how much memory is used."""
    _note("MemoryUsed", psutil.virtual_memory().used / _MEGABYTE, "MB")


def memory_available() -> None:
    """Read how much memory could be had."""
    _note("MemoryAvailable", psutil.virtual_memory().available / _MEGABYTE, "MB")


def memory_utilization() -> None:
    """Read the part of the memory that is used."""
    _note("MemoryUtilization", psutil.virtual_memory().percent, "percent")


def disk_used() -> None:
    """Read how much of the disk is used."""
    _note("DiskUsage", psutil.disk_usage("/").used / _GIGABYTE, "GB")


def disk_available() -> None:
    """Read how much of the disk is free."""
    _note("DiskAvailable", psutil.disk_usage("/").free / _GIGABYTE, "GB")


def disk_utilization() -> None:
    """Read the part of the disk that is used."""
    _note("DiskUtilization", psutil.disk_usage("/").percent, "percent")


_READINGS: tuple[Callable[[], None], ...] = (
    cpu_utilization,
    memory_used,
    memory_available,
    memory_utilization,
    disk_used,
    disk_available,
    disk_utilization,
)


def collect_all(mod: object = None, num_of_gpu: int = 0) -> list[Metric]:
    """
    Read all of them.

    :param mod: Of no meaning any more, as ``num_of_gpu``; the server reads GPUs itself.
    """
    for read in _READINGS:
        read()
    return system_metrics


def get_cpu_usage(pid: int | str) -> Any:
    """Read the memory of a process in bytes; its name is not what it does. 0 if there is no such process."""
    try:
        return psutil.Process(int(pid)).memory_info().rss
    except (psutil.Error, ValueError):
        return 0
