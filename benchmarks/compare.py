# SPDX-License-Identifier: Apache-2.0
"""
Compare this checkout with another one of it, pair by pair: both serve at the same time, and the loads alternate.

A ratio is this checkout's figure divided by the other's.  A machine whose speed drifts changes both loads of a pair
alike, hence the median of many ratios says more than the ratio of two rates.  Where few pairs must do, the least
processor time of each checkout is the steadiest figure: other work on the machine only adds to it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles

from attrs import frozen

from benchmarks.cases import CASES, Case
from benchmarks.processes import exit_on_signals
from benchmarks.servers import OURS, Peer, Running, is_worker, start

# Seconds of the load before the first pair, in which caches warm and branches are learnt.
WARM_UP = 2.0


@frozen
class Ratio:
    """The ratio of two checkouts' figures: the median of pairs, and the quartiles around it."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """Return the median, with the quartiles in brackets."""
        return f"{self.median:.3f} [{self.low:.3f} {self.high:.3f}]"


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """
    Return the ratio of pairs, each of this checkout's figure and the other's.

    :raise ValueError: for fewer than two pairs, and for a figure that is not positive.
    """
    if any(figure <= 0 for pair in pairs for figure in pair):
        raise ValueError("a ratio needs positive figures")
    if len(pairs) < 2:
        raise ValueError("quartiles need at least two pairs")
    return Ratio(*quantiles([ours / other for ours, other in pairs], n=4, method="inclusive"))


@frozen
class Spent:
    """
    What a load came to.

    :ivar rate: Requests per second.
    :ivar front: Microseconds of the processor for each request, of all processes which are no workers.
    :ivar worker: Likewise, of the workers.
    """

    rate: float
    front: float
    worker: float

    @property
    def whole(self) -> float:
        """Microseconds of all processes for each request."""
        return self.front + self.worker


def load(running: Running, connections: int, seconds: float) -> Spent:
    """
    Put a load on a server, and return what it came to.

    :raise ValueError: if more than one request in a thousand was not answered.
    """

    def times() -> tuple[float, float]:
        return running.group.cpu_seconds_of(lambda command: not is_worker(command)), running.group.cpu_seconds_of(
            is_worker
        )

    before = times()
    done = running.load(connections, seconds)
    front, worker = (
        (after - first) / max(1, done.requests) * 1e6 for first, after in zip(before, times(), strict=True)
    )
    if not done.clean:
        raise ValueError(f"{running.peer.name}: {done.refused} requests were refused, {done.broken} were broken off")
    return Spent(done.rate, front, worker)


def described(case: str, connections: int, loads: Sequence[tuple[Spent, Spent]]) -> list[str]:
    """
    Return the lines about a case: ratios first, then the processor time of each checkout, minimum and median.

    :param loads: Pairs of loads, of this checkout and the other.
    :raise ValueError: as `ratio`.
    """
    rates = ratio([(ours.rate, theirs.rate) for ours, theirs in loads])
    costs = ratio([(ours.whole, theirs.whole) for ours, theirs in loads])
    lines = [f"{case:8} {connections:4} connections   rate {rates}   processor time {costs}"]
    parts: dict[str, Callable[[Spent], float]] = {
        "all": lambda spent: spent.whole,
        "front": lambda spent: spent.front,
        "worker": lambda spent: spent.worker,
    }
    for name, part in parts.items():
        ours, theirs = ([part(pair[which]) for pair in loads] for which in (0, 1))
        least, middle = (ratio_of(how(ours), how(theirs)) for how in (min, median))
        lines.append(
            f"{'':8} {name:6} µs/request   this {min(ours):.1f} min {median(ours):.1f} median   "
            f"other {min(theirs):.1f} min {median(theirs):.1f} median   ratio {least} {middle}"
        )
    return lines


def ratio_of(ours: float, theirs: float) -> str:
    """Return a ratio as text; a part that took less than a tick of the clock has none."""
    return f"{ours / theirs:.3f}" if theirs else "-"


def compare(case: Case, other: Path, connections: Sequence[int], pairs: int, seconds: float, work: Path) -> None:
    """
    Compare two checkouts in one case, and print the lines for each number of connections.

    :param other: The Python of the other checkout's environment.
    """
    servers: list[Running] = []
    try:
        for name, python in (("this", OURS), ("other", other)):
            peer = Peer(f"twisted_serve, {name} checkout", "torchserve", python)
            servers.append(start(peer, case, work / f"{case.name}-{name}"))
        for server in servers:
            server.load(8, WARM_UP)
        ours, theirs = servers
        for number in connections:
            loads: list[tuple[Spent, Spent]] = []
            for turn in range(pairs):
                # Which of the two is first alternates: the second one finds a warmer processor.
                if turn % 2:
                    mine = load(ours, number, seconds)
                    loads.append((mine, load(theirs, number, seconds)))
                else:
                    its = load(theirs, number, seconds)
                    loads.append((load(ours, number, seconds), its))
            print("\n".join(described(case.name, number, loads)), flush=True)
    finally:
        for server in servers:
            server.stop()
            shutil.rmtree(server.directory, ignore_errors=True)


def main() -> int:
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("other", type=Path, help="the other checkout, with its environment in .venv")
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--pairs", type=int, default=20, help="how many pairs of loads (20)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each load lasts, at least 1 (1)")
    arguments = parser.parse_args()
    if arguments.pairs < 2:
        parser.error("--pairs must be at least 2")
    python = arguments.other.absolute() / ".venv" / "bin" / "python"
    if not python.exists():
        parser.error(f"{python} does not exist: the other checkout needs an environment, as `make bench` makes it")
    if shutil.which("wrk") is None:
        parser.error("wrk, which makes the load, is not installed")
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="twisted-serve-compare-") as work:
        for case in CASES:
            if case.name in arguments.cases:
                compare(case, python, arguments.connections, arguments.pairs, arguments.seconds, Path(work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
