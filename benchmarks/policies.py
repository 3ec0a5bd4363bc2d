# SPDX-License-Identifier: Apache-2.0
"""
Compare our server's batch policies under open loads, in pairs.

A server for each policy runs; each slice of load goes to one after the other,
with the same schedule, so that what else the machine does hits all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from urllib.parse import urlsplit

from attrs import evolve, frozen

from benchmarks.arrivals import Outcome, bursts, render, send
from benchmarks.cases import ENCODER, RECURRENT, Case
from benchmarks.results import Paced, Results
from benchmarks.servers import OURS, DidNotStartError, Peer, Running, start

POLICIES = ("eager", "adaptive", "window")

# So many full batches tell how much a server can answer.
_FULL_BATCHES = 5


@frozen
class Traffic:
    """
    An open load.

    :ivar loads: The arrivals per second, as shares of what a server with a full queue answers.
    :ivar size: How many requests come together.
    :ivar deadline: The milliseconds that a client waits for an answer; ``None`` for as long as it takes.
    """

    name: str
    title: str
    case: Case
    loads: tuple[float, ...]
    size: int = 1
    spread: float = 0.0
    deadline: int | None = None


TRAFFIC = (
    Traffic("single", "recurrent network, single requests", RECURRENT, (0.05, 0.1, 0.2)),
    Traffic("bursts", "recurrent network, bursts of 6", RECURRENT, (0.05, 0.1, 0.2), size=6, spread=0.0003),
    Traffic("deadline", "encoder, answers wanted in 500 ms", ENCODER, (0.7, 1.3, 2.0), deadline=500),
)


def _request(running: Running, deadline: int | None = None) -> bytes:
    """Return the bytes of a prediction's request."""
    headers = {"Content-Type": running.content_type}
    if running.secret is not None:
        headers[running.secret[0]] = running.secret[1]
    if deadline is not None:
        headers["X-Request-Timeout-Ms"] = str(deadline)
    url = urlsplit(running.url)
    return render(url.path, url.netloc, headers, running.content)


def _send(running: Running, request: bytes, moments: list[float]) -> Outcome:
    url = urlsplit(running.url)
    return send(url.hostname or "", url.port or 0, request, moments)


class Comparison:
    """
    One run.

    :param seconds: How long each slice of load lasts.
    :param work: Where servers get their directories.
    """

    def __init__(self, results: Results, seconds: float, work: Path, say: Callable[[str], None]) -> None:
        self.results = results
        self.seconds = seconds
        self.work = work
        self.say = say

    def cover(self, traffic: Traffic, loads: tuple[float, ...], rounds: int) -> None:
        """Measure all policies under one kind of traffic, as far as that has not been done."""
        wanted = [
            (load, number)
            for number in range(1, rounds + 1)
            for load in loads
            if not all(self.results.has((policy, traffic.name, load, number)) for policy in POLICIES)
        ]
        if not wanted:
            return
        with ExitStack() as stack:
            servers = {}
            try:
                for policy in POLICIES:
                    case = evolve(traffic.case, policy=policy)
                    running = start(
                        Peer("twisted_serve", "torchserve", OURS), case, self.work / f"{traffic.name}-{policy}"
                    )
                    stack.callback(running.stop)
                    servers[policy] = running
                for load, number in wanted:
                    # Anew each time: what else the machine does changes how much can be answered.
                    rate = max(self._full_rate(running) for running in servers.values())
                    self._slices(traffic, load, number, rate * load, servers)
            except (DidNotStartError, OSError, ValueError) as e:
                self.say(f"batch policies, {traffic.name}: {type(e).__name__}: {e}")

    def _full_rate(self, running: Running) -> float:
        """Return how many requests per second are answered when the queue is never empty."""
        count = _FULL_BATCHES * running.case.batch_size
        return count / _send(running, _request(running), [0.0] * count).seconds

    def _slices(self, traffic: Traffic, load: float, number: int, rate: float, servers: dict[str, Running]) -> None:
        """Load one server after the other, another one first in each round."""
        first = number % len(POLICIES)
        moments = bursts(rate, max(1, round(rate * self.seconds)), traffic.size, traffic.spread, number)
        for policy in (*POLICIES[first:], *POLICIES[:first]):
            paced = self._measured(traffic, load, number, moments, policy, servers[policy])
            self.results.add(paced)
            self.say(
                f"{traffic.name:8} {policy:8} {load:4}  {paced.offered:7.1f}/s, {paced.answered:7.1f}/s answered"
                f"  p50 {paced.latencies_ms[1]:.1f} ms  p95 {paced.latencies_ms[2]:.1f} ms  batches of {paced.batch}"
            )

    def _measured(
        self, traffic: Traffic, load: float, number: int, moments: list[float], policy: str, running: Running
    ) -> Paced:
        cpu, (jobs, batches) = running.group.cpu_seconds(), running.batches()
        outcome = _send(running, _request(running, traffic.deadline), moments)
        cpu, (more_jobs, more_batches) = running.group.cpu_seconds() - cpu, running.batches()
        good = len(outcome.latencies)
        latencies = (round(mean(outcome.latencies or [0.0]) * 1e3, 3), *map(outcome.milliseconds, (0.5, 0.95, 0.99)))
        return Paced(
            policy,
            traffic.name,
            load,
            number,
            round(len(moments) / moments[-1], 2),
            round(good / outcome.seconds, 2),
            latencies,
            round((more_jobs - jobs) / max(1.0, more_batches - batches), 2),
            round(cpu / max(1, good) * 1e6, 1),
        )


@frozen
class Compared:
    """
    A policy beside ``eager``: medians over the rounds, and of the ratios of each round.

    :ivar ratios: Of good answers, mean latency, p95 and processor time, each with the lowest and the highest.
    """

    traffic: Traffic
    load: float
    policy: str
    answered: float
    latencies_ms: tuple[float, float, float, float]
    batch: float
    cpu_us: float
    ratios: tuple[tuple[float, float, float], ...]


def _ratios(numerators: list[float], denominators: list[float]) -> tuple[float, float, float]:
    """Return the median, the lowest and the highest of the ratios; zeros where nothing can be divided."""
    found = [n / d for n, d in zip(numerators, denominators, strict=True) if n and d]
    return (median(found), min(found), max(found)) if found else (0.0, 0.0, 0.0)


def compared(results: Results) -> Iterator[Compared]:
    """Compare each policy with ``eager`` in the rounds that have both."""
    for traffic in TRAFFIC:
        for load in traffic.loads:
            rounds = {
                policy: {
                    each.round: each
                    for each in results.paced
                    if (each.policy, each.traffic, each.load) == (policy, traffic.name, load)
                }
                for policy in POLICIES
            }
            for policy, found in rounds.items():
                both = sorted(found.keys() & rounds["eager"].keys())
                if not both:
                    continue
                mine, base = [found[n] for n in both], [rounds["eager"][n] for n in both]
                readings: tuple[Callable[[Paced], float], ...] = (
                    lambda each: each.answered,
                    lambda each: each.latencies_ms[0],
                    lambda each: each.latencies_ms[2],
                    lambda each: each.cpu_us,
                )
                p = [median(each.latencies_ms[index] for each in mine) for index in range(4)]
                yield Compared(
                    traffic,
                    load,
                    policy,
                    median(each.answered for each in mine),
                    (p[0], p[1], p[2], p[3]),
                    median(each.batch for each in mine),
                    median(each.cpu_us for each in mine),
                    tuple(_ratios([*map(read, mine)], [*map(read, base)]) for read in readings),
                )
