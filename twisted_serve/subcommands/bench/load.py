# SPDX-License-Identifier: Apache-2.0
"""
Send the same request on several connections that are kept open, and measure.

The client has one thread and parses nothing but heads, to leave the processor to the server.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import cast

from attrs import define, field, frozen

from twisted_serve.subcommands.bench.answers import Answers, BadAnswerError, Ended
from twisted_serve.subcommands.bench.latencies import Latencies
from twisted_serve.subcommands.bench.pace import Pace
from twisted_serve.subcommands.bench.report import Figures

# Seconds before a connection that was refused or lost is opened again.
_AGAIN = 0.1


@frozen
class Target:
    """
    Where requests go.

    :ivar host: The host, or with ``path`` nothing.
    :ivar path: The path of a Unix socket.
    """

    host: str = ""
    port: int = 0
    path: str | None = None
    tls: ssl.SSLContext | None = None

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        """
        Open a connection.

        :raise OSError: if there is none.
        """
        loop = asyncio.get_running_loop()
        if self.path is not None:
            return (await loop.create_unix_connection(make, self.path))[1]
        return (await loop.create_connection(make, self.host, self.port, ssl=self.tls))[1]


@frozen
class Plan:
    """
    A load.

    :ivar request: The whole request, head and body.
    :ivar rate: Requests a second; ``None`` for as many as are answered.
    :ivar warm_up: Seconds that are not counted.
    :ivar timeout: Seconds for an answer.
    """

    request: bytes
    connections: int
    seconds: float
    warm_up: float
    timeout: float
    rate: float | None = None


@define
class Counts:
    """What is counted; the warm-up's is thrown away."""

    latencies: Latencies = field(factory=Latencies)
    statuses: Counter[int] = field(factory=Counter)
    failures: Counter[str] = field(factory=Counter)
    sent: int = 0
    received: int = 0


class Connection(asyncio.Protocol):
    """
    A connection with at most one request.

    :ivar lost: Whether it takes no further request.
    :ivar asked: When its request was sent, in seconds.
    """

    def __init__(self, received: Callable[[int], None]) -> None:
        self.lost = False
        self.asked = 0.0
        self._received = received
        self._answers = Answers()
        self._waiting: asyncio.Future[Ended] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer."""
        self._received(len(data))
        try:
            for ended in self._answers.feed(data):
                self._settle(ended)
        except BadAnswerError as e:
            self._fail(e)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take an answer that ends with the connection, or fail the request."""
        ended = self._answers.end()
        if ended is not None:
            self._settle(ended)
        self._fail(exc or ConnectionResetError("the server has closed the connection"))

    def ask(self, request: bytes, now: float) -> Awaitable[Ended]:
        """
        Send a request.

        :return: The answer; it raises `OSError` or `BadAnswerError`.
        """
        self.asked = now
        self._waiting = asyncio.get_running_loop().create_future()
        if self._transport is not None:
            self._transport.write(request)
        return self._waiting

    def expire(self, before: float) -> None:
        """Fail a request that was sent before a time."""
        if self._waiting is not None and self.asked < before:
            self._fail(TimeoutError())

    def close(self) -> None:
        """Close the connection."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def _settle(self, ended: Ended) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or not ended.keeps:
            self.close()
        if waiting is not None and not waiting.done():
            waiting.set_result(ended)

    def _fail(self, error: Exception) -> None:
        self.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)


class Load:
    """One run of a plan."""

    def __init__(self, plan: Plan, target: Target) -> None:
        self._plan = plan
        self._target = target
        self._counts = Counts()
        self._pace = Pace(plan.rate, 0.0)
        self._turn = asyncio.Lock()
        self._end = 0.0

    async def run(self) -> Figures:
        """Warm up, measure, and wait for the last answers."""
        plan = self._plan
        connections: list[Connection | None] = [None] * plan.connections
        expiring = asyncio.create_task(self._expire(connections))
        if plan.warm_up:
            await self._spend(plan.warm_up, connections)
        self._counts = Counts()
        began, processor = time.monotonic(), time.process_time()
        overdue = await self._spend(plan.seconds, connections)
        seconds, processor = time.monotonic() - began, time.process_time() - processor
        expiring.cancel()
        for each in connections:
            if each is not None:
                each.close()
        counts = self._counts
        return Figures(
            plan.connections,
            plan.rate,
            max(seconds, plan.seconds),
            counts.latencies,
            counts.statuses,
            counts.failures,
            overdue,
            counts.sent,
            counts.received,
            processor,
        )

    async def _spend(self, seconds: float, connections: list[Connection | None]) -> int:
        """Send requests for so long, and return how many were due and not sent."""
        now = time.monotonic()
        self._pace, self._end = Pace(self._plan.rate, now), now + seconds
        await asyncio.gather(*(self._use(connections, number) for number in range(len(connections))))
        return self._pace.overdue(self._end - 1e-9)

    async def _use(self, connections: list[Connection | None], number: int) -> None:
        """Send requests on one connection until the end, and open it again when it is lost."""
        while (due := await self._next()) is not None:
            connection = connections[number]
            try:
                if connection is None or connection.lost:
                    connection = await asyncio.wait_for(
                        self._target.connect(lambda: Connection(self._count_received)), self._plan.timeout
                    )
                    connections[number] = connection
                self._counts.sent += len(self._plan.request)
                ended = await connection.ask(self._plan.request, time.monotonic())
            except (OSError, BadAnswerError, asyncio.TimeoutError) as e:
                self._counts.failures[_named(e)] += 1
                await asyncio.sleep(min(_AGAIN, max(0.0, self._end - time.monotonic())))
                continue
            self._counts.latencies.add(time.monotonic() - due)
            self._counts.statuses[ended.status] += 1

    async def _next(self) -> float | None:
        """Wait until a request is due, and return when it was; ``None`` at the end."""
        # One connection waits for the time, the others for their turn.
        async with self._turn:
            while (now := time.monotonic()) < self._end:
                if (due := self._pace.take(now)) is not None:
                    return due
                await asyncio.sleep(min(self._pace.next_due(), self._end) - now)
        return None

    async def _expire(self, connections: list[Connection | None]) -> None:
        """Fail requests that are not answered in time."""
        while True:
            await asyncio.sleep(min(0.25, self._plan.timeout / 4))
            before = time.monotonic() - self._plan.timeout
            for each in connections:
                if each is not None:
                    each.expire(before)

    def _count_received(self, count: int) -> None:
        self._counts.received += count


def _named(error: Exception) -> str:
    """Return what happened to a request."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return "not answered in time"
    if isinstance(error, ConnectionRefusedError):
        return "refused a connection"
    if isinstance(error, BadAnswerError):
        return "answered not in HTTP/1.1"
    if isinstance(error, ConnectionError):
        return "cut off"
    return "without a connection"
