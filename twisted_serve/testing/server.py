# SPDX-License-Identifier: Apache-2.0
"""
Run a whole server in memory: routes, channel, tokens, queues and batches are real.

Only sockets, time and workers are fake: time stands still until the test advances it, and workers answer as the test
specifies.  Files are real, in a directory that is removed with the server.

Failures say what was wrong in words, to which pytest adds no values: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from treq.testing import StubTreq
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.http import HTTPFactory

from twisted_serve.auth.tokens import KeySet, TokenKind
from twisted_serve.config.options import ServerOptions
from twisted_serve.endpoints import Endpoint
from twisted_serve.listening.roles import Role
from twisted_serve.planes.snapshots import SnapshotFolder
from twisted_serve.service import Dependencies, ModelServer
from twisted_serve.testing.answers import Answer, NoAnswerYet, headers_with, role_of
from twisted_serve.testing.fakes import FakeProvider, Respond, echo
from twisted_serve.testing.memory import MemoryConnection, MemoryServeReactor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from twisted_serve.testing.rpc import MemoryRpcConnection
    from twisted_serve.testing.socket_reactor import SocketReactor

__all__ = ["Answer", "MemoryConnection", "MemoryServeReactor", "MemoryServer", "NoAnswerYet", "Role"]

#: The default start time of a server in memory.
EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


_Server = TypeVar("_Server", bound="MemoryServer")


def _directly(work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
    """Run a thread's work synchronously."""
    return maybeDeferred(work, *args)


class MemoryServer:
    """
    A running server.

    :ivar clock: The reactor; its time is in seconds from the start.
    :ivar directory: The server's files: ``key_file.json``, ``models/`` (the model store).
    :ivar provider: The fake workers.
    :ivar dependencies: What the server takes from outside; all of it is the test's.
    :cvar defaults: Settings for tests, which ``options`` override; they enable the model API.
    :param options: Settings by name.
    :param respond: Makes the workers' responses; by default the first part of each request.
    :param models: Models to register at start: the files of each, by name.
    :param endpoints: Plug-in endpoints, besides the server's own.
    :param span_exporter: Receives traces, if the setting ``tracing`` is on.
    :param snapshots: Whether to write snapshots, into ``snapshots/`` of the directory.
    :param clock: Shared with other servers or with the application, for example; by default a new one.
    :param provider: Workers that the test has set up before the server starts them, with the same clock.
    :param dependencies: Other `Dependencies` by name, in place of those for tests: ``keyring``, ``entropy``, ``now`` …
    :raise ConfigError: for settings that cannot be used; all errors leave nothing behind.
    :raise TypeError: for a name that is not one of `Dependencies`.
    :raise ValueError: for a provider with another clock.
    """

    defaults: ClassVar[Mapping[str, Any]] = {
        "enable_model_api": True,
        "default_workers_per_model": 1,
        "disable_system_metrics": True,
    }

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        respond: Respond = echo,
        models: Mapping[str, Mapping[str, str]] | None = None,
        epoch: datetime = EPOCH,
        seed: int = 0,
        snapshots: bool = False,
        endpoints: Sequence[Endpoint] = (),
        span_exporter: SpanExporter | None = None,
        *,
        clock: MemoryServeReactor | SocketReactor | None = None,
        provider: FakeProvider | None = None,
        dependencies: Mapping[str, Any] | None = None,
    ) -> None:
        self.clock: MemoryServeReactor = self._new_clock() if clock is None else cast(MemoryServeReactor, clock)
        self.provider = FakeProvider(self.clock, respond=respond) if provider is None else provider
        of_workers: object = self.provider.clock
        if of_workers is not self.clock:
            raise ValueError("the provider has another clock than the server: pass one clock to both")
        if provider is not None and respond is not echo:
            raise ValueError("the provider has its own respond: set that one")
        self._epoch: datetime = epoch
        self._set_by: timedelta = timedelta(0)
        self._stubs: list[Any] = []
        self.directory: Path = Path(tempfile.mkdtemp(prefix="twisted_serve-memory-"))
        try:
            self.dependencies: Dependencies = Dependencies(
                **{
                    "now": self._date,
                    "uptime": self.clock.seconds,
                    "entropy": random.Random(seed).randbytes,  # noqa: S311 (the same keys again, for tests)
                    "environ": {},
                    "provider": self.provider,
                    "defer_to_thread": _directly,
                    "snapshots": SnapshotFolder(self.directory / "snapshots", {}, kept=20) if snapshots else None,
                    "endpoints": tuple(endpoints),
                    "trim_heap": None,
                    "span_exporter": span_exporter,
                    **(dependencies or {}),
                }
            )
            store = self.directory / "models"
            store.mkdir()
            for name, files in (models or {}).items():
                self.add_model(name, files)
            self.options: ServerOptions = ServerOptions(
                **{
                    "model_store": store,
                    "token_key_file": self.directory / "key_file.json",
                    "temp_directory": self.directory,
                    **self.defaults,
                    "load_models": ",".join(models or ()) or None,
                    **(options or {}),
                }
            )
            self._start()
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def __enter__(self: _Server) -> _Server:
        """Return the server."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the server and remove its directory."""
        self.close()

    @property
    def key_file(self) -> Path:
        """The path of the key file."""
        return self.options.token_key_file

    def now(self) -> datetime:
        """Return the server's date and time."""
        return self.dependencies.now()

    @property
    def keys(self) -> KeySet:
        """
        The live keys.

        :raise LookupError: if tokens are off or the server is stopped.
        """
        keys = self.server.keys
        if keys is None:
            raise LookupError("this server has no keys")
        return keys

    def key(self, kind: TokenKind) -> str:
        """Return the live key of a kind."""
        return self.keys.of(kind).secret

    def add_model(self, name: str, files: Mapping[str, str]) -> None:
        """
        Add a model's directory to the model store.

        :param files: ``model-config.yaml`` has the model's settings; ``MAR-INF/MANIFEST.json`` is created unless given.
        """
        model = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py"}
        if "model-config.yaml" in files:
            model["configFile"] = "model-config.yaml"
        manifest = {"model": model}
        self._write(name, {"MAR-INF/MANIFEST.json": json.dumps(manifest), "handler.py": "", **files})

    def add_workflow(self, name: str, specification: str, files: Mapping[str, str] | None = None) -> None:
        """Add a workflow's directory to the model store, which is also the workflow store; a handler is created."""
        workflow = {"workflowName": name, "specFile": "workflow.yaml", "handler": "functions.py"}
        manifest = {"createdOn": "01/01/2026 00:00:00", "archiverVersion": "0.2.15", "workflow": workflow}
        self._write(
            name,
            {
                "WAR-INF/MANIFEST.json": json.dumps(manifest),
                "workflow.yaml": specification,
                "functions.py": "",
                **(files or {}),
            },
        )

    def advance(self, seconds: float) -> None:
        """Advance the time."""
        self.clock.advance(seconds)

    def set_date(self, seconds: float) -> None:
        """Move the server's date by ``seconds``, which may be negative, without time passing."""
        self._set_by += timedelta(seconds=seconds)

    def opens(self, key: str, path: str = "/ping") -> bool:
        """Return whether a GET for a path succeeds with a key."""
        return self._status("GET", path, key) == 200

    def rotate(self, kind: TokenKind = TokenKind.INFERENCE) -> str:
        """
        Replace the key of a kind, as a client with the API key does, and return the new one.

        :raise AssertionError: if the server does not replace it.
        """
        status = self._status("POST", f"/token?type={kind.value}", self.key(TokenKind.API))
        assert status == 200, f"the {kind.value} key was not replaced: {status}"
        return self.key(kind)

    def restart(self) -> None:
        """Stop the server and start it again in the same directory."""
        self._stop()
        self._start()

    def crash(self, damage: Callable[[Path], object] = lambda _path: None) -> None:
        """
        Start the server again as after a crash, with a stale key file, which a dead process cannot have locked.

        :param damage: Called with the path of the stale file, to do with it what the crash has done.
        """
        stale = self.key_file.read_bytes() if self.key_file.exists() else None
        self._stop()
        if stale is not None:
            self.key_file.write_bytes(stale)
            damage(self.key_file)
        self._start()

    def close(self) -> None:
        """Stop the server and remove its directory."""
        self._stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def site_of(self, role: Role) -> HTTPFactory:
        """Return the site to which clients of a role are connected; override it for a site of your application."""
        return self.server.site_of(role)

    def path_of(self, path: str, role: Role) -> str:
        """Return the path under which the site has a path of a role; override it where the server is mounted."""
        return path

    def treq(self, role: Role = Role.INFERENCE) -> Any:
        """Return a treq client for the site of a role."""
        site: Any = self.site_of(role)
        stub = StubTreq(site.resource)
        # The stub's own site has another channel class; this one has the server's limits and early authorization.
        stub._agent._serverFactory = site
        return stub

    def send(
        self,
        method: str,
        path: str,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        body: bytes = b"",
        role: Role | None = None,
    ) -> Deferred[Answer]:
        """
        Send a request, and return a Deferred that fires with the response.

        :param key: The bearer token.
        :param role: The listener; by default the one to which the path appears to belong.
        """
        sent = headers_with(key, headers)
        role = role_of(path) if role is None else role
        stub = self.treq(role)
        url = f"http://127.0.0.1{self.path_of(path, role)}"
        response = stub.request(method, url, headers=sent, data=body or None)
        stub.flush()
        self._stubs.append(stub)
        return Deferred.fromCoroutine(_read(stub, response))

    def request(
        self,
        method: str,
        path: str,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        body: bytes = b"",
        role: Role | None = None,
    ) -> Answer:
        """
        Send a request and return its response.

        :raise NoAnswerYet: if there is no response without time passing.
        """
        return self.answered(self.send(method, path, key, headers, body, role))

    def connect(self, role: Role = Role.INFERENCE) -> MemoryConnection:
        """Open a connection that sends bytes unchanged."""
        return MemoryConnection(self.site_of(role))

    def grpc(self, role: Role = Role.INFERENCE) -> MemoryRpcConnection:
        """
        Open a connection of a gRPC client; needs the extra ``grpc``.

        :raise KeyError: if the server does not serve gRPC.
        """
        # Imported here, because the extra may not be installed.
        from twisted_serve.testing.rpc import MemoryRpcConnection  # noqa: PLC0415

        return MemoryRpcConnection(self.server.grpc_factory(role), lambda: self.clock.advance(0))

    def answered(self, answer: Deferred[Answer]) -> Answer:
        """
        Return the response to a request that was sent before.

        :raise NoAnswerYet: if it has not arrived.
        """
        self._deliver(answer)
        results: list[Answer | Failure] = []

        def look(result: Answer | Failure) -> Answer | Failure:
            results.append(result)
            return result

        answer.addBoth(look)
        if not results:
            raise NoAnswerYet("the request is still being answered")
        [result] = results
        if isinstance(result, Failure):
            answer.addErrback(lambda _failure: None)
            result.raiseException()
        return result

    def flush(self) -> None:
        """Deliver the data written on all connections."""
        for stub in self._stubs:
            stub.flush()
        # Connections that are closed are not looked at again.
        self._stubs = [stub for stub in self._stubs if stub._agent._pumps]

    def _status(self, method: str, path: str, key: str) -> int:
        """Return the status of a request with a key and without a body, on a connection of its own."""
        role = role_of(path)
        connection = self.connect(role)
        status = connection.ask(method, self.path_of(path, role), f"Authorization: Bearer {key}")
        connection.leave()
        return status

    def _deliver(self, awaited: Deferred[Any]) -> None:
        """Deliver data for as long as it may let ``awaited`` fire."""
        self.flush()

    def _write(self, name: str, files: Mapping[str, str]) -> None:
        """Write the files of an entry of the model store."""
        for file, text in files.items():
            path = self.directory / "models" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _new_clock(self) -> MemoryServeReactor:
        return MemoryServeReactor()

    def _date(self) -> datetime:
        return self._epoch + timedelta(seconds=self.clock.seconds()) + self._set_by

    def _start(self) -> None:
        self._stubs = []
        # The clock has what a server without real workers needs.
        self.server = ModelServer(self.clock, self.options, self.dependencies)
        self.server.startService()

    def _stop(self) -> None:
        stopped = self.server.stopService()
        self._deliver(stopped)
        # Let everything with a time limit at shutdown reach its limit.
        for _ in range(20):
            if stopped.called:
                break
            self.advance(self.options.shutdown_timeout / 2 + 1)
            self._deliver(stopped)
        else:
            raise AssertionError("the server did not stop")


async def _read(stub: Any, response: Deferred[Any]) -> Answer:
    answer = await response
    content = stub.content(answer)
    stub.flush()
    headers = {name.decode().lower(): values[-1].decode() for name, values in answer.headers.getAllRawHeaders()}
    return Answer(answer.code, headers, await content)
