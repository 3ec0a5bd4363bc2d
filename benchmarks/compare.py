# SPDX-License-Identifier: Apache-2.0
"""
Compare this checkout with another one of it, pair by pair: both serve at the same time, and the loads alternate.

A ratio is this checkout's figure divided by the other's.  Each line has the median of the pairs' ratios with the
quartiles around it, since a machine whose speed drifts changes both loads of a pair alike, and the ratio of the best
loads of each, since other work on the machine only makes a load worse.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import quantiles

from attrs import frozen

from benchmarks.cases import CASES, Case
from benchmarks.load import measure
from benchmarks.servers import OURS, Peer, Running, start

# Seconds of the load before the first pair, in which caches warm and branches are learnt.
WARM_UP = 2.0


@frozen
class Figures:
    """
    The figures of one load.

    :ivar rate: Requests per second.
    :ivar cpu_us: Microseconds of all processes of the server for each request.
    """

    rate: float
    cpu_us: float


@frozen
class Ratio:
    """
    The ratio of two checkouts' figures.

    :ivar low: The lower quartile of the pairs' ratios.
    :ivar high: The upper quartile of the pairs' ratios.
    :ivar best: The ratio of the best figure of each checkout.
    """

    low: float
    median: float
    high: float
    best: float

    def __str__(self) -> str:
        """Return the median, with the quartiles in brackets, and the ratio of the best."""
        return f"{self.median:.3f} [{self.low:.3f} {self.high:.3f}] best {self.best:.3f}"


def ratio(pairs: Sequence[tuple[float, float]], best: Callable[[Iterable[float]], float]) -> Ratio:
    """
    Return the ratio of pairs, each of this checkout's figure and the other's.

    :param best: ``max`` for figures that are better when they are higher, otherwise ``min``.
    :raise ValueError: for fewer than two pairs, and for a figure that is not positive.
    """
    if any(figure <= 0 for pair in pairs for figure in pair):
        raise ValueError("a ratio needs positive figures")
    if len(pairs) < 2:
        raise ValueError("quartiles need at least two pairs")
    low, median, high = quantiles([ours / other for ours, other in pairs], n=4, method="inclusive")
    ours, others = zip(*pairs, strict=True)
    return Ratio(low, median, high, best(ours) / best(others))


def load(running: Running, connections: int, seconds: float) -> Figures:
    """
    Put one load on a server.

    :raise ValueError: if more than one request in a thousand was not answered.
    """
    before = running.group.cpu_seconds()
    done = measure(
        running.url, connections, seconds, running.method, running.body, running.content_type, running.secret
    )
    used = running.group.cpu_seconds() - before
    if not done.clean:
        raise ValueError(f"{running.peer.name}: {done.refused} requests were refused, {done.broken} were broken off")
    return Figures(done.rate, used / done.requests * 1e6)


def compare(case: Case, other: Path, connections: Sequence[int], pairs: int, seconds: float, work: Path) -> None:
    """
    Compare two checkouts in one case, and print a line for each number of connections.

    :param other: The Python of the other checkout's environment.
    """
    servers: list[Running] = []
    try:
        for name, python in (("this", OURS), ("other", other)):
            peer = Peer(f"twisted_serve, {name} checkout", "torchserve", python)
            servers.append(start(peer, case, work / f"{case.name}-{name}"))
        for server in servers:
            load(server, 8, WARM_UP)
        for number in connections:
            figures: list[list[Figures]] = []
            for turn in range(pairs):
                # Which of the two is first alternates: the second one finds a warmer processor.
                order = servers if turn % 2 else servers[::-1]
                measured = [load(server, number, seconds) for server in order]
                figures.append(measured if turn % 2 else measured[::-1])
            rates = ratio([(ours.rate, others.rate) for ours, others in figures], max)
            costs = ratio([(ours.cpu_us, others.cpu_us) for ours, others in figures], min)
            print(f"{case.name:8} {number:4} connections   rate {rates}   processor time {costs}", flush=True)
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
    # However this ends, the servers end first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="twisted-serve-compare-") as work:
        for case in CASES:
            if case.name in arguments.cases:
                compare(case, python, arguments.connections, arguments.pairs, arguments.seconds, Path(work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
