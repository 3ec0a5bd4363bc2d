# SPDX-License-Identifier: Apache-2.0
"""
Watch the processes of a server that was started in a session of its own: time, memory, exit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


def ticks_in(stat: str) -> int:
    """Read the clock ticks that a process has used itself from the text of its ``/proc/PID/stat``."""
    # The name, in parentheses, may hold anything.
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def pss_in(rollup: str) -> int:
    """Read the proportional set size, in bytes, from the text of ``/proc/PID/smaps_rollup``."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def exit_on_signals() -> None:
    """Exit on SIGTERM and SIGHUP as on an exception, so that a benchmark ends its servers first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


class Group:
    """
    The processes of one server.

    :ivar leader: The one that was started.
    """

    def __init__(self, leader: subprocess.Popen[bytes]) -> None:
        self.leader = leader
        self._known = {leader.pid}

    def pids(self) -> list[int]:
        """List those that live: of the leader's session, and their descendants which have left it."""
        parents = {}
        for entry in _PROC.iterdir():
            if entry.name.isdigit():
                pid = int(entry.name)
                with suppress(OSError, ValueError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if fields[0] != "Z":
                        parents[pid] = int(fields[1])
                        if int(fields[3]) == self.leader.pid:
                            self._known.add(pid)
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in self._known} - self._known
            self._known |= more
            grown = bool(more)
        return sorted(self._known & parents.keys())

    def cpu_seconds(self) -> float:
        """Sum the time that the living processes have used."""
        return sum(self._each("stat", ticks_in)) / _TICKS

    def cpu_seconds_of(self, wanted: Callable[[str], bool]) -> float:
        """Sum the time that the living processes have used whose command lines are wanted."""
        return sum(self._each("stat", ticks_in, wanted)) / _TICKS

    def pss(self) -> int:
        """Sum the proportional set sizes, in bytes."""
        return sum(self._each("smaps_rollup", pss_in))

    def pss_of_front(self, is_worker: Callable[[str], bool]) -> int:
        """Sum the proportional set sizes of all processes which are no workers, in bytes."""
        return sum(self._each("smaps_rollup", pss_in, lambda command: not is_worker(command)))

    def _each(self, file: str, read: Callable[[str], int], wanted: Callable[[str], bool] | None = None) -> list[int]:
        found = []
        for pid in self.pids():
            with suppress(OSError):
                command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if wanted is None or wanted(command):
                    found.append(read((_PROC / str(pid) / file).read_text()))
        return found

    def end(self, grace: float = 30.0) -> None:
        """End all of them: first by asking the leader, then each by force."""
        self.pids()
        if self.leader.poll() is None:
            self.leader.send_signal(signal.SIGTERM)
        self._wait_for_all(grace)
        for pid in self.pids():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.leader.wait(10)
        # Who is killed is not gone at once.
        self._wait_for_all(10)

    def _wait_for_all(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.pids() and time.monotonic() < until:
            self.leader.poll()
            time.sleep(0.1)
