# SPDX-License-Identifier: Apache-2.0
"""
Schedule requests in advance and send each at its moment: an open load.

A closed loop asks less of a server that answers late. An open load does not,
and counts latency from the scheduled moment, however late the request was sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from attrs import field, frozen

# The most requests that are in flight at a time; a server that falls further behind makes the rest wait, which counts.
MOST_IN_FLIGHT = 512

# Seconds after which a request without an answer has failed.
_LIMIT = 30.0

# What the client sees when the connection fails.
BROKEN = 0


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """
    Return the moments, in seconds, of ``count`` independent arrivals.

    :raise ValueError: for a rate or a number that makes no load.
    """
    return bursts(rate, count, 1, 0.0, seed)


def bursts(rate: float, count: int, size: int, spread: float, seed: int) -> list[float]:
    """
    Return the moments, in seconds, of ``count`` arrivals in independent bursts of ``size``.

    :param rate: Arrivals per second, over all bursts.
    :param spread: Seconds from one arrival of a burst to the next, on average.
    :raise ValueError: for numbers that make no load.
    """
    if not (rate > 0 and count >= 0 and size >= 1 and spread >= 0):
        raise ValueError(
            f"{count} arrivals, {rate} each second, in bursts of {size} over {spread} seconds make no load"
        )
    generator = random.Random(seed)
    moments: list[float] = []
    begin = 0.0
    while len(moments) < count:
        begin += generator.expovariate(rate / size)
        moment = begin
        for position in range(min(size, count - len(moments))):
            moment += generator.expovariate(1 / spread) if position and spread else 0.0
            moments.append(moment)
    return sorted(moments)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all do not exceed; 0 for no values."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))] if ordered else 0.0


@frozen
class Outcome:
    """
    What became of the requests of a schedule.

    :ivar seconds: From the first scheduled moment to the last answer.
    :ivar latencies: Seconds from the scheduled moment to a good answer.
    :ivar statuses: The number of answers of each other status; `BROKEN` for none.
    """

    seconds: float
    latencies: list[float] = field(repr=False)
    statuses: dict[int, int]

    @property
    def requests(self) -> int:
        """The number of requests."""
        return len(self.latencies) + sum(self.statuses.values())

    def milliseconds(self, share: float) -> float:
        """Return a quantile of the latencies, in milliseconds."""
        return round(quantile(self.latencies, share) * 1e3, 3)


class _Sender:
    """Send requests over as many connections as are in flight, which are kept."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self._host = host
        self._port = port
        self._request = request
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._places = asyncio.Semaphore(MOST_IN_FLIGHT)
        self.latencies: list[float] = []
        self.statuses: dict[int, int] = {}

    async def send(self, due: float) -> None:
        """Send one request and note when its answer has come."""
        loop = asyncio.get_running_loop()
        async with self._places:
            status = BROKEN
            with suppress(OSError, ValueError, EOFError, asyncio.TimeoutError):
                status = await asyncio.wait_for(self._ask(), _LIMIT)
        if status == 200:
            self.latencies.append(loop.time() - due)
        else:
            self.statuses[status] = self.statuses.get(status, 0) + 1

    async def _ask(self) -> int:
        reader, writer = (
            self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port, limit=1 << 20)
        )
        keep = False
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            keep = b"connection: close" not in head
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        """Close all connections."""
        for _reader, writer in self._idle:
            writer.close()


def render(path: str, host: str, headers: dict[str, str], body: bytes) -> bytes:
    """Return the bytes of a POST request."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _send_all(host: str, port: int, request: bytes, moments: Sequence[float]) -> Outcome:
    loop = asyncio.get_running_loop()
    sender = _Sender(host, port, request)
    begun = loop.time()
    tasks: list[asyncio.Task[None]] = []
    for moment in moments:
        await asyncio.sleep(max(0.0, begun + moment - loop.time()))
        tasks.append(asyncio.ensure_future(sender.send(begun + moment)))
    await asyncio.gather(*tasks)
    ended = loop.time()
    sender.close()
    return Outcome(ended - begun, sender.latencies, sender.statuses)


def send(host: str, port: int, request: bytes, moments: Sequence[float]) -> Outcome:
    """Send ``request`` at each of ``moments``, in seconds from now, and return what came of it."""
    return asyncio.run(_send_all(host, port, request, moments))
