# SPDX-License-Identifier: Apache-2.0
"""Tests for what a server makes of signals, however it was started: the table in ``docs/deployment.md``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

TWISTD = str(Path(sys.executable).with_name("twistd"))

# Answers when a file is there, and says by another one that it has begun.
SLOW = """
import os, time

def handle(data, context):
    if data is None:
        return None
    place = bytes(data[0]["body"]).decode()
    open(place + "/begun", "w").close()
    while not os.path.exists(place + "/go"):
        time.sleep(0.02)
    return ["answered"]
"""


def to_process(server: Server, number: signal.Signals) -> None:
    """Signal the server alone."""
    os.kill(server.pid, number)


def to_group(server: Server, number: signal.Signals) -> None:
    """Signal the process group, as a terminal does."""
    os.killpg(os.getpgid(server.pid), number)


def to_each(server: Server, number: signal.Signals) -> None:
    """Signal every process, as ``systemd`` does, the server last."""
    for pid in [*server.workers(), *server.templates(), server.pid]:
        os.kill(pid, number)


def start(server: Server, how: str) -> None:
    """Start a server in one of the ways."""
    words = ["--models", "slow=slow"]
    if how == "foreground":
        server.start(*words, new_session=True)
    elif how == "start":
        assert server.start_in_background(*words) == 0
        server.learn_ports()
    else:
        command = [TWISTD, "--nodaemon", "--pidfile=", "twisted-serve", "--ncs", "--model-store", str(server.store)]
        server.start(command=[*command, *words], new_session=True)


def during_a_request(server: Server, send: Callable[[], None]) -> bytes:
    """Signal while a worker is at a request, and return what the client gets."""
    for name in ("begun", "go"):
        (server.temp / name).unlink(missing_ok=True)
    with server.ask("slow", str(server.temp)) as client:
        server.until((server.temp / "begun").exists, "the handler to begin")
        send()
        # What is going to end by it, and should not, has ended then.
        time.sleep(0.3)
        (server.temp / "go").touch()
        return server.read_until(client, b"answered")


@pytest.mark.parametrize("workers", ["fork", "spawn"])
@pytest.mark.parametrize("send", [to_process, to_group, to_each])
def test_group(make_server: MakeServer, workers: str, send: Callable[[Server, signal.Signals], None]) -> None:
    """SIGHUP ends nothing; SIGTERM and SIGINT end a server in order: what was asked is answered, nothing is left."""
    server = make_server({"slow": SLOW}, worker_start=workers)
    start(server, "foreground")
    before = [*server.workers(), *server.templates()]
    assert during_a_request(server, lambda: send(server, SIGHUP)).startswith(b"HTTP/1.1 200 ")
    assert [*server.workers(), *server.templates()] == before
    number = SIGINT if send is to_group else SIGTERM
    assert during_a_request(server, lambda: send(server, number)).startswith(b"HTTP/1.1 200 ")
    assert server.front is not None
    assert server.front.wait(40) == 0
    assert [server.alive(pid) for pid in before] == [False] * len(before)
    server.assert_clean()
