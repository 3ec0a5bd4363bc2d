# SPDX-License-Identifier: Apache-2.0
"""Tests for a server whose disk is full, or which can open nothing more: it says so, goes on, and recovers."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import RemoteDisconnected
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.conftest import FRONTS
from tests.integration.faults.world import HANDLER, LONG, ask, describe, keep_talking, manage, nothing_leaks, ready

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with one worker."""
    server = make_module_server({"m": HANDLER}).start("--enable-model-api", "--models", "m=m")
    server.until(ready(server, 1), "the worker")
    return server


@contextmanager
def limited(server: Server, what: int, most: int) -> Iterator[None]:
    """Let the server's own process have no more than so much of something, for a while."""
    front = psutil.Process(server.pid)
    before = front.rlimit(what)
    front.rlimit(what, (most, before[1]))
    try:
        yield
    finally:
        front.rlimit(what, before)


def left(server: Server) -> set[Path]:
    """List what the server has made: beside its configuration, and of models."""
    return {*server.cwd.iterdir(), *server.temp.glob("twisted_serve-*/*/*")}


def test_full_disk(server: Server) -> None:
    """Where nothing can be written, keys stay as they are, no model comes, no log grows, and predictions go on."""
    # A file of no length could be written where there is no room.
    archive = server.add_archive("late", HANDLER)
    register = f"/models?url={archive}&initial_workers=1&synchronous=true"
    with nothing_leaks(server):
        keys = server.keys()
        before = left(server)
        with limited(server, resource.RLIMIT_FSIZE, 0):
            rotated = server.curl("management", "/token?type=inference", key="API")
            assert rotated.status == 500
            assert "The inference key stays as it was: " in rotated.json()["message"]
            assert server.keys() == keys
            registered = manage(server, "POST", register)
            assert registered.status == 500, registered
            assert registered.json()["reason"] == "File too large"
            assert manage(server, "GET", "/models/late").status == 404
            assert ask(server, "'still here'").body == b"still here"
        assert left(server) == before
        assert server.curl("management", "/token?type=inference", key="API").status == 200
        assert server.keys()["inference"] != keys["inference"]
        assert manage(server, "POST", register).status == 200
        assert ask(server, "'late'", "late").body == b"late"
        assert manage(server, "DELETE", "/models/late").status == 200


def test_no_descriptors(server: Server) -> None:
    """A worker that cannot be replaced, because nothing can be opened, is replaced as soon as that is over."""
    talk = keep_talking(server)
    with nothing_leaks(server):
        assert talk("'well'") == (200, b"well")
        pid = describe(server)["workers"][0]["pid"]
        front = psutil.Process(server.pid)
        # The lowest that are free are taken first: no number under the limit may be.
        most = min(set(range(1 << 16)) - {int(name) for name in os.listdir(f"/proc/{front.pid}/fd")})
        with limited(server, resource.RLIMIT_NOFILE, most):
            os.kill(pid, signal.SIGKILL)
            server.until(lambda: not server.alive(pid), "the worker's end", LONG)
            server.until(lambda: "Too many open files" in server.log(), "the attempt to have another", LONG)
            if FRONTS:
                # An error is answered by the server's own process, which cannot open the connection.
                with pytest.raises(RemoteDisconnected):
                    talk("'anybody'")
            else:
                status, body = talk("'anybody'")
                assert status == 503
                assert b"Too many open files" in body
        server.until(lambda: talk("'back'") == (200, b"back"), "another worker", LONG)
        server.until(ready(server, 1), "it to be described so", LONG)
