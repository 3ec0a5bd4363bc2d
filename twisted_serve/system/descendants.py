# SPDX-License-Identifier: Apache-2.0
"""
Find and kill the processes that a worker has started.

Linux records only the parent, the group and the session of a process.  A process is found through its ancestors while
they live, and through the group it was started in; a process that has left both is not found.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

# Repeated, because processes may start others while they are being killed.
_ROUNDS = 3

# Up to this many processes, the parent of each is read, at about 25 microseconds each, which may block a reactor.
_MAX_READ = 1000


def descendants(root: int, proc: Path = Path("/proc")) -> list[int]:
    """Return the pids of all descendants of ``root``; none where there is no ``/proc``."""
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(proc) if name.isdecimal()]
    children: Callable[[int], list[int]]
    # Reading the parent of every process is reliable; if there are many, the kernel's lists of children are read.
    if len(names) > _MAX_READ and (proc / f"{root}/task/{root}/children").exists():
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
    """Kill all descendants of ``root``."""
    for _ in range(_ROUNDS):
        found = descendants(root)
        if not found:
            break
        kill(found)


def kill(processes: Iterable[int]) -> None:
    """Kill processes; ignore those that have exited or belong to another user."""
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Kill the remaining processes of a group; its number is not reused while a member is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _parent(proc: Path, process: str) -> int:
    """Return the parent of a process; 0, which is no pid, if the process has exited."""
    try:
        with open(proc / process / "stat", "rb") as stat:
            # The name, in parentheses, may contain any characters.
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _children_of(proc: Path, process: int) -> list[int]:
    """Return the children of all threads of a process, from the kernel's lists of children."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(proc / str(process) / "task"):
            with suppress(OSError):
                found += map(int, (proc / str(process) / "task" / thread / "children").read_bytes().split())
    return found
