# SPDX-License-Identifier: Apache-2.0
"""
Find and kill the processes that a worker has started.

Linux knows of a process only whose child it is, and to which group and session it belongs.  A process is found by its
parents while these live, and by the group that it was born in; one that has left both is found by neither.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

# Processes may start others while they are killed.
_ROUNDS = 3


def descendants(root: int) -> list[int]:
    """Return the processes that ``root`` has started, directly or not; none where there is no ``/proc``."""
    children = defaultdict(list)
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal():
                children[_parent(name)].append(int(name))
    found: list[int] = []
    ahead = [root]
    while ahead:
        ahead += children[ahead[0]]
        found += children[ahead.pop(0)]
    return found


def kill_descendants(root: int) -> None:
    """Kill what ``root`` has started, directly or not."""
    for _ in range(_ROUNDS):
        found = descendants(root)
        if not found:
            break
        kill(found)


def kill(processes: Iterable[int]) -> None:
    """Kill processes; those that are gone, or another user's, are left alone."""
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Kill what is left of a process group; the number is free for others only when nothing is left of it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _parent(process: str) -> int:
    """Return the parent of a process; 0 if the process has gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            # The name, in parentheses, may have any characters.
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
