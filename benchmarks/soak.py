# SPDX-License-Identifier: Apache-2.0
"""
Load a server for minutes, kill its workers at random, and show what grows.

What a worker had when it was killed is given to another; so of all requests hardly
one fails, and after it all the server has what it had in the beginning.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from benchmarks.cases import case_named
from benchmarks.processes import exit_on_signals
from benchmarks.servers import OURS, Peer, Running, is_worker, start

WORKERS = 4
CONNECTIONS = 32
# Seconds of load between two looks, and between two killed workers on average.
SLICE = 10.0
BETWEEN_DEATHS = 2.0
# Seconds after which all workers are back, whatever their back-off.
RECOVERY = 60.0

# What the server's own process may have more of at the end than after the first slice.
MORE_MEMORY = 16 << 20
# More errors than these, in a thousand requests, are not the deaths of two workers in a row.
ERRORS = 1


@frozen
class Look:
    """
    What a server has while nothing is asked of it.

    :ivar descriptors: Those of the server's own process.
    :ivar processes: All, workers and templates included.
    :ivar memory: The proportional set size of the server's own process, in bytes.
    """

    descriptors: int
    processes: int
    memory: int

    @classmethod
    def at(cls, running: Running) -> Look:
        """Look now."""
        leader = running.group.leader.pid
        descriptors = len(os.listdir(f"/proc/{leader}/fd"))
        return cls(descriptors, len(running.group.pids()), running.group.pss_of_front(is_worker))

    def exceeds(self, first: Look) -> list[str]:
        """Say what has grown since the first look, and should not have."""
        grown = []
        if self.descriptors > first.descriptors:
            grown.append(f"{self.descriptors - first.descriptors} more descriptors")
        if self.processes > first.processes:
            grown.append(f"{self.processes - first.processes} more processes")
        if self.memory > first.memory + MORE_MEMORY:
            grown.append(f"{(self.memory - first.memory) >> 20} MB more memory")
        return grown


def workers_of(running: Running) -> list[int]:
    """Ask the server for the processes of the workers that are ready."""
    headers = {"Authorization": f"Bearer {running.keys['management']}"}
    request = urllib.request.Request(f"{running.management}/models/{running.case.name}", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        [described] = json.load(answer)
    return [worker["pid"] for worker in described["workers"] if worker["status"] == "READY"]


class Killer(threading.Thread):
    """
    Kills workers at random until it is told to end.

    :ivar killed: How many.
    """

    def __init__(self, running: Running, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self.enough = threading.Event()
        self._running = running
        self._chance = chance

    def run(self) -> None:
        """See `threading.Thread`."""
        while not self.enough.wait(self._chance.expovariate(1 / BETWEEN_DEATHS)):
            with suppress(OSError, ValueError):
                workers = workers_of(self._running)
                if workers:
                    os.kill(self._chance.choice(workers), signal.SIGKILL)
                    self.killed += 1


def soak(running: Running, seconds: float, chance: random.Random, say: Callable[[str], None]) -> list[str]:
    """
    Load a server, and return what is wrong with it afterwards.

    :raise ValueError: when ``wrk`` failed.
    """
    first: Look | None = None
    requests, failed, killed = 0, 0, 0
    end = time.monotonic() + seconds
    say("| after | requests | failed | killed | descriptors | processes | memory of the front |")
    say("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    began = time.monotonic()
    while True:
        killer = Killer(running, chance)
        killer.start()
        load = running.load(CONNECTIONS, min(SLICE, max(1.0, end - time.monotonic())))
        killer.enough.set()
        killer.join()
        requests, failed = requests + load.requests, failed + load.refused + load.broken
        killed += killer.killed
        if not _whole(running):
            return [f"{WORKERS} workers were not ready {RECOVERY:g} seconds after the last was killed"]
        look = _settled(running, first)
        first = first or look
        say(
            f"| {time.monotonic() - began:.0f} s | {requests} | {failed} | {killed} | {look.descriptors} "
            f"| {look.processes} | {look.memory / (1 << 20):.1f} MB |"
        )
        if time.monotonic() >= end:
            break
    wrong = look.exceeds(first)
    if failed * 1000 > requests * ERRORS:
        wrong.append(f"{failed} of {requests} requests failed")
    return wrong


def _whole(running: Running) -> bool:
    """Wait until all workers are ready."""
    until = time.monotonic() + RECOVERY
    while time.monotonic() < until:
        with suppress(OSError, ValueError):
            if len(workers_of(running)) == WORKERS:
                return True
        time.sleep(0.2)
    return False


def _settled(running: Running, first: Look | None) -> Look:
    """Look when the connections of the load, and what is left of workers that were killed, have had time to go."""
    time.sleep(1.0)
    until = time.monotonic() + RECOVERY
    look = Look.at(running)
    while first is not None and look.exceeds(first) and time.monotonic() < until:
        time.sleep(0.2)
        look = Look.at(running)
    return look


def main(arguments: Sequence[str]) -> int:
    """
    Run the command.

    :return: 1 if something has grown, or too much has failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long the load lasts (600)")
    parser.add_argument("--seed", type=int, default=0, help="which workers are killed, and when (0)")
    said = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        print("wrk is not installed.")
        return 1
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="twisted_serve-soak-") as work:
        running = start(Peer("twisted_serve", "torchserve", OURS), case_named("noop"), Path(work) / "server")
        try:
            running.scale(WORKERS)
            wrong = soak(running, said.seconds, random.Random(said.seed), print)
        finally:
            running.stop()
    print("\n".join(wrong) or "Nothing has grown.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
