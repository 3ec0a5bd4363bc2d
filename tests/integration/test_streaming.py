# SPDX-License-Identifier: Apache-2.0
"""Tests for streamed answers over real sockets from real workers, to clients that read and clients that do not."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

MIB = 1 << 20

# ``flood`` sends megabytes as fast as it may and notes how far it has come; ``words`` waits for the file ``go``.
HANDLER = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data is None:
        return None
    what, _, argument = bytes(data[0]["body"]).decode().partition(" ")
    return [globals()[what](context, argument)]

def send_text(context, text):
    send([text], context.request_ids, "", 200, context)

def flood(context, path):
    for number in range(64):
        if context.is_cancelled(0):
            break
        send_text(context, b"x" * 999_999 + b"\\n")
        with open(path, "a") as note:
            note.write("sent\\n")
    with open(path, "a") as note:
        note.write("left\\n" if context.is_cancelled(0) else "end\\n")
    return "end"

def words(context, path):
    send_text(context, "first ")
    while not os.path.exists(path):
        time.sleep(0.02)
    send_text(context, "second ")
    return "last"

def breaks(context, argument):
    send_text(context, "first ")
    raise ValueError("in mid-stream")

def quick(context, argument):
    return "quick"
"""


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with two models of one worker each."""
    return start(make_module_server)


def start(make: MakeServer, **properties: object) -> Server:
    models = {"streams": HANDLER, "other": HANDLER}
    return make(models, **properties).start("--models", *(f"{name}={name}" for name in models))


def read_all(client: socket.socket) -> bytes:
    received = b""
    try:
        while data := client.recv(1 << 20):
            received += data
    except ConnectionError:
        pass
    return received


def test_first_before_the_end(server: Server) -> None:
    """The first chunk is there while the handler is still at work; the last one ends the answer."""
    go = server.cwd / "go"
    with server.ask("streams", f"words {go}") as client:
        received = server.read_until(client, b"6\r\nfirst \r\n")
        assert b"second" not in received
        go.touch()
        received = server.read_until(client, b"0\r\n\r\n", received)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"ts_stream_next" not in head.lower()
    assert body == b"6\r\nfirst \r\n7\r\nsecond \r\n4\r\nlast\r\n0\r\n\r\n"


def test_old_client(server: Server) -> None:
    """A client of HTTP/1.0 gets the pieces as they are, and the end of the connection as their end."""
    go = server.cwd / "go"
    go.touch()
    with server.ask("streams", f"words {go}", "HTTP/1.0") as client:
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"first second last"


def test_error_in_mid_stream(server: Server) -> None:
    """A stream whose handler fails breaks off: no client can take it for whole."""
    with server.ask("streams", "breaks") as client:
        received = read_all(client)
    assert received.endswith(b"6\r\nfirst \r\n"), received
    assert server.predict("streams", b"quick").body == b"quick"


def test_last_is_all(server: Server) -> None:
    """An answer that is its own first and last piece is complete."""
    answer = server.predict("streams", b"quick")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"quick")


def test_slow_reader(server: Server) -> None:
    """A client that takes its time holds up its handler, fills no memory, and gets everything in the end."""
    note = server.cwd / "slow"
    front = psutil.Process(server.pid)
    before = front.memory_info().rss
    with server.ask("streams", f"flood {note}") as client:
        server.read_until(client, b"\r\n\r\n")
        server.until(note.exists, "the first megabyte")
        lines = -1
        while lines != len(note.read_text().splitlines()):
            lines = len(note.read_text().splitlines())
            # Others are answered meanwhile.
            for _ in range(10):
                assert server.predict("other", b"quick").body == b"quick"
        assert lines < 40, "the handler was not held up"
        assert front.memory_info().rss - before < 40 * MIB
        received = read_all_of(client, 60 * MIB)
    assert received > 60 * MIB
    assert front.memory_info().rss - before < 60 * MIB


def read_all_of(client: socket.socket, size: int) -> int:
    """Read at least ``size`` bytes and return how many came."""
    received = 0
    while received <= size:
        data = client.recv(1 << 20)
        assert data, received
        received += len(data)
    return received


def test_stuck_reader(make_server: MakeServer) -> None:
    """A client that never reads on is cut after ``body_timeout``; the worker is free for others, and the same one."""
    server = start(make_server, body_timeout=3)
    note = server.cwd / "stuck"
    workers = server.workers()
    with server.ask("streams", f"flood {note}"):
        server.until(note.exists, "the first megabyte")
        # Its worker is held up until then.
        assert server.predict("streams", b"quick").body == b"quick"
        assert note.read_text().splitlines()[-1] == "left"
    assert server.workers() == workers


def test_leaving_reader(server: Server) -> None:
    """A client that leaves in mid-stream stops its handler."""
    note = server.cwd / "leaving"
    with server.ask("streams", f"flood {note}") as client:
        server.read_until(client, b"\r\n\r\n")
    server.until(lambda: note.exists() and note.read_text().endswith("left\n"), "the handler to hear of it")
