# SPDX-License-Identifier: Apache-2.0
"""Tests for fronts that are killed or stopped: what their clients and the server learn of it, and what is left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.faults.world import HANDLER, nothing_leaks, ready
from tests.integration.front_clients import (
    FRONTS,
    LONG,
    Client,
    Load,
    all_fronts,
    clients_of_both,
    ports_of,
)

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# In bytes. More than what the system keeps of a response for a client that does not read.
LARGE = 40_000_000


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with fronts and two workers."""
    limits = {"max_response_size": 2 * LARGE, "debug_turn_limit_ms": 0}
    server = make_module_server({"m": HANDLER}, front_processes=FRONTS, default_workers_per_model=2, **limits)
    server.start("--models", "m=m")
    server.until(ready(server, 2), "the workers")
    all_fronts(server)
    return server


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Give the name of a file that is not there."""
    return tmp_path / "mark"


def test_killed(server: Server) -> None:
    """A front that is killed under load takes its own connections with it and no other; another comes."""
    fronts = all_fronts(server)
    with nothing_leaks(server):
        with Load(server, 20) as load:
            load.goes_on(server)
            victim = fronts[0]
            doomed = {asker for asker in load.askers if asker.port in ports_of(victim)}
            survivors = set(load.askers) - doomed
            assert min(len(doomed), len(survivors)) >= 5
            os.kill(victim, signal.SIGKILL)
            server.until(lambda: not any(asker.is_alive() for asker in doomed), "their connections to break")
            for _ in range(5):
                assert server.predict("m", b"'new'").body == b"new"
            load.goes_on(server, survivors)
        for asker in load.askers:
            statuses = [asked.status for asked in asker.asked]
            assert set(statuses[:-1]) == {200}
            assert statuses[-1] == (0 if asker in doomed else 200)
        server.until(lambda: len(server.fronts()) == FRONTS, "another front")
    assert set(all_fronts(server)) & set(fronts) == set(fronts[1:])
    assert not server.alive(victim)


def test_killed_worker(server: Server) -> None:
    """A worker that is killed under load is replaced; no client of a front hears of it."""
    with nothing_leaks(server):
        with Load(server, 16) as load:
            load.goes_on(server)
            os.kill(server.workers()[0], signal.SIGKILL)
            load.goes_on(server)
            server.until(ready(server, 2), "another worker")
            load.goes_on(server)
        assert set(load.statuses()) == {200}


def test_stopped(server: Server) -> None:
    """While a front does nothing the others go on; its clients are answered when it does."""
    found = clients_of_both(server, 8)
    (stopped, late), (_, others) = found.items()
    os.kill(stopped, signal.SIGSTOP)
    try:
        for client in late:
            client.begin("'late'")
        for number in range(20):
            for client in others:
                assert client.ask(str(number)) == (200, b"%d" % number)
    finally:
        os.kill(stopped, signal.SIGCONT)
    for client in late:
        assert client.answer() == (200, b"late")
    for client in (*late, *others):
        client.socket.close()


def test_does_not_return(server: Server, mark: Path) -> None:
    """A front that does not return a connection is replaced; not one that waits for a client to read its response."""
    with nothing_leaks(server), ExitStack() as stack:
        found = clients_of_both(server, 6)
        for clients in found.values():
            for client in clients:
                stack.callback(client.socket.close)
        (stopped, (waiting, *_)), (other, (reader, *others)) = found.items()
        reader.begin(f"time.sleep(0.2) or b'x' * {LARGE}")
        time.sleep(0.1)
        reader.begin("1 / 0")
        waiting.begin(f"sleep({str(mark)!r}, 1) / 0")
        server.until(mark.exists, "the handler")
        began = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        while server.alive(stopped):
            assert time.monotonic() - began < LONG
            for client in others:
                assert client.ask("1") == (200, b"1")
        assert 4 < time.monotonic() - began < 20
        with pytest.raises(ConnectionError):
            waiting.receive()
        assert server.alive(other)
        assert len(reader.answer()[1]) == LARGE
        assert reader.answer()[0] == 503
        server.until(lambda: len(server.fronts()) == FRONTS, "another front")
        assert "A front does not return a connection, and is replaced." in server.log()


def test_replaced_key(server: Server) -> None:
    """When ``/token`` has answered, the old key is refused on all connections in fronts and on new ones."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(20)]
        for client in clients:
            client.in_front()
        old = clients[0].key
        assert server.curl("management", "/token?type=inference", key="API").status == 200
        for client in clients:
            assert client.ask("1")[0] == 400
        for _ in range(100):
            with Client(server) as fresh:
                fresh.key = old
                assert fresh.ask("1")[0] == 400
        for client in clients:
            client.socket.close()
        with Client(server) as fresh:
            fresh.in_front()


def test_replaced_keys_under_load(server: Server) -> None:
    """Of 20 keys that are replaced under load, none is admitted in a request sent after the answer that replaced it."""
    keys = [server.keys()["inference"]]
    replaced: dict[str, float] = {}
    # Half the requests have the key before the current one, if there is one.
    turns = iter(range(1 << 60))
    with Load(server, 10, lambda: keys[-1 - next(turns) % min(2, len(keys))]) as load:
        for _ in range(20):
            load.goes_on(server)
            assert server.curl("management", "/token?type=inference", key="API").status == 200
            replaced[keys[-1]] = time.monotonic()
            keys.append(server.keys()["inference"])
        load.goes_on(server)
    asked = [each for asker in load.askers for each in asker.asked]
    assert {each.status for each in asked} == {200, 400}
    wrong = [each for each in asked if each.status == 200 and each.sent > replaced.get(each.key, each.sent)]
    assert wrong == []
    assert any(each.status == 200 and each.key == keys[-1] for each in asked)


def test_server_killed(make_server: MakeServer) -> None:
    """A server that is killed under load leaves no front."""
    server = make_server({"m": HANDLER}, front_processes=FRONTS)
    server.start("--models", "m=m")
    all_fronts(server)
    pids = [*server.fronts(), *server.workers(), *server.templates()]
    with Load(server, 8) as load:
        load.goes_on(server)
        server.stop(signal.SIGKILL)
        server.until(lambda: not any(map(server.alive, pids)), "the end of its processes")
    assert set(load.statuses()) == {200, 0}


def test_terminated(make_server: MakeServer) -> None:
    """A server that is told to stop answers each request in flight, ends as it should, and leaves no process."""
    server = make_server({"m": HANDLER}, front_processes=FRONTS, default_workers_per_model=2, debug_turn_limit_ms=0)
    server.start("--models", "m=m")
    all_fronts(server)
    pids = [*server.fronts(), *server.workers(), *server.templates()]
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(8)]
        assert len({client.in_front() for client in clients}) == FRONTS
        with Load(server, 8) as load:
            load.goes_on(server)
            for client in clients:
                client.begin("time.sleep(0.3) or 'late'")
            time.sleep(0.2)
            assert server.stop() == 0
        for client in clients:
            assert client.answer() == (200, b"late")
            assert client.socket.recv(1) == b""
    # A request that was sent when the server closed the idle connection has no answer.
    assert set(load.statuses()) <= {200, 503, 0}
    for asker in load.askers:
        assert {asked.status for asked in asker.asked[:-1]} <= {200, 503}
    server.until(lambda: not any(map(server.alive, pids)), "the end of its processes")
    assert "Traceback" not in server.log()
    server.assert_clean()
