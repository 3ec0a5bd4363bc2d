# SPDX-License-Identifier: Apache-2.0
"""Tests for servers that are told to stop: who is still served, for how long, and what is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.faults.world import HANDLER, LONG, ask, begin, receive_all, request

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration


def terminate(server: Server) -> None:
    """Tell the server to stop, and wait until it has heard."""
    assert server.front is not None
    server.front.terminate()
    server.until(lambda: not server.key_file.exists(), "the server to begin to stop", LONG)


def ended(server: Server) -> None:
    """See that the server has ended as it should, with nothing left."""
    assert server.front is not None
    assert server.front.wait(LONG) == 0
    assert "Traceback" not in server.log()
    server.assert_clean()


def test_delay(make_server: MakeServer) -> None:
    """For ``shutdown_delay`` new clients are served, and balancers told to go elsewhere; a second signal ends it."""
    server = make_server({"m": HANDLER}, shutdown_delay=600).start("--models", "m=m")
    prediction = request(server, "'served'")
    assert server.front is not None
    server.front.terminate()
    server.until(lambda: server.curl("inference", "/readyz").status == 503, "the server to be unready", LONG)
    assert server.curl("management", "/livez").status == 200
    assert ask(server, "'known'").body == b"known"
    with server.connect() as client:
        client.sendall(prediction.replace(b"Host: h", b"Host: h\r\nConnection: close"))
        assert receive_all(client).endswith(b"\r\n\r\nserved")
    server.front.terminate()
    ended(server)


def test_stream_and_sender(make_server: MakeServer, tmp_path: Path) -> None:
    """A stream comes to its end, and a client in the middle of its request is answered, while the server stops."""
    server = make_server({"m": HANDLER}).start("--models", "m=m")
    whole = request(server, "'late'")
    with (
        begin(server, f"stream(context, {str(tmp_path / 'mark')!r}, 20, 0.1)") as streaming,
        server.connect() as sender,
    ):
        received = b""
        while b"chunk 0;" not in received:
            received += streaming.recv(1 << 16)
        sender.sendall(whole[:-3])
        assert ask(server, "1").status == 200
        terminate(server)
        time.sleep(0.2)
        sender.sendall(whole[-3:])
        assert receive_all(sender).startswith(b"HTTP/1.1 503 ")
        received += receive_all(streaming)
    assert b"chunk 19;" in received
    assert received.endswith(b"\r\nlast\r\n0\r\n\r\n")
    ended(server)


def test_stream_without_end(make_server: MakeServer, tmp_path: Path) -> None:
    """A stream that does not come to its end within ``shutdown_timeout`` is cut, and seen to be."""
    server = make_server({"m": HANDLER}, shutdown_timeout=1).start("--models", "m=m")
    with begin(server, f"stream(context, {str(tmp_path / 'mark')!r}, 100000, 0.01)") as client:
        received = client.recv(1 << 16)
        terminate(server)
        received += receive_all(client)
    assert b"chunk 0;" in received
    assert not received.endswith(b"0\r\n\r\n")
    ended(server)
