# SPDX-License-Identifier: Apache-2.0
"""
Run a whole server in memory: routes, channel, tokens, queues and batches are real.

Only sockets, time and workers are fake: time stands still until the test advances it, and workers answer as the test
specifies.  Files are real, in a directory that is removed with the server.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from twisted_serve.auth.tokens import KeySet, TokenKind
from twisted_serve.config.options import ServerOptions
from twisted_serve.endpoints import Endpoint
from twisted_serve.planes.snapshots import SnapshotFolder
from twisted_serve.service import Dependencies, ModelServer
from twisted_serve.testing.fakes import FakeProvider, Respond, echo
from twisted_serve.testing.memory import MemoryConnection, MemoryServeReactor
from twisted_serve.web.roles import Role

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Answer", "MemoryConnection", "MemoryServeReactor", "MemoryServer", "NoAnswerYet", "Role"]

#: The default start time of a server in memory.
EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


class NoAnswerYet(AssertionError):
    """The request is still in progress: advance the time, or let a held worker answer."""


@frozen
class Answer:
    """
    A response of the server.

    :ivar headers: By lower-case name; the last value of a repeated header.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body parsed as JSON."""
        return json.loads(self.body)


def _directly(work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
    """Run a thread's work synchronously."""
    return maybeDeferred(work, *args)


class MemoryServer:
    """
    A running server.

    :ivar clock: The reactor; its time is in seconds from the start.
    :ivar directory: The server's files: ``key_file.json``, ``models/`` (the model store).
    :ivar provider: The fake workers.
    :param options: Settings by name, in addition to defaults for tests, which enable the model API.
    :param respond: Makes the workers' responses; by default the first part of each request.
    :param models: Models to register at start: the files of each, by name.
    :param endpoints: Plug-in endpoints, besides the server's own.
    :param span_exporter: Receives traces, if the setting ``tracing`` is on.
    :param snapshots: Whether to write snapshots, into ``snapshots/`` of the directory.
    """

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
    ) -> None:
        self.clock = MemoryServeReactor()
        self.provider = FakeProvider(self.clock, respond=respond)
        self.directory = Path(tempfile.mkdtemp(prefix="twisted_serve-memory-"))
        self._epoch = epoch
        self._set_by = timedelta(0)
        self._entropy = random.Random(seed).randbytes  # noqa: S311 (the same keys again, for tests)
        self._endpoints = tuple(endpoints)
        self._span_exporter = span_exporter
        self._snapshots = SnapshotFolder(self.directory / "snapshots", {}, kept=20) if snapshots else None
        store = self.directory / "models"
        store.mkdir()
        for name, files in (models or {}).items():
            self.add_model(name, files)
        self.options = ServerOptions(
            **{
                "model_store": store,
                "token_key_file": self.directory / "key_file.json",
                "temp_directory": self.directory,
                "enable_model_api": True,
                "default_workers_per_model": 1,
                "disable_system_metrics": True,
                "load_models": ",".join(models or ()) or None,
                **(options or {}),
            }
        )
        self.server = self._new_server()
        try:
            self.server.startService()
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def __enter__(self) -> MemoryServer:
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
        return self._epoch + timedelta(seconds=self.clock.seconds()) + self._set_by

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
        """Add a model's directory to the model store; ``MAR-INF/MANIFEST.json`` is created unless given."""
        manifest = {"model": {"modelName": name, "modelVersion": "1.0", "handler": "handler.py"}}
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

    def restart(self) -> None:
        """Stop the server and start it again in the same directory."""
        self._stop()
        self.server = self._new_server()
        self.server.startService()

    def crash(self) -> None:
        """
        Start the server again as after a crash, with a stale key file.

        The lock on the file is released, since a dead process cannot hold it.
        """
        stale = self.key_file.read_bytes()
        self._stop()
        self.key_file.write_bytes(stale)
        self.server = self._new_server()
        self.server.startService()

    def close(self) -> None:
        """Stop the server and remove its directory."""
        self._stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def treq(self, role: Role = Role.INFERENCE) -> Any:
        """Return a treq client for the listener with a role."""
        site = self.server.site_of(role)
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
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        stub = self.treq(role_of(path) if role is None else role)
        response = stub.request(method, f"http://127.0.0.1{path}", headers=sent, data=body or None)
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
        return MemoryConnection(self.server.site_of(role))

    def answered(self, answer: Deferred[Answer]) -> Answer:
        """
        Return the response to a request that was sent before.

        :raise NoAnswerYet: if it has not arrived.
        """
        self.flush()
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

    def _write(self, name: str, files: Mapping[str, str]) -> None:
        """Write the files of an entry of the model store."""
        for file, text in files.items():
            path = self.directory / "models" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _new_server(self) -> ModelServer:
        self._stubs: list[Any] = []
        return ModelServer(
            self.clock,  # type: ignore[arg-type]  # It has what a server without real workers needs.
            self.options,
            Dependencies(
                now=self.now,
                uptime=self.clock.seconds,
                entropy=self._entropy,
                environ={},
                provider=self.provider,
                defer_to_thread=_directly,
                snapshots=self._snapshots,
                endpoints=self._endpoints,
                trim_heap=None,
                span_exporter=self._span_exporter,
            ),
        )

    def _stop(self) -> None:
        stopped = self.server.stopService()
        self.flush()
        # Let everything with a time limit at shutdown reach its limit.
        for _ in range(20):
            if stopped.called:
                break
            self.advance(self.options.shutdown_timeout / 2 + 1)
            self.flush()
        else:
            raise AssertionError("the server did not stop")


async def _read(stub: Any, response: Deferred[Any]) -> Answer:
    answer = await response
    content = stub.content(answer)
    stub.flush()
    headers = {name.decode().lower(): values[-1].decode() for name, values in answer.headers.getAllRawHeaders()}
    return Answer(answer.code, headers, await content)


def role_of(path: str) -> Role:
    """Return the role of the listener to which a path appears to belong."""
    first, _, rest = path.partition("?")[0].lstrip("/").partition("/")
    if (first in ("models", "token", "workflows") and not rest.endswith("/invoke")) or (
        first == "v1" and ":" not in rest
    ):
        return Role.MANAGEMENT
    return Role.METRICS if first == "metrics" else Role.INFERENCE
