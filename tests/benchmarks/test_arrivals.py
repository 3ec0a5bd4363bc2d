# SPDX-License-Identifier: Apache-2.0
"""Tests for open loads."""

from __future__ import annotations

import socket
import threading
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists

from benchmarks.arrivals import BROKEN, bursts, poisson, quantile, render, send

rates = floats(0.1, 1000)


@given(rates, integers(0, 200), integers(1, 10), floats(0, 0.1), integers(0, 1000))
def test_schedules(rate: float, count: int, size: int, spread: float, seed: int) -> None:
    """A schedule has as many moments as were asked for, in order, and is the same for the same seed."""
    moments = bursts(rate, count, size, spread, seed)
    assert len(moments) == count
    assert moments == sorted(moments)
    assert all(moment > 0 for moment in moments)
    assert moments == bursts(rate, count, size, spread, seed)


@given(rates, integers(0, 1000))
def test_rate_and_scatter(rate: float, seed: int) -> None:
    """Single arrivals come at their rate, and their gaps scatter as those of a Poisson process do."""
    moments = poisson(rate, 4000, seed)
    gaps = [after - before for before, after in pairwise(moments)]
    assert mean(gaps) * rate == pytest.approx(1.0, rel=0.1)
    assert mean(gap * gap for gap in gaps) * rate * rate == pytest.approx(2.0, rel=0.4)


@given(rates, integers(2, 8), integers(0, 1000))
def test_bursts_keep_the_rate(rate: float, size: int, seed: int) -> None:
    """Arrivals in bursts are together as many each second; without a spread a burst is one moment."""
    moments = bursts(rate, 1000 * size, size, 0.0, seed)
    assert len(moments) / moments[-1] == pytest.approx(rate, rel=0.2)
    assert len(set(moments)) == 1000


@pytest.mark.parametrize("numbers", [(0.0, 1, 1, 0.0), (1.0, -1, 1, 0.0), (1.0, 1, 0, 0.0), (1.0, 1, 1, -1.0)])
def test_no_load(numbers: tuple[float, int, int, float]) -> None:
    """Numbers that make no load are refused."""
    with pytest.raises(ValueError, match="make no load"):
        bursts(*numbers, 0)


@given(lists(floats(0, 10), min_size=1), floats(0, 1))
def test_quantiles(values: list[float], share: float) -> None:
    """A quantile is a value that at least the share of all do not exceed, and the smallest of that kind."""
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) <= share * len(values) + 1e-6
    assert quantile([], share) == 0.0


@pytest.mark.integration
def test_latency_counts_from_the_schedule() -> None:
    """A server that stands still makes all late that was due meanwhile; a connection that just ends is no answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    request = render("/p", "h", {}, b"x")
    go = threading.Event()

    def answer(connection: socket.socket, reply: bytes) -> None:
        with connection:
            connection.recv(1000)
            go.wait(10)
            connection.sendall(reply)

    def serve() -> None:
        replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"] * 3
        replies += [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b""]
        threads = [threading.Thread(target=answer, args=(listener.accept()[0], reply)) for reply in replies]
        for thread in threads:
            thread.start()
        go.set()
        for thread in threads:
            thread.join(10)

    server = threading.Thread(target=serve)
    server.start()
    try:
        outcome = send("127.0.0.1", listener.getsockname()[1], request, [0.0, 0.0, 0.0, 0.0, 0.3])
    finally:
        server.join(10)
        listener.close()
    assert len(outcome.latencies) == 3
    assert min(outcome.latencies) >= 0.25
    assert outcome.statuses == {503: 1, BROKEN: 1}
    assert outcome.requests == 5
    assert outcome.milliseconds(1.0) >= 250
