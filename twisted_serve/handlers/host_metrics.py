# SPDX-License-Identifier: Apache-2.0
"""
Read processor, memory and disk usage of the host, as TorchServe's ``ts.metrics`` does.
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

#: The metrics read so far.
system_metrics: list[Metric] = []


def _record(name: str, value: float, unit: str) -> None:
    system_metrics.append(Metric(name, value, unit, _HOST))


def cpu_utilization() -> None:
    """Read the processor utilization since the previous reading, in percent."""
    _record("CPUUtilization", psutil.cpu_percent(), "percent")


def memory_used() -> None:
    """Read the memory in use, in units of 1024² bytes."""
    _record("MemoryUsed", psutil.virtual_memory().used / _MEGABYTE, "MB")


def memory_available() -> None:
    """Read the available memory, in units of 1024² bytes."""
    _record("MemoryAvailable", psutil.virtual_memory().available / _MEGABYTE, "MB")


def memory_utilization() -> None:
    """Read the memory in use, in percent."""
    _record("MemoryUtilization", psutil.virtual_memory().percent, "percent")


def disk_used() -> None:
    """Read the disk space in use on ``/``, in units of 1024³ bytes."""
    _record("DiskUsage", psutil.disk_usage("/").used / _GIGABYTE, "GB")


def disk_available() -> None:
    """Read the free disk space on ``/``, in units of 1024³ bytes."""
    _record("DiskAvailable", psutil.disk_usage("/").free / _GIGABYTE, "GB")


def disk_utilization() -> None:
    """Read the disk space in use on ``/``, in percent."""
    _record("DiskUtilization", psutil.disk_usage("/").percent, "percent")


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
    Take all readings and return all metrics read so far.

    :param mod: Ignored; accepted for TorchServe's signature.
    :param num_of_gpu: Ignored; the server reads GPUs itself.
    """
    for read in _READINGS:
        read()
    return system_metrics


def get_cpu_usage(pid: int | str) -> Any:
    """Return the resident memory of a process in bytes (the name is TorchServe's); 0 if there is no such process."""
    try:
        return psutil.Process(int(pid)).memory_info().rss
    except (psutil.Error, ValueError):
        return 0
