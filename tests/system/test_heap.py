# SPDX-License-Identifier: Apache-2.0
"""Tests for giving memory back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest
from twisted.internet.task import Clock

from twisted_serve.system.heap import INTERVAL, heap_trimmer, trimming

# Bodies of 100 kB; one that stays is above all others.
PROGRAM = """
from twisted_serve.system.heap import heap_trimmer

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

trim = heap_trimmer()
before = resident()
bodies = [bytearray(100_000) for _ in range(400)]
del bodies[:-1]
print(resident() - before)
trim()
print(resident() - before)
"""


def test_again_and_again() -> None:
    """Memory is given back at the start and then once in a while, as long as the service runs."""
    clock = Clock()
    calls: list[float] = []
    service = trimming(clock, lambda: calls.append(clock.seconds()))
    service.startService()
    clock.pump([INTERVAL / 2] * 4)
    assert calls == [0.0, INTERVAL, 2 * INTERVAL]
    service.stopService()
    assert clock.getDelayedCalls() == []


@pytest.mark.integration
@pytest.mark.skipif(heap_trimmer() is None, reason="the C library has nothing of the kind")
def test_given_back() -> None:
    """What is free below something that is used stays with the process until it is given back."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    kept, left = map(int, run.stdout.split())
    assert kept > 30_000_000
    assert left < 5_000_000
