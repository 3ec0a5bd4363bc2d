# SPDX-License-Identifier: Apache-2.0
"""
Read the machine's CPU, memory and disk usage, and that of GPUs if NVIDIA's library can be imported.

Unlike TorchServe's collector, this starts no process; but it may block.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import psutil

_MIB = 1 << 20
_GIB = 1 << 30


class Figure(NamedTuple):
    """
    One measured value.

    :ivar labels: The labels of its metric, without the host's.
    """

    name: str
    labels: tuple[str, ...]
    value: float


def read_machine(disk: str = "/") -> list[Figure]:
    """Read the use of CPUs (since the last call), of memory, and of a disk."""
    memory, usage = psutil.virtual_memory(), psutil.disk_usage(disk)
    figures = {
        "CPUUtilization": psutil.cpu_percent(),
        "MemoryUsed": memory.used / _MIB,
        "MemoryAvailable": memory.available / _MIB,
        "MemoryUtilization": memory.percent,
        "DiskUsage": usage.used / _GIB,
        "DiskAvailable": usage.free / _GIB,
        "DiskUtilization": usage.percent,
    }
    return [Figure(name, ("Host",), round(float(value), 2)) for name, value in figures.items()]


def nvml() -> ModuleType | None:
    """Return NVIDIA's library if it is installed and works on this machine."""
    try:
        module = import_module("pynvml")
        module.nvmlInit()
    except Exception:  # the library's own errors are known by it alone; without it there is nothing to read
        return None
    return module


def read_gpus(library: ModuleType) -> Iterator[Figure]:
    """
    Read every GPU.

    :raise Exception: the library's own, for example for a device that has disappeared.
    """
    for number in range(library.nvmlDeviceGetCount()):
        device = library.nvmlDeviceGetHandleByIndex(number)
        memory, rates = library.nvmlDeviceGetMemoryInfo(device), library.nvmlDeviceGetUtilizationRates(device)
        labels = ("Host", str(number))
        yield Figure("GPUMemoryUtilization", labels, round(100 * memory.used / memory.total, 2))
        yield Figure("GPUMemoryUsed", labels, round(memory.used / _MIB, 2))
        yield Figure("GPUUtilization", labels, float(rates.gpu))
