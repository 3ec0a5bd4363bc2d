# SPDX-License-Identifier: Apache-2.0
"""Tests for what becomes of processes that a handler starts: they end with their worker, however that ends."""

from __future__ import annotations

import os
from contextlib import suppress
from signal import SIGKILL
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Starts processes in every way, says their numbers, and does what it is asked to.
PARENT = """
import os, signal, subprocess, time

started = []

def forked(*steps):
    pid = os.fork()
    if pid == 0:
        for step in steps:
            step()
        time.sleep(600)
        os._exit(0)
    return pid

def daemon():
    reading, writing = os.pipe()
    def leave():
        pid = forked(os.setsid)
        os.write(writing, str(pid).encode())
        os._exit(0)
    pid = forked(leave)
    os.waitpid(pid, 0)
    return int(os.read(reading, 100))

def handle(data, context):
    if data is None:
        return None
    if not started:
        started.append(forked())
        started.append(forked(lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)))
        started.append(subprocess.Popen(["sleep", "600"]).pid)
        started.append(subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600"]).pid)
        started.append(forked(os.setsid))
        started.append(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
        started.append(daemon())
    body = bytes(data[0]["body"])
    if body == b"exit":
        os._exit(1)
    if body == b"sleep":
        time.sleep(600)
    return [" ".join(map(str, started))]
"""

# Of what the handler starts: all that has a session of its own, and all that has lost its parent besides.
SESSIONS, DAEMONS = 4, 6


def start(make_server: MakeServer, how: str, seconds: int = 120) -> tuple[Server, list[int]]:
    """Start a server whose one worker, which has so many seconds, has started processes; return their numbers."""
    server = make_server(
        {"parent": PARENT}, worker_start=how, default_response_timeout=seconds, enable_model_api="true"
    )
    server.start("--models", "parent=parent")
    return server, [int(number) for number in server.predict("parent", b"who").body.split()]


def end(processes: list[int]) -> None:
    """Leave none behind, whatever the test has found."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, SIGKILL)


def gone(server: Server, processes: list[int]) -> None:
    """Wait until processes are gone."""
    server.until(lambda: not any(map(server.alive, processes)), "the handler's processes to end", 15)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_leaves(make_server: MakeServer, how: str) -> None:
    """A worker that is not wanted any more takes all with it but daemons; those end with the server."""
    server, started = start(make_server, how)
    try:
        assert server.curl("management", "/models/parent", "-X", "DELETE", key="management").status == 200
        gone(server, started[:DAEMONS])
        assert server.stop() == 0
        if how == "fork":
            gone(server, started[DAEMONS:])
    finally:
        end(started)


@pytest.mark.parametrize(
    ("how", "ends"), [("fork", "too long"), ("spawn", "too long"), ("fork", "exit"), ("spawn", "killed")]
)
def test_ends(make_server: MakeServer, how: str, ends: str) -> None:
    """A worker that is stuck takes all with it that it can be known to have started; one that dies its group."""
    # On a busy machine it takes seconds to start the processes.
    server, started = start(make_server, how, 6 if ends == "too long" else 120)
    try:
        if ends == "killed":
            os.kill(psutil.Process(started[0]).ppid(), SIGKILL)
        else:
            assert server.predict("parent", b"sleep" if ends == "too long" else b"exit").status >= 500
        gone(server, started[: DAEMONS if ends == "too long" else SESSIONS])
        assert server.stop() == 0
        if how == "fork":
            gone(server, started)
    finally:
        end(started)


def test_server_killed(make_server: MakeServer) -> None:
    """When the server is killed, its templates end all that was started below them."""
    server, started = start(make_server, "fork")
    try:
        server.stop(SIGKILL)
        gone(server, started)
    finally:
        end(started)
