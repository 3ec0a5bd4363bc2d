# SPDX-License-Identifier: Apache-2.0
"""
Load a server for minutes over HTTP and gRPC, kill its workers at random, cancel calls, and show what grows.

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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.cases import build_archive, case_named
from benchmarks.processes import exit_on_signals
from benchmarks.rpc import CALLS, check_answer, put_load
from benchmarks.servers import OURS, Peer, Running, is_worker, start

NOOP_CALL, STREAM_CALL = (next(call for call in CALLS if call.name == name) for name in ("noop", "stream"))

WORKERS = 4
CONNECTIONS = 32
# Seconds of load between two looks, and between two killed workers on average.
SLICE = 10.0
BETWEEN_DEATHS = 2.0
# Seconds after which all workers are back, whatever their back-off.
RECOVERY = 60.0

# What the server's own process may have more of at the end than after the first slice.
MORE_MEMORY = 16 << 20
# The back-off of a worker that was killed, and what the log gathers, come and go.
MORE_DELAYED = 8
# The file in which a server's reactor tells how many delayed calls it has.
DELAYED = "delayed"
# Calls of the stream at a time, and the connections and calls of ``h2load``.
CALLERS = 8
CALLS_AT_ONCE = (4, 16)
# More errors than these, in a thousand requests, are not the deaths of two workers in a row.
ERRORS = 1


@frozen
class Look:
    """
    What a server has while nothing is asked of it.

    :ivar descriptors: Those of the server's own process.
    :ivar processes: All, workers and templates included.
    :ivar memory: The proportional set size of the server's own process, in bytes.
    :ivar delayed: The delayed calls of its reactor.
    """

    descriptors: int
    processes: int
    memory: int
    delayed: int

    @classmethod
    def at(cls, running: Running) -> Look:
        """Look now."""
        leader = running.group.leader.pid
        descriptors = len(os.listdir(f"/proc/{leader}/fd"))
        delayed = int((running.directory / DELAYED).read_text() or 0)
        return cls(descriptors, len(running.group.pids()), running.group.pss_of_front(is_worker), delayed)

    def exceeds(self, first: Look) -> list[str]:
        """Say what has grown since the first look, and should not have."""
        grown = []
        if self.descriptors > first.descriptors:
            grown.append(f"{self.descriptors - first.descriptors} more descriptors")
        if self.processes > first.processes:
            grown.append(f"{self.processes - first.processes} more processes")
        if self.memory > first.memory + MORE_MEMORY:
            grown.append(f"{(self.memory - first.memory) >> 20} MB more memory")
        if self.delayed > first.delayed + MORE_DELAYED:
            grown.append(f"{self.delayed - first.delayed} more delayed calls")
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


class Caller(threading.Thread):
    """
    Calls the model that streams until it is told to end, on a new connection now and then; leaves calls in many ways.

    :ivar calls: How many calls were made.
    :ivar failed: How many of those that were not cancelled failed.
    """

    def __init__(self, running: Running, chance: random.Random, enough: threading.Event) -> None:
        super().__init__(daemon=True)
        self.calls = self.failed = 0
        self._running, self._chance, self._enough = running, chance, enough

    def run(self) -> None:
        """See `threading.Thread`."""
        import grpc

        while not self._enough.is_set():
            # A connection that is lost with a call is another way to leave it.
            with grpc.insecure_channel(
                self._running.grpc, [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                method = channel.unary_stream(STREAM_CALL.path)
                for _ in range(self._chance.randrange(1, 40)):
                    if self._enough.is_set():
                        break
                    try:
                        self._call(method, self._chance.choice(("read", "read", "cancel", "late")))
                    except grpc.RpcError as e:
                        self.failed += e.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
                self._call(method, "leave")

    def _call(self, method: Any, way: str) -> None:
        self.calls += 1
        metadata = (("authorization", f"Bearer {self._running.keys['inference']}"),)
        timeout = self._chance.uniform(0.0005, 0.01) if way == "late" else 30.0
        call = method(STREAM_CALL.request, timeout=timeout, metadata=metadata)
        if way == "leave":
            return
        for _message in call:
            if way == "cancel":
                call.cancel()


def soak(running: Running, seconds: float, chance: random.Random, say: Callable[[str], None]) -> list[str]:
    """
    Load a server, and return what is wrong with it afterwards.

    :raise ValueError: when ``wrk`` or ``h2load`` failed.
    """
    first: Look | None = None
    requests, failed, killed, calls = 0, 0, 0, 0
    end = time.monotonic() + seconds
    say(
        "| after | requests | calls | failed | killed | descriptors | processes | delayed calls | memory of the front |"
    )
    say("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    began = time.monotonic()
    while True:
        killer = Killer(running, chance)
        callers = [Caller(running, random.Random(chance.random()), killer.enough) for _ in range(CALLERS)]
        for thread in (killer, *callers):
            thread.start()
        seconds = min(SLICE, max(1.0, end - time.monotonic()))
        with ThreadPoolExecutor(1) as pool:
            by_grpc = pool.submit(put_load, running, NOOP_CALL, *CALLS_AT_ONCE, seconds)
            loads = [running.load(CONNECTIONS, seconds), by_grpc.result()]
        killer.enough.set()
        for thread in (killer, *callers):
            thread.join()
        check_answer(running, NOOP_CALL)
        requests += loads[0].requests
        calls += loads[1].requests + sum(caller.calls for caller in callers)
        failed += sum(load.refused + load.broken for load in loads) + sum(caller.failed for caller in callers)
        killed += killer.killed
        if not whole(running, WORKERS):
            return [f"{WORKERS} workers were not ready {RECOVERY:g} seconds after the last was killed"]
        look = settled(running, first)
        first = first or look
        say(
            f"| {time.monotonic() - began:.0f} s | {requests} | {calls} | {failed} | {killed} | {look.descriptors} "
            f"| {look.processes} | {look.delayed} | {look.memory / (1 << 20):.1f} MB |"
        )
        if time.monotonic() >= end:
            break
    wrong = look.exceeds(first)
    if failed * 1000 > (requests + calls) * ERRORS:
        wrong.append(f"{failed} of {requests + calls} requests and calls failed")
    return wrong


def whole(running: Running, workers: int) -> bool:
    """Wait until all workers are ready; return whether they are."""
    until = time.monotonic() + RECOVERY
    while time.monotonic() < until:
        with suppress(OSError, ValueError):
            if len(workers_of(running)) == workers:
                return True
        time.sleep(0.2)
    return False


def settled(running: Running, first: Look | None) -> Look:
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
    missing = [name for name in ("wrk", "h2load") if shutil.which(name) is None]
    if missing:
        print(f"{missing[0]} is not installed.")
        return 1
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="twisted_serve-soak-") as work:
        ours = (str(Path(__file__).with_name("delayed_calls.py")), DELAYED)
        peer = Peer("twisted_serve", "torchserve", OURS)
        running = start(peer, case_named("noop"), Path(work) / "server", ours=ours)
        try:
            running.scale(WORKERS)
            build_archive(STREAM_CALL.case, running.directory / "store")
            running.register(STREAM_CALL.case)
            wrong = soak(running, said.seconds, random.Random(said.seed), print)
        finally:
            running.stop()
    print("\n".join(wrong) or "Nothing has grown.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
