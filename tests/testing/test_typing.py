# SPDX-License-Identifier: Apache-2.0
"""
Use the whole testing kit as an application would that checks its types: mypy reads this file, and pytest runs it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_serve import ModelServer, Role, TokenKind
from twisted_serve.auth.keyring import Granted, Keyring, Refused
from twisted_serve.auth.tokens import KeySet, Token
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.fakes import FakeProvider, FakeWorker, Respond, echo
from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.testing.machine import TokenMachine
from twisted_serve.testing.memory import MemoryConnection, MemoryServeReactor
from twisted_serve.testing.mounted import MountedServer
from twisted_serve.testing.server import Answer, MemoryServer
from twisted_serve.testing.socket_reactor import SocketReactor
from twisted_serve.testing.sockets import SocketConnection, SocketServer
from twisted_serve.testing.strategies.tokens import key_sets
from twisted_serve.wire.messages import Item, Job, Part

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import assert_type

    from twisted_serve.testing.pytest_plugin import MakeMemoryServer
else:

    def assert_type(value: Any, _type: object) -> Any:
        """Return a value, whose type is for mypy to check."""
        return value


class OwnKeyring(Keyring):
    """A keyring of the application."""

    def check(self, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        return super().check(kind, presented, now)


class OwnServer(MountedServer):
    """The application with the server in it."""

    paths = {Role.INFERENCE: "/ml"}

    def make_site(self, server: ModelServer) -> Site:
        root = Resource()
        root.putChild(b"ml", server.resource(Role.INFERENCE))
        return Site(root, reactor=self.clock)


class OwnMachine(TokenMachine):
    """All histories of the application."""

    options = {"token_expiration_min": 5}

    def make_server(self) -> MemoryServer:
        return SocketServer(self.options)


def teapot(jobs: list[Job]) -> list[Item] | Exception:
    return [Item(job.request_id, 418, "Short and stout", {}, b"tip me") for job in jobs]


def test_memory_server() -> None:
    """A server in memory."""
    respond: Respond = teapot
    clock = MemoryServeReactor()
    provider = FakeProvider(clock, respond)
    dependencies = {"keyring": OwnKeyring.create}
    with MemoryServer(models={"m": {}}, clock=clock, provider=provider, dependencies=dependencies) as server:
        assert_type(server, MemoryServer)
        keys = assert_type(server.keys, KeySet)
        token = assert_type(keys.inference, Token)
        answer = assert_type(server.request("POST", "/predictions/m", token.secret, body=b"x"), Answer)
        assert assert_type(answer.status, int) == 418
        assert assert_type(answer.body, bytes) == b"tip me"
        sent: Deferred[Answer] = server.send("GET", "/ping", token.secret)
        assert assert_type(server.answered(sent).json, Any) == {"status": "Healthy"}
        connection = assert_type(server.connect(Role.MANAGEMENT), MemoryConnection)
        assert assert_type(connection.get("/models"), int) == 400
        assert assert_type(connection.received, bytes)
        [worker] = assert_type(server.provider.workers, list[FakeWorker])
        server.provider.load_error = WorkerFailed(500, "CUDA out of memory")
        worker.kill()
        assert_type(server.clock, MemoryServeReactor).advance(1)
        server.advance(1)
        server.set_date(-1)
        assert assert_type(server.now(), datetime) < datetime.max.replace(tzinfo=server.now().tzinfo)
        server.restart()
        server.crash()
        assert assert_type(server.key(TokenKind.API), str) == server.keys.api.secret
        assert assert_type(server.key_file, Path).exists()
        assert assert_type(server.directory, Path).is_dir()


def test_other_transports() -> None:
    """A server in an application, and one with sockets."""
    with OwnServer(respond=echo) as server:
        assert_type(server.connect(), MemoryConnection)
    if TYPE_CHECKING:
        with SocketServer(clock=SocketReactor()) as sockets:
            assert_type(sockets, SocketServer)
            assert_type(sockets.clock, SocketReactor)
            assert_type(sockets.connect(), SocketConnection)
            assert_type(OwnMachine().make_server(), MemoryServer)


def test_local_worker(tmp_path: Path) -> None:
    """A handler in the test's process."""
    (tmp_path / "handler.py").write_text("def handle(data, context):\n    return data and ['hello']\n")
    with local_worker(tmp_path, "handler.py") as worker:
        assert_type(worker, LocalWorker)
        [item] = assert_type(worker.predict(Part("body", "", b"")), list[Item])
        assert item.body == b"hello"


def test_fixtures(
    memory_server: MemoryServer, make_memory_server: MakeMemoryServer, virtual_clock: MemoryServeReactor
) -> None:
    """The fixtures of pytest."""
    assert assert_type(make_memory_server(seed=1), MemoryServer).clock is memory_server.clock is virtual_clock


@given(key_sets())
def test_strategies(keys: KeySet) -> None:
    """Strategies."""
    assert len(set(assert_type(keys, KeySet))) == 3
