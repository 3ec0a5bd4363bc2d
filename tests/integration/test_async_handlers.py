# SPDX-License-Identifier: Apache-2.0
"""Tests for asynchronous handlers in real workers: many requests at a time at one process."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

HANDLER = """
import asyncio, os
from ts.handler_utils.utils import send_intermediate_predict_response as send

class Handler:
    def initialize(self, context):
        self.events = {}
        self.cancelled = 0

    async def handle(self, data, context):
        what, _, argument = bytes(data[0]["body"]).decode().partition(" ")
        return [await getattr(self, what)(context, argument)]

    def event(self, name):
        return self.events.setdefault(name, asyncio.Event())

    async def wait(self, context, name):
        self.event("waiting " + name).set()
        try:
            await self.event(name).wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return name

    async def waiting(self, context, name):
        await self.event("waiting " + name).wait()
        return "yes"

    async def release(self, context, name):
        self.event(name).set()
        return str(os.getpid())

    async def fail(self, context, name):
        raise ValueError(name)

    async def words(self, context, name):
        for word in ("one ", "two "):
            send([word], context.request_ids, "", 200, context)
            await self.event(name).wait()
        return "three"

    async def count(self, context, name):
        return str(self.cancelled)

    async def exit(self, context, name):
        os._exit(3)
"""

MODEL = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "asyncCommunication": True, "responseTimeout": 20}


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with one asynchronous worker."""
    server = make_module_server(enable_model_api="true")
    server.add_model("many", HANDLER, **MODEL)
    server.add_model("hasty", HANDLER, **{**MODEL, "responseTimeout": 2})
    return server.start("--models", "many=many", "hasty=hasty")


def say(server: Server, text: str, model: str = "many") -> str:
    answer = server.predict(model, text.encode())
    assert answer.status == 200, answer
    return answer.body.decode()


def test_many_at_a_time(server: Server) -> None:
    """Twenty requests wait at one worker for one that comes after them; a failure is its own request's."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.ask("many", f"wait a{number}")) for number in range(20)]
        assert say(server, "waiting a19") == "yes"
        assert server.predict("many", b"fail now").status == 503
        pids = {say(server, f"release a{number}") for number in reversed(range(20))}
        assert len(pids) == 1
        for number, client in enumerate(clients):
            server.read_until(client, f"\r\n\r\na{number}".encode())


def test_streams(server: Server) -> None:
    """Two streams at a time come piece by piece, each to its client."""
    with server.ask("many", "words s") as first, server.ask("many", "words s") as second:
        received = [server.read_until(client, b"4\r\none \r\n") for client in (first, second)]
        say(server, "release s")
        for client, so_far in zip((first, second), received, strict=True):
            assert server.read_until(client, b"0\r\n\r\n", so_far).endswith(b"4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n")


def test_client_leaves(server: Server) -> None:
    """The coroutine of a client that leaves is cancelled."""
    before = int(say(server, "count"))
    with server.ask("many", "wait left"):
        say(server, "waiting left")
    server.until(lambda: int(say(server, "count")) == before + 1, "the coroutine to be cancelled")


def test_response_timeout(server: Server) -> None:
    """One request that takes too long fails alone; the worker stays."""
    pid = say(server, "release x", "hasty")
    answer = server.predict("hasty", b"wait for-ever")
    assert (answer.status, answer.json()["message"]) == (500, "The request was not answered within 2 seconds.")
    assert say(server, "count", "hasty") == "1"
    assert say(server, "release x", "hasty") == pid


def test_worker_dies(server: Server) -> None:
    """When the worker dies, everybody whose request was there is told, and there is another worker."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.ask("many", f"wait d{number}")) for number in range(5)]
        say(server, "waiting d4")
        assert server.predict("many", b"exit").status == 500
        for client in clients:
            assert server.read_until(client, b"Worker died.").startswith(b"HTTP/1.1 500 ")
    assert say(server, "count") == "0"


def test_no_coroutine(server: Server) -> None:
    """A model that asks for an asynchronous worker without being able to is refused, and told why."""
    server.add_model("sync", "def handle(data, context):\n    return data and ['x']\n", **MODEL)
    path = "/models?url=sync&initial_workers=1&synchronous=true"
    answer = server.curl("management", path, "-X", "POST", key="management")
    assert answer.status == 500
    assert b"asyncCommunication needs a coroutine function; handle is none: write async def" in answer.body
