# SPDX-License-Identifier: Apache-2.0
"""
Compute rates and latencies from two readings of a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite, isnan
from typing import Any

from attrs import frozen

from twisted_serve.subcommands.top.readings import Counted, Described, Reading, Version


@frozen
class Row:
    """
    A version between two readings; what is not known is ``None``.

    :ivar wanted: The smallest and the largest number of workers that are wanted.
    :ivar rate: Answers a second; ``errors`` are failures and refusals a second.
    :ivar p50: Seconds, estimated from the histogram's buckets, like ``p99``; ``mean`` is exact.
    :ivar memory: Bytes of all workers.
    """

    name: str
    version: str
    ready: int
    starting: int
    troubled: int
    wanted: tuple[int, int] | None
    running: int
    queued: int
    rate: float | None
    errors: float | None
    p50: float | None
    p99: float | None
    mean: float | None
    memory: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the row; times are in seconds."""
        return {
            "modelName": self.name,
            "modelVersion": self.version,
            "workersReady": self.ready,
            "workersStarting": self.starting,
            "workersFailing": self.troubled,
            "minWorkers": None if self.wanted is None else self.wanted[0],
            "maxWorkers": None if self.wanted is None else self.wanted[1],
            "running": self.running,
            "queued": self.queued,
            "requestsPerSecond": _rounded(self.rate),
            "errorsPerSecond": _rounded(self.errors),
            "latency": {"p50": _rounded(self.p50), "p99": _rounded(self.p99), "mean": _rounded(self.mean)},
            "memory": self.memory,
        }


@frozen
class View:
    """
    A server between two readings.

    :ivar processor: Its share of one processor.
    :ivar seconds_left: The remaining time of each kind of key that expires.
    """

    rows: tuple[Row, ...]
    processor: float | None
    memory: float
    seconds_left: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the whole view."""
        left = {kind: round(seconds, 1) for kind, seconds in self.seconds_left.items() if isfinite(seconds)}
        server = {"processor": _rounded(self.processor), "memory": int(self.memory), "tokenSecondsLeft": left}
        return {"server": server, "models": [row.as_json() for row in self.rows]}


def view_of(before: Reading | None, after: Reading, descriptions: Mapping[Version, Described]) -> View:
    """
    Return the view between two readings; without one before, or of another process, rates are unknown.
    """
    if before is not None and (before.started != after.started or after.at <= before.at):
        before = None
    rows = tuple(
        _row(
            version,
            None if before is None else before.versions.get(version, Counted()),
            counted,
            0.0 if before is None else after.at - before.at,
            descriptions.get(version),
        )
        for version, counted in after.versions.items()
    )
    processor = None if before is None else max(0.0, after.processor - before.processor) / (after.at - before.at)
    return View(rows, processor, after.memory, after.seconds_left)


def _row(version: Version, before: Counted | None, after: Counted, seconds: float, said: Described | None) -> Row:
    rate = errors = p50 = p99 = mean = None
    # A version that was registered again counts from 0.
    if before is not None and after.answers < before.answers:
        before = Counted()
    if before is not None:
        answers = after.answers - before.answers
        rate = answers / seconds
        errors = max(0.0, after.errors - before.errors) / seconds
        if answers > 0:
            between = {bound: count - before.buckets.get(bound, 0) for bound, count in after.buckets.items()}
            p50, p99 = quantile(between, 0.5), quantile(between, 0.99)
            mean = max(0.0, after.seconds - before.seconds) / answers
    return Row(
        *version,
        int(after.ready),
        int(after.starting),
        int(after.troubled),
        None if said is None else said.workers,
        int(after.running),
        int(after.queued),
        rate,
        errors,
        p50,
        p99,
        mean,
        None if said is None else said.memory,
    )


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """
    Estimate a quantile from a histogram, evenly within its bucket, as Prometheus does.

    :param buckets: How many values were at most each bound.
    :return: ``None`` without values; beyond the last finite bound, that bound.
    """
    bounds = sorted(bound for bound in buckets if not isnan(bound))
    total = buckets[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted:
            if bound == inf:
                return low
            inside = count - below
            return low + (bound - low) * ((wanted - below) / inside if inside > 0 else 1.0)
        low, below = bound, count
    return low


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
