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
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

# Processes may start others while they are killed.
_ROUNDS = 3

# So many processes are asked for their parents, some 25 microseconds each: a reactor may have to wait for that.
_MOST_ASKED = 1000


def descendants(root: int, proc: Path = Path("/proc")) -> list[int]:
    """Return the processes that ``root`` has started, directly or not; none where there is no ``/proc``."""
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(proc) if name.isdecimal()]
    children: Callable[[int], list[int]]
    # Asking each process is certain; where there are many, the kernel is asked for the children of each.
    if len(names) > _MOST_ASKED and (proc / f"{root}/task/{root}/children").exists():
        children = partial(_children_of, proc)
    else:
        by_parent = defaultdict(list)
        for name in names:
            by_parent[_parent(proc, name)].append(int(name))
        children = by_parent.__getitem__
    found: list[int] = []
    ahead = [root]
    while ahead:
        more = children(ahead.pop())
        ahead += more
        found += more
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


def _parent(proc: Path, process: str) -> int:
    """Return the parent of a process; 0, the number of no process, if it has gone."""
    try:
        with open(proc / process / "stat", "rb") as stat:
            # The name, in parentheses, may have any characters.
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _children_of(proc: Path, process: int) -> list[int]:
    """Return what each thread of a process has started, of a kernel that keeps lists of that."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(proc / str(process) / "task"):
            with suppress(OSError):
                found += map(int, (proc / str(process) / "task" / thread / "children").read_bytes().split())
    return found
