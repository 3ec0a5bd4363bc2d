# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twistd twisted-serve``: the same server, run by Twisted's own command."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer

pytestmark = pytest.mark.integration

TWISTD = str(Path(sys.executable).with_name("twistd"))

ECHO = "def handle(data, context):\n    return data and [bytes(row['body']) for row in data]\n"


def test_help() -> None:
    """``twistd --help`` lists the server, and its own ``--help`` has the predecessor's flags."""
    listed = subprocess.run([TWISTD, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "twisted-serve" in listed.stdout
    flags = subprocess.run([TWISTD, "twisted-serve", "--help"], capture_output=True, text=True, timeout=60, check=True)
    for flag in ("--model-store", "--models", "--ts-config", "--ncs", "--disable-token-auth", "--enable-model-api"):
        assert flag in flags.stdout


@pytest.mark.parametrize("reactor", ["epoll", "asyncio"])
def test_serves(make_server: MakeServer, reactor: str) -> None:
    """A server under ``twistd`` answers, and ends in order when it is told to."""
    server = make_server({"echo": ECHO})
    words = ["--nodaemon", "--pidfile=", f"--reactor={reactor}", "twisted-serve", "--ncs"]
    server.start(command=[TWISTD, *words, "--model-store", str(server.store), "--models", "echo=echo"])
    assert server.predict("echo", b"hello").body == b"hello"
    assert server.curl("inference", "/ping").status == 400
    workers = server.workers()
    assert len(workers) == 1
    # When all is over twistd ends as Twisted's own programs do: by the signal that it was sent.
    assert server.stop() == -signal.SIGTERM
    assert "Server Shut Down." in server.log()
    assert not server.alive(workers[0])
    server.assert_clean()


def test_key_in_url(make_server: MakeServer) -> None:
    """A key which a client puts in a URL is kept from the log of ``twistd``, too."""
    server = make_server()
    words = ["--nodaemon", "--pidfile=", "twisted-serve", "--ncs"]
    server.start(command=[TWISTD, *words, "--model-store", str(server.store)])
    key = server.keys()["management"]
    assert server.curl("management", f"/models/{key}", key="management").status == 404
    server.until(lambda: "ACCESS_LOG" in server.log() or "GET /models/" in server.log(), "the line of the request")
    assert key not in server.log()


def test_wrong_option(make_server: MakeServer) -> None:
    """What cannot be used is said, and nothing starts."""
    server = make_server()
    done = subprocess.run(
        [TWISTD, "--nodaemon", "--pidfile=", "twisted-serve", "--model-store", "nowhere"],
        cwd=server.cwd,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "--model-store directory not found: nowhere" in done.stderr + done.stdout
    server.assert_clean()
