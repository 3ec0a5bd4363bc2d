# SPDX-License-Identifier: Apache-2.0
"""Tests for clients that vanish, do not read, send slowly, or are very many: nobody else is any the worse."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.faults.world import (
    HANDLER,
    LONG,
    MIB,
    Belongings,
    ask,
    begin,
    describe,
    nothing_leaks,
    receive_all,
    receive_answer,
    request,
    reset,
)

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

IDLE = 10_000
# What else a process has open.
OTHERS = 500


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with one worker and a long queue; connections may be idle for long."""
    # A turn in which ten thousand clients leave may take longer than one client's worst input.
    longer = {"keepalive_timeout": 900, "header_timeout": 900, "debug_turn_limit_ms": 0}
    server = make_module_server({"m": HANDLER}, job_queue_size=1000, **longer)
    return server.start("--models", "m=m")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Give the name of a file that is not there."""
    return tmp_path / "mark"


@contextmanager
def many_descriptors() -> Iterator[int]:
    """Have as many descriptors as the system lets us, as the server does by itself; give their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = IDLE + OTHERS if hard == resource.RLIM_INFINITY else min(hard, IDLE + OTHERS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield max(soft, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_200_vanish(server: Server, mark: Path) -> None:
    """Of 200 clients that vanish in the middle of a request, in all manners, nothing is left, their work included."""
    go = mark.with_name("go")
    with nothing_leaks(server), begin(server, f"hold({str(mark)!r}, {str(go)!r})") as busy:
        server.until(mark.exists, "the worker to be busy", LONG)
        never = mark.with_name("never")
        code = f"open({str(never)!r}, 'w').close()"
        whole = request(server, code)
        for number in range(200):
            client = server.connect()
            # A quarter each: no byte of the body, half of it, all of it and a RST, all of it and a FIN.
            client.sendall((whole[: -len(code)], whole[: -len(code) // 2], whole, whole)[number % 4])
            if number % 4 == 3:
                client.close()
            else:
                reset(client)
        # A connection that came after theirs is served: the server has accepted all of them.
        assert server.curl("inference", "/livez").status == 200
        server.until(lambda: describe(server)["jobQueueStatus"]["pendingRequests"] == 0, "them to be missed", LONG)
        go.touch()
        assert receive_answer(busy)[0] == 200
        assert ask(server, "'well'").body == b"well"
        assert not never.exists()


def test_reset_in_stream(server: Server, mark: Path) -> None:
    """A client that resets its connection in the middle of a stream frees the worker: the handler hears of it."""
    with nothing_leaks(server):
        client = begin(server, f"stream(context, {str(mark)!r}, 6000, 0.01)")
        received = b""
        while b"chunk 3;" not in received:
            data = client.recv(1 << 16)
            assert data, received
            received += data
        reset(client)
        server.until(mark.exists, "the handler to hear of it", LONG)


def test_half_closed_stream(server: Server, mark: Path) -> None:
    """A client that closes its side after its request is taken for one that has gone, or gets all; it does not hang."""
    with nothing_leaks(server), begin(server, f"stream(context, {str(mark)!r}, 20, 0.01)") as client:
        client.shutdown(socket.SHUT_WR)
        received = receive_all(client)
        if received and not received.endswith(b"0\r\n\r\n"):
            server.until(mark.exists, "the handler to hear of it", LONG)


def test_slow_readers(server: Server) -> None:
    """Clients that leave large answers for a while keep nobody else waiting, and get all of it when they read on."""
    size = 4 * MIB
    with nothing_leaks(server, memory=128 * MIB), ExitStack() as stack:
        clients = [stack.enter_context(begin(server, f"b'x' * {size}")) for _ in range(8)]
        for number in range(5):
            assert ask(server, str(number)).body == b"%d" % number
        for client in clients:
            status, body = receive_answer(client)
            assert (status, len(body)) == (200, size)


def test_slow_writers(server: Server) -> None:
    """Clients that send byte by byte keep nobody else waiting, and are answered when they have come to an end."""
    with nothing_leaks(server), ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(50)]
        whole = request(server, "'slow'")
        for at in range(len(whole) - 1):
            for client in clients:
                client.sendall(whole[at : at + 1])
            if at % 60 == 0:
                assert ask(server, "'quick'").body == b"quick"
        for client in clients:
            client.sendall(whole[-1:])
        for client in clients:
            assert receive_answer(client) == (200, b"slow")


def test_10000_idle(server: Server) -> None:
    """With 10000 connections open that say nothing, requests are answered; each of the 10000 may ask, too."""
    with many_descriptors() as most:
        if most < IDLE + OTHERS:
            pytest.skip(f"a process may have {most} descriptors open here; this needs {IDLE + OTHERS}")
        before = Belongings.of(server)
        # What is needed for a connection stays with the allocator when it goes.
        with nothing_leaks(server, memory=100 * MIB), ExitStack() as stack:
            idle = [stack.enter_context(server.connect()) for _ in range(IDLE)]
            server.until(lambda: Belongings.of(server).descriptors >= before.descriptors + IDLE, "all of them", LONG)
            for number in range(10):
                assert ask(server, str(number)).body == b"%d" % number
            assert Belongings.of(server).memory - before.memory < IDLE * 8 * 1024
            for client in idle[:: IDLE // 100]:
                client.sendall(request(server, "'awake'"))
                assert receive_answer(client) == (200, b"awake")
