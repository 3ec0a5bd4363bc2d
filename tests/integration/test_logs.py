# SPDX-License-Identifier: Apache-2.0
"""Tests for the log files and the metrics of a server that runs, with a worker that does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    context.metrics.add_counter("Cats", 2)
    print("I was asked")
    return ["ok"]
"""


def read(server: Server, name: str) -> str:
    """Read a log file."""
    return (server.cwd / "logs" / name).read_text()


def test_files(make_server: MakeServer) -> None:
    """Each of the five files has what belongs there; the console and ``ts_log.log`` have everything; none has a key."""
    server = make_server({"m": HANDLER}, model_metrics_auto_detect="true")
    server.start("--models", "m=m")
    keys = set(server.keys().values())
    key = server.keys()["inference"]
    assert server.predict("m", b"x", "-H", "x-request-id: my-request").status == 200
    assert server.predict("m", b"x", "-H", f"x-request-id: {key}").status == 200
    server.until(lambda: read(server, "model_metrics.log").count("Cats.Count:2.0|#") == 2, "the handler's metrics")
    assert server.stop() == 0
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
    access = read(server, "access_log.log")
    assert re.search(rf'(?m)^{moment} - /127.0.0.1:\d+ "POST /predictions/m HTTP/1.1" 200 \d+ my-request$', access)
    assert re.search(
        rf"(?m)^{moment} \[INFO \] W-\d+-m_1.0-stdout MODEL_LOG - I was asked$", read(server, "model_log.log")
    )
    metrics = read(server, "ts_metrics.log")
    for name in ("Requests2XX.Count:1.0", "QueueTime.Milliseconds:", "WorkerLoadTime.Milliseconds:", "CPUUtilization"):
        assert re.search(rf"(?m)^{moment} - {re.escape(name)}", metrics), name
    assert re.search(
        rf"(?m)^{moment} - PredictionTime.ms:[\d.]+\|#ModelName:m,Level:Model\|#hostname:[^,]+,"
        r"requestID:my-request\.[0-9a-f]{16},timestamp:\d+$",
        read(server, "model_metrics.log"),
    )
    everything = read(server, "ts_log.log")
    for said in (
        "Torchserve version: 0.12.0",
        "Loading initial models: m",
        "State change WORKER_STARTED -> WORKER_MODEL_LOADED",
        "Torch worker started.",
        "Model m loaded.",
        "I was asked",
        "PredictionTime.ms:",
        "Torchserve stopped.",
    ):
        assert said in everything
        assert said in server.log()
    for file in (server.cwd / "logs").iterdir():
        assert file.stat().st_mode & 0o007 == 0
        assert not any(key in file.read_text() for key in keys)


def test_prometheus_and_no_files(make_server: MakeServer) -> None:
    """Without files nothing is left in the directory; in the other mode the metrics are where Prometheus reads them."""
    server = make_server({"m": HANDLER}, metrics_mode="prometheus", model_metrics_auto_detect="true", log_files="false")
    server.start("--models", "m=m")
    assert server.predict("m", b"x").status == 200

    def scraped() -> bool:
        text = server.curl("metrics", "/metrics").body.decode()
        return re.search(r'Cats\{ModelName="m",Level="Model",Hostname=".+",\} 2\.0', text) is not None

    server.until(scraped, "the handler's metric")
    text = server.curl("metrics", "/metrics?name[]=Requests2XX").body.decode()
    assert re.search(r'Requests2XX\{Level="Host",Hostname=".+",\} \d+\.\d+', text)
    assert server.stop() == 0
    assert not (server.cwd / "logs").exists()


# Answers when a file is there, and says by another one that it has begun.
SLOW = """
import os, time
def handle(data, context):
    if data is not None:
        open("begun", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.02)
        return ["ok"]
"""


def test_abandoned(make_server: MakeServer) -> None:
    """A client that leaves before it is answered leaves a line with its request id, once, and none after an answer."""
    server = make_server({"m": SLOW})
    server.start("--models", "m=m")
    with server.connect() as client:
        client.sendall(server.head("POST", "/predictions/m", "Content-Length: 1", "X-Request-Id: gone-1") + b"x")
        server.until((server.store / "m" / "begun").exists, "the handler to begin")
    server.until(lambda: len(lines_of(server, "gone-1")) > 0, "the line of the client that left")
    (server.store / "m" / "go").touch()
    with server.connect() as client:
        client.sendall(server.head("POST", "/predictions/m", "Content-Length: 1", "X-Request-Id: there-1") + b"x")
        server.read_until(client, b"ok")
    server.until(lambda: len(lines_of(server, "there-1")) > 0, "the line of the answer")
    [line] = lines_of(server, "gone-1")
    assert re.search(r"POST /predictions/m HTTP/1\.1\W+ 499 \d+ gone-1", line)
    [line] = lines_of(server, "there-1")
    assert re.search(r"POST /predictions/m HTTP/1\.1\W+ 200 \d+ there-1", line)


def lines_of(server: Server, request_id: str) -> list[str]:
    """Return the lines of the access log for a request."""
    return [line for line in server.log().splitlines() if request_id in line and "POST" in line]
