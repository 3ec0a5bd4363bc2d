# SPDX-License-Identifier: Apache-2.0
"""Tests for many clients at once: each request is answered, and rightly."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

CONNECTIONS = 64
REQUESTS = 2000

ECHO = "def handle(data, context):\n    return data and [bytes(row['body']) for row in data]\n"


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with two workers."""
    # A turn in which a hundred clients are answered may take longer than one client's worst input.
    server = make_module_server({"echo": ECHO}, default_workers_per_model=2, debug_turn_limit_ms=0)
    return server.start("--models", "echo=echo")


async def client(server: Server, numbers: range) -> list[bytes]:
    """Send requests one after the other over one connection, and return what was not as it should be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.ports["inference"])
    head = server.head("POST", "/predictions/echo", "Content-Length: 8")
    wrong = []
    for number in numbers:
        body = b"%08d" % number
        writer.write(head + body)
        answered = await reader.readuntil(b"\r\n\r\n")
        answer = await reader.readexactly(int(re.findall(rb"(?i)content-length: (\d+)", answered)[0]))
        if not answered.startswith(b"HTTP/1.1 200 ") or answer != body:
            wrong.append(answered + answer)
    writer.close()
    await writer.wait_closed()
    return wrong


def test_each_gets_its_own(server: Server) -> None:
    """2000 requests over 64 connections, with a token: none fails, and none gets another's answer."""

    async def all_clients() -> list[list[bytes]]:
        shares = [range(first, REQUESTS, CONNECTIONS) for first in range(CONNECTIONS)]
        return await asyncio.wait_for(asyncio.gather(*(client(server, share) for share in shares)), 60)

    assert asyncio.run(all_clients()) == [[]] * CONNECTIONS


def test_wrk(server: Server) -> None:
    """As fast as ``wrk`` can over 64 connections, with a token: none fails, and nothing is left open."""
    wrk = shutil.which("wrk")
    if wrk is None:
        pytest.skip("wrk is not installed")
    words = [wrk, "-t", "2", "-c", str(CONNECTIONS), "-d", "2s", "--timeout", "30s"]
    words += ["-H", f"Authorization: Bearer {server.keys()['inference']}"]
    url = f"http://127.0.0.1:{server.ports['inference']}/predictions/echo"
    report = subprocess.run([*words, url], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Non-2xx" not in report, report
    assert "Socket errors" not in report, report
    (requests,) = re.findall(r"(\d+) requests in", report)
    assert int(requests) > CONNECTIONS
    front = psutil.Process(server.pid)
    server.until(lambda: not any(c.status == "ESTABLISHED" for c in front.net_connections("tcp")), "the end", 10)
