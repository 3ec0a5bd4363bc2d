# SPDX-License-Identifier: Apache-2.0
"""Tests for a server that gets the socket to listen at from its parent, as from a ``.socket`` unit of systemd."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import COMMAND, LONG

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer

pytestmark = pytest.mark.integration

# Becomes a program with the descriptor that is named first as its only passed one, as systemd does.
BECOME = """
import os, sys

descriptor, *command = sys.argv[1:]
if descriptor != "3":
    os.dup2(int(descriptor), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="inference")
os.execv(command[0], command)
"""


def test_passed_socket(make_server: MakeServer) -> None:
    """One server after the other answers at the socket; clients in between wait, and are not refused."""
    server = make_server(
        inference_address="systemd:domain=INET:name=inference", enable_metrics_api="false", log_files="false"
    )
    assert server.run("shims", str(server.cwd)).returncode == 0
    twistd = [str(COMMAND.with_name("twistd")), "--nodaemon", "--pidfile=", "twisted-serve"]
    options = ["--ncs", "--model-store", str(server.store)]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        for program in (twistd, [str(COMMAND), "--foreground"], [str(server.cwd / "torchserve"), "--foreground"]):
            with socket.create_connection(address, timeout=LONG) as client:
                client.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                become = [sys.executable, "-c", BECOME, str(listening.fileno())]
                server.start(command=[*become, *program, *options], descriptors=[listening.fileno()])
                assert server.ports["inference"] == address[1]
                assert server.read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            assert server.curl("inference", "/ping", key="inference").status == 200
            server.stop()
            server.assert_clean()
