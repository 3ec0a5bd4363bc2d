# SPDX-License-Identifier: Apache-2.0
"""
Measure all servers in one run, in turns, and print the tables.

What has been measured is kept row by row; ``--resume`` goes on where a run ended.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import twisted
from benchmarks.cases import CASES, CONNECTIONS, Case
from benchmarks.picture import PICTURE
from benchmarks.policies import TRAFFIC, Comparison
from benchmarks.processes import exit_on_signals
from benchmarks.report import report, with_section
from benchmarks.results import ECHO, LIMIT, LOOP, OPEN, Footprint, Loaded, Results, Row
from benchmarks.rpc import Calls
from benchmarks.servers import OTHERS, OURS, DidNotStartError, Peer, Running, is_worker, peers, start

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"

# Workers that are added to see what each of them costs.
FURTHER = 2


class Bench:
    """
    One run.

    :param seconds: How long each load lasts.
    :param work: Where servers get their directories.
    """

    def __init__(self, results: Results, seconds: float, work: Path, say: Callable[[str], None]) -> None:
        self.results = results
        self.seconds = seconds
        self.work = work
        self.say = say
        self._count = 0

    def cover(self, peer: Peer, case: Case, number: int, connections: tuple[int, ...], footprint: bool) -> None:
        """Measure a server with a case, as far as that has not been done."""
        wanted = [each for each in connections if not self.results.has((peer.name, case.name, each, number))]
        sized = footprint and peer.kind == "torchserve" and not self.results.has((peer.name, case.name, number))
        after_load = footprint and not self.results.has((peer.name, case.name, number, "loaded"))
        if not (wanted or sized or after_load):
            return
        self._count += 1
        try:
            running = start(peer, case, self.work / f"{os.getpid()}-{self._count}")
        except DidNotStartError as e:
            self.say(f"{peer.name} did not serve {case.name}: {e}")
            return
        try:
            if sized:
                self._size(running, number)
            # Caches warm, pages touched, branches learnt; Java compiles what it has seen often.
            running.load(8, min(2.0, self.seconds))
            for each in wanted:
                self.results.add(self._row(running, each, number))
            if after_load:
                if connections[-1] not in wanted:
                    running.load(connections[-1], self.seconds)
                whole, front = self._memory(running)
                self.results.add(Loaded(peer.name, case.name, number, front, whole - front))
        except (OSError, ValueError, subprocess.TimeoutExpired) as e:
            self.say(f"{peer.name}, {case.name}: {type(e).__name__}: {e}")
        finally:
            running.stop()
            shutil.rmtree(running.directory, ignore_errors=True)

    def loop(self, case: Case, number: int) -> None:
        """Measure the handler alone."""
        if self.results.has((LOOP, case.name, 0, number)):
            return
        command = [sys.executable, str(HERE / "bare.py"), "loop", case.name, str(self.seconds)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=self.seconds + 120, check=True
        )
        said = json.loads(run.stdout)
        rate = said["requests"] / said["seconds"]
        self.results.add(Row(LOOP, case.name, 0, number, round(rate, 2), 0.0, 0.0, round(said["cpu_us"], 2)))
        self.say(f"{case.name:8} {LOOP:26}      {rate:10.1f}/s")

    def _row(self, running: Running, connections: int, number: int) -> Row:
        load, cpu_us = running.cost(connections, self.seconds)
        row = Row(
            running.peer.name,
            running.case.name,
            connections,
            number,
            round(load.rate, 2),
            load.p50_ms,
            load.p99_ms,
            round(cpu_us, 1),
            load.clean,
        )
        spoilt = "" if load.clean else f"  {load.refused} refused, {load.broken} broken"
        self.say(f"{row.case:8} {row.server:26} {connections:3}  {row.rate:10.1f}/s  p50 {row.p50_ms:.2f} ms{spoilt}")
        return row

    def _memory(self, running: Running) -> tuple[int, int]:
        """Return what the server takes, and what its front takes of that."""
        return running.group.pss(), running.group.pss_of_front(is_worker)

    def _size(self, running: Running, number: int) -> None:
        time.sleep(1.0)
        whole, front = self._memory(running)
        further, taken = 0, 0.0
        if running.peer.kind == "torchserve":
            times = [running.scale(1 + more) for more in range(1, FURTHER + 1)]
            running.predict()
            time.sleep(1.0)
            further, taken = (running.group.pss() - whole) // FURTHER, min(times)
            running.scale(1)
            running.predict()
        self.results.add(
            Footprint(
                running.peer.name,
                running.case.name,
                number,
                front,
                whole - front,
                further,
                round(running.first_answer, 3),
                round(taken, 4),
            )
        )
        self.say(f"{running.case.name:8} {running.peer.name:26} first prediction after {running.first_answer:.2f} s")


def machine() -> dict[str, Any]:
    """Describe where this is measured."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "Python": platform.python_version(),
        "Twisted": twisted.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def run(bench: Bench, found: list[Peer], cases: list[Case], connections: tuple[int, ...], rounds: int) -> None:
    """Measure everything, the servers taking turns in each round."""
    unlocked = Peer(OPEN, "torchserve", OURS, tokens=False)
    limit = Peer(LIMIT, "limit", OURS, tokens=False)
    echo = Peer(ECHO, "echo", OURS, tokens=False)
    for number in range(1, rounds + 1):
        for case in cases:
            bench.loop(case, number)
            for peer in found:
                if peer.takes(case):
                    bench.cover(peer, case, number, connections, footprint=number == 1)
            bench.cover(limit, case, number, connections, footprint=False)
            if case.name == "noop":
                bench.cover(unlocked, case, number, (max(connections),), footprint=False)
                bench.cover(echo, case, number, (max(connections),), footprint=False)


def can_call(say: Callable[[str], None]) -> bool:
    """Return whether gRPC can be measured here; say what is missing."""
    missing = [] if shutil.which("h2load") else ["h2load"]
    missing += [name for name in ("grpc", "h2", "google.protobuf") if not _importable(name)]
    for name in missing:
        say(f"{name} is not installed: gRPC is left out.")
    return not missing


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def absolute(path: str) -> Path:
    """Read a path so that it means the same in any directory."""
    return Path(path).absolute()


def main() -> int:
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: within five minutes")
    parser.add_argument("--resume", action="store_true", help="go on with the last run instead of beginning a new one")
    parser.add_argument("--rounds", type=int, default=None, help="how often the servers take turns (2)")
    parser.add_argument("--seconds", type=float, default=None, help="how long each load lasts (8)")
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument(
        "--traffic", nargs="*", default=[each.name for each in TRAFFIC], help="open loads that compare batch policies"
    )
    parser.add_argument("--no-grpc", dest="grpc", action="store_false", help="leave out gRPC")
    parser.add_argument("--connections", type=int, nargs="*", default=list(CONNECTIONS))
    parser.add_argument("--peers", nargs="*", default=[name for name, *_ in OTHERS], help="servers to compare with")
    # Servers run in directories of their own.  A link is not followed: it is what makes the environment.
    parser.add_argument(
        "--environments", type=absolute, default=Path(".bench").absolute(), help="where the other servers are installed"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results" / "latest.jsonl")
    parser.add_argument("--report", action="store_true", help="only print what the results say")
    parser.add_argument("--page", action="store_true", help="write the tables into docs/performance.md, too")
    arguments = parser.parse_args()
    exit_on_signals()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    if not (arguments.resume or arguments.report):
        arguments.results.unlink(missing_ok=True)
    results = Results(arguments.results)
    if not arguments.report:
        cases = [case for case in CASES if case.name in arguments.cases]
        if cases and shutil.which("wrk") is None:
            print("wrk, which makes the load, is not installed: nothing can be measured.", file=sys.stderr)
            return 1
        if not results.machine:
            results.describe(machine())
        rounds = arguments.rounds or (1 if arguments.quick else 2)
        seconds = arguments.seconds or (2.0 if arguments.quick else 8.0)
        found = [
            peer
            for peer in peers(OURS, arguments.environments, _say)
            if peer.name in ("twisted_serve", *arguments.peers)
        ]
        with tempfile.TemporaryDirectory(prefix="twisted-serve-bench-") as work:
            run(Bench(results, seconds, Path(work), _say), found, cases, tuple(arguments.connections), rounds)
            comparison = Comparison(results, min(3.0, seconds + 1.0), Path(work), _say)
            for traffic in TRAFFIC:
                # A short run has time for one slice for each policy: of the load under which they differ most.
                if traffic.name in arguments.traffic and (traffic.name == "deadline" or not arguments.quick):
                    loads = traffic.loads[-1:] if arguments.quick else traffic.loads
                    comparison.cover(traffic, loads, arguments.rounds or (1 if arguments.quick else 5))
            if arguments.grpc and can_call(_say):
                # Loads are short and alternate, so that many rounds are as good as long ones.
                alternating = Calls(results, min(3.0, seconds), Path(work), _say)
                alternating.cover(
                    [each for each in found if each.kind == "torchserve"],
                    arguments.rounds or (1 if arguments.quick else 5),
                )
    section = report(results)
    print(f"\n{section}")
    if arguments.page:
        if PICTURE.exists():
            section += f"\n![Requests per second at 64 connections]({PICTURE.name})\n"
        PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), section), encoding="utf-8")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
