# SPDX-License-Identifier: Apache-2.0
"""
Report the figures of a load, for people and as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from twisted_serve.subcommands.bench.latencies import Latencies

#: The share of a processor from which on the client may be what limits the figures.
LIMIT = 0.85

_PERCENTILES = (50, 90, 99)


@frozen
class Figures:
    """
    What a load has measured, after the warm-up.

    :ivar wanted_rate: The rate that was asked for, in requests a second.
    :ivar seconds: From the first request to the last answer.
    :ivar statuses: The answers by status.
    :ivar failures: The requests without an answer, by what happened.
    :ivar overdue: Requests that the rate asked for and no connection was free to send.
    :ivar received: Bytes, with heads.
    :ivar processor: Processor seconds of this client.
    """

    connections: int
    wanted_rate: float | None
    seconds: float
    latencies: Latencies
    statuses: Mapping[int, int]
    failures: Mapping[str, int]
    overdue: int
    sent: int
    received: int
    processor: float

    @property
    def answers(self) -> int:
        """The number of answers, whatever their status."""
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """The number of requests that were refused, failed, or were not answered or not sent."""
        refused = sum(count for status, count in self.statuses.items() if status >= 400)
        return refused + sum(self.failures.values()) + self.overdue

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds if self.seconds else 0.0

    @property
    def share(self) -> float:
        """The client's share of one processor."""
        return self.processor / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return all figures; times are in seconds."""
        return {
            "connections": self.connections,
            "wantedRate": self.wanted_rate,
            "seconds": round(self.seconds, 3),
            "requests": self.answers + sum(self.failures.values()),
            "requestsPerSecond": round(self.rate, 3),
            "failed": self.failed,
            "latency": {
                **{f"p{each}": round(self.latencies.percentile(each), 6) for each in _PERCENTILES},
                "max": round(self.latencies.longest, 6),
                "mean": round(self.latencies.mean, 6),
            },
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "failures": dict(sorted(self.failures.items())),
            "notSent": self.overdue,
            "bytesSent": self.sent,
            "bytesReceived": self.received,
            "clientProcessor": round(self.share, 3),
            "clientIsTheLimit": self.share >= LIMIT,
        }

    def lines(self) -> Iterator[str]:
        """Yield the figures for people."""
        yield f"{self.rate:,.1f} requests/s: {self.answers:,} answers in {self.seconds:.1f} s, {_connections(self)}"
        shown = [(f"p{each}", self.latencies.percentile(each)) for each in _PERCENTILES]
        shown += [("max", self.latencies.longest), ("mean", self.latencies.mean)]
        yield "latency   " + "  ".join(f"{name} {milliseconds(value)}" for name, value in shown)
        counted = [f"{count:,} with {status}" for status, count in sorted(self.statuses.items())]
        counted += [f"{count:,} {what}" for what, count in sorted(self.failures.items())]
        counted += [f"{self.overdue:,} not sent, no connection was free"] if self.overdue else []
        yield "answers   " + (", ".join(counted) or "none")
        yield f"bytes     {size(self.received)} received, {size(self.sent)} sent"
        limit = ": it may be the limit, so the server can do more" if self.share >= LIMIT else ""
        yield f"client    {self.share:.0%} of a processor{limit}"


def _connections(figures: Figures) -> str:
    plural = "connection" if figures.connections == 1 else "connections"
    at = "" if figures.wanted_rate is None else f", {figures.wanted_rate:g} a second asked for"
    return f"{figures.connections} {plural}{at}"


def milliseconds(seconds: float) -> str:
    """Format a time in milliseconds, with three digits that count."""
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def size(count: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
