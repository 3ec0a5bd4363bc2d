# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.subcommands.bench.load` against servers that do not answer as they should."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import pytest

from twisted_serve.subcommands.bench.load import Load, Plan, Target
from twisted_serve.subcommands.bench.report import Figures

pytestmark = pytest.mark.integration

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

#: Answers one request.
Serve: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


# The time in which anything that is going to happen has happened, on a busy machine.
LONG = 40.0

# Seconds of a load; a machine that is too busy for some answers in the first time has more.
WHILES = (0.4, 10.0)


def load(serve: Serve, rate: float | None = None, timeout: float = LONG, seconds: float = 0.4) -> tuple[Figures, int]:
    """Load a server for a while on two connections; return the figures, and how many connections there were."""
    connections: list[asyncio.Task[None] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                await reader.readuntil(b"\r\n\r\n")
                await serve(writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def run() -> Figures:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await Load(Plan(REQUEST, 2, seconds, 0.1, timeout, rate), Target("127.0.0.1", port)).run()
        finally:
            server.close()
            await asyncio.gather(*filter(None, connections))

    return asyncio.run(run()), len(connections)


async def answers(writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


async def closes(writer: asyncio.StreamWriter) -> None:
    writer.write(OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))
    writer.close()


async def hangs(_writer: asyncio.StreamWriter) -> None:
    """Never answer."""


async def breaks_off(writer: asyncio.StreamWriter) -> None:
    writer.write(OK[:-1])
    writer.close()


async def babbles(writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 smtp.example ESMTP\r\n\r\n")


async def takes_long(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.1)
    writer.write(OK)


def test_kept_open() -> None:
    """Connections are kept open; the warm-up is not counted."""
    for seconds in WHILES:
        began = time.monotonic()
        figures, opened = load(answers, seconds=seconds)
        whole = time.monotonic() - began
        assert seconds <= figures.seconds <= whole - 0.1
        if figures.answers > 20:
            break
    assert (figures.failed, opened) == (0, 2)
    assert figures.statuses[200] == figures.latencies.count > 20
    assert figures.received == len(OK) * figures.answers
    assert figures.sent == len(REQUEST) * figures.answers


def test_closed_after_each() -> None:
    """A server that closes each connection after its answer has not failed."""
    for seconds in WHILES:
        figures, opened = load(closes, seconds=seconds)
        if figures.answers > 5:
            break
    assert figures.failed == 0
    assert opened >= figures.answers > 5


@pytest.mark.parametrize(
    ("serve", "what", "timeout"),
    [
        (hangs, "not answered in time", 0.2),
        (breaks_off, "cut off", LONG),
        (babbles, "answered not in HTTP/1.1", LONG),
    ],
)
def test_failures(serve: Serve, what: str, timeout: float) -> None:
    """Requests without an answer are counted by what happened, and the load ends."""
    figures, _opened = load(serve, timeout=timeout)
    assert figures.answers == 0
    assert list(figures.failures) == [what]
    assert figures.failed == figures.failures[what] >= 2


def test_nothing_listens() -> None:
    """A server that has gone refuses connections."""
    # It is bound, so that no other server gets it meanwhile, and does not listen.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        figures = asyncio.run(Load(Plan(REQUEST, 2, 0.3, 0.0, LONG), Target("127.0.0.1", port)).run())
    assert list(figures.failures) == ["refused a connection"]


def test_too_slow_for_the_rate() -> None:
    """Of 40 requests two connections have had time for 8 or so: the others were not sent, and latencies grow."""
    figures, _opened = load(takes_long, rate=100)
    assert figures.answers + figures.overdue == 40
    assert figures.overdue > 20
    # From when a request was due, not from when a connection was free.
    assert figures.latencies.longest > 0.2
