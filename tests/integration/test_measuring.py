# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted-serve bench`` and ``top``, with a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import COMMAND, ECHO, LONG

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

FAILING = """
def handle(data, context):
    if data is not None:
        raise ValueError("never")
"""


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Iterator[Server]:
    """Make a server with a model that answers and one that fails."""
    server = make_module_server({"echo": ECHO, "failing": FAILING})
    server.start("--models", "echo=echo,failing=failing")
    (server.cwd / "body.bin").write_text("x" * 1000)
    yield server
    assert server.stop() == 0


def run(server: Server, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *words],
        cwd=server.cwd,
        env={**server.environ, **environ},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def bench(server: Server, *words: str, role: str = "inference") -> tuple[int, dict[str, Any]]:
    done = run(
        server,
        "bench",
        *words,
        "--json",
        TS_URL=f"http://127.0.0.1:{server.ports[role]}",
        TS_KEY=server.keys()["inference"],
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def test_bench(server: Server) -> None:
    """A load keeps its connections open, counts answers and bytes, and has nothing to complain of."""
    status, shown = bench(server, "echo", "body.bin", "-d", "0.4", "-c", "3")
    assert (status, shown["failed"], shown["failures"]) == (0, 0, {})
    assert shown["statuses"] == {"200": shown["requests"]}
    assert shown["requests"] > 20
    assert shown["bytesReceived"] > 1000 * shown["requests"]
    latency = shown["latency"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"] < LONG
    assert 0 < shown["clientProcessor"] < 1.5


def test_rate(server: Server) -> None:
    """With a rate so many requests are sent, or are counted as not sent."""
    status, shown = bench(server, "echo", "body.bin", "-d", "0.5", "--rate", "40")
    assert shown["requests"] + shown["notSent"] == 20
    assert status == (1 if shown["failed"] else 0)


def test_failures(server: Server) -> None:
    """A model that fails, or is not there, a wrong key and no server are told by the status and in one sentence."""
    status, shown = bench(server, "failing", "body.bin", "-d", "0.2")
    assert (status, shown["error"]) == (1, "Error: Prediction failed: ValueError: never (handler.py, line 4)\n")
    assert bench(server, "ecko", "body.bin") == (1, {"error": "Error: Model not found: ecko\n"})
    wrong = run(
        server, "bench", "echo", "body.bin", TS_URL=f"http://127.0.0.1:{server.ports['inference']}", TS_KEY="wrong"
    )
    assert wrong.returncode == 4
    assert len(wrong.stderr.splitlines()) == 1
    none = run(server, "bench", "echo", "body.bin", TS_URL="http://127.0.0.1:9", TS_KEY="x")
    assert none.returncode == 3
    assert run(server, "bench", "echo", "gone.txt").returncode == 2


def test_top(server: Server) -> None:
    """One table of one interval: what was asked is counted, and the server's processor, memory and keys are there."""
    done = run(server, "top", "--json", "--interval", "0.3", "--pid", str(server.pid))
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    echo = next(each for each in shown["models"] if each["modelName"] == "echo")
    assert (echo["workersReady"], echo["minWorkers"], echo["maxWorkers"]) == (1, 1, 1)
    assert echo["memory"] > 1 << 20
    assert 0 <= shown["server"]["processor"] < 1.5
    assert set(shown["server"]["tokenSecondsLeft"]) == {"inference", "management"}
    # Standard output is no terminal: one table, and no sequence that controls one.
    done = run(server, "top", "--interval", "0.2", "--pid", str(server.pid))
    assert (done.returncode, done.stdout.count("\x1b")) == (0, 0)
    assert [line.split()[:3] for line in done.stdout.splitlines()[2:]] == [
        ["echo", "1.0", "1/1"],
        ["failing", "1.0", "1/1"],
    ]
    assert run(server, "top", TS_URL="http://127.0.0.1:9", TS_KEY="x").returncode == 3
