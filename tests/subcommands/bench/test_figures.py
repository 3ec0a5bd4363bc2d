# SPDX-License-Identifier: Apache-2.0
"""Tests for the figures of a load: latencies, pace and report."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_serve.config.addresses import Address
from twisted_serve.subcommands.bench.command import request_of
from twisted_serve.subcommands.bench.latencies import Latencies
from twisted_serve.subcommands.bench.pace import Pace
from twisted_serve.subcommands.bench.report import Figures, milliseconds, size


def latencies(*seconds: float) -> Latencies:
    found = Latencies()
    for each in seconds:
        found.add(each)
    return found


@given(st.lists(st.floats(1e-5, 100), min_size=1), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles(seconds: list[float], percent: int) -> None:
    """A percentile is that of the sorted latencies, or at most 1 % more; the largest and the mean are exact."""
    found = latencies(*seconds)
    exact = sorted(seconds)[-(-len(seconds) * percent // 100) - 1]
    assert exact * 0.999999 <= found.percentile(percent) <= exact * 1.010001
    assert found.longest == max(seconds)
    assert found.mean == pytest.approx(sum(seconds) / len(seconds))


def test_no_latencies() -> None:
    """Without a request all are 0; what takes no time is counted, too."""
    assert [latencies().percentile(50), latencies().mean, latencies().longest] == [0, 0, 0]
    assert latencies(0.0).percentile(99) == 0


def test_without_a_rate() -> None:
    """Without a rate a request is due at once, and none is overdue."""
    pace = Pace(None, 10.0)
    assert [pace.take(11.0), pace.take(11.0)] == [11.0, 11.0]
    assert pace.overdue(1e9) == 0


def test_rate() -> None:
    """With a rate requests are due at equal intervals, and a late one was due when it was due."""
    pace = Pace(10.0, 100.0)
    assert [pace.take(100.0), pace.take(100.0)] == [100.0, None]
    assert pace.next_due() == pytest.approx(100.1)
    assert [pace.take(100.35) for _ in range(4)] == [
        pytest.approx(100.1),
        pytest.approx(100.2),
        pytest.approx(100.3),
        None,
    ]
    assert pace.overdue(100.95) == 6


def figures(**said: object) -> Figures:
    values = {
        "connections": 2,
        "wanted_rate": None,
        "seconds": 2.0,
        "latencies": latencies(0.001, 0.002),
        "statuses": {200: 2},
        "failures": {},
        "overdue": 0,
        "sent": 1500,
        "received": 20,
        "processor": 0.2,
    }
    return Figures(**{**values, **said})  # type: ignore[arg-type]


def test_report() -> None:
    """The figures are in the words and in the JSON; a client that is busy says so."""
    assert list(figures().lines()) == [
        "1.0 requests/s: 2 answers in 2.0 s, 2 connections",
        "latency   p50 1.00 ms  p90 2.00 ms  p99 2.00 ms  max 2.00 ms  mean 1.50 ms",
        "answers   2 with 200",
        "bytes     20 B received, 1.5 KB sent",
        "client    10% of a processor",
    ]
    busy = figures(processor=1.9, statuses={200: 3, 503: 2}, failures={"cut off": 1}, overdue=4, wanted_rate=9.5)
    lines = list(busy.lines())
    assert lines[0].endswith(", 9.5 a second asked for")
    assert lines[2] == "answers   3 with 200, 2 with 503, 1 cut off, 4 not sent, no connection was free"
    assert lines[4] == "client    95% of a processor: it may be the limit, so the server can do more"
    shown = json.loads(json.dumps(busy.as_json()))
    assert (shown["requests"], shown["failed"], shown["statuses"]) == (6, 7, {"200": 3, "503": 2})
    assert (shown["clientProcessor"], shown["clientIsTheLimit"], shown["notSent"]) == (0.95, True, 4)
    assert figures().failed == 0


def test_nothing() -> None:
    """A load without an answer is one."""
    empty = figures(latencies=latencies(), statuses={}, failures={"refused a connection": 3})
    assert empty.failed == 3
    assert list(empty.lines())[2] == "answers   3 refused a connection"


def test_units() -> None:
    """Times have three digits that count, sizes a unit."""
    assert [milliseconds(each) for each in (0.0012345, 0.04567, 1.23456)] == ["1.23 ms", "45.7 ms", "1,235 ms"]
    assert [size(each) for each in (0, 999, 1000, 2.5e6, 3e13)] == ["0 B", "999 B", "1.0 KB", "2.5 MB", "30.0 TB"]


def test_request() -> None:
    """A request has its length, and whatever the path and the key are, one head."""
    address = Address("http", "127.0.0.1", 8080)
    request = request_of(address, "/predictions/m", {"Content-Type": "text/plain", "Authorization": "Bearer k"}, b"abc")
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert (lines[0], body) == (b"POST /predictions/m HTTP/1.1", b"abc")
    assert {b"Host: 127.0.0.1:8080", b"Content-Length: 3", b"Authorization: Bearer k"} <= set(lines)
    assert request_of(Address("unix", path="/s"), "/p", {}, b"").split(b"\r\n")[1] == b"Host: localhost"
