# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the tests of local workers: a reactor whose child processes the tests control."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import changed, worker_spec
from tests.workers.wire import Wire
from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces import IWorker, Placement
from twisted_serve.wire.codec import FrameReader, encode, worker_reader
from twisted_serve.wire.messages import (
    FromWorker,
    Item,
    Job,
    Loaded,
    Predict,
    Predicted,
    Reading,
    StreamChunk,
    ToWorker,
)
from twisted_serve.workers.local import LocalProvider
from twisted_serve.workers.process.connection import WorkerConnection
from twisted_serve.workers.process.process import WorkerProcess

SPEC = worker_spec("m", "1.0", Path("/models/m"), "h.py", 2, {"a": 1}, {}, "python9", {"LANG": "C"}, 10.0)


class Child:
    """A child process that the test controls."""

    def __init__(self, reactor: Reactor, process: WorkerProcess, command: list[str], env: Mapping[str, str]) -> None:
        self.pid: int | None = 4711
        self.command = command
        self.env = env
        self.signals: list[str] = []
        self.reader: FrameReader[ToWorker] = worker_reader()
        self.wire = reactor.wires[-1]
        self._reactor = reactor
        self._process = process
        self._reason: Failure | None = None
        self.holds_output = False

    def signalProcess(self, signal: str) -> None:
        """See `IProcessTransport`."""
        if self.pid is None:
            raise ProcessExitedAlready()
        self.signals.append(signal)

    def loseConnection(self) -> None:
        """See `IProcessTransport`."""
        self.holds_output = False
        self._end()

    def messages(self) -> list[ToWorker]:
        """Return the messages that the server has sent since the last call."""
        self.reader.receive(self.wire.value())
        self.wire.clear()
        return list(self.reader.messages())

    def say(self, *messages: FromWorker) -> None:
        """Send messages to the server, in one piece."""
        self.wire.protocol.dataReceived(b"".join(encode(message) for message in messages))

    def print(self, out: bytes = b"", err: bytes = b"") -> None:
        """Write to stdout and stderr."""
        self._process.outReceived(out)
        self._process.errReceived(err)

    def exit(self, code: int | None = 0, signal: int | None = None) -> None:
        """Exit and be reaped; the end of the socket is another event."""
        self.pid = None
        self._reason = Failure(ProcessTerminated(code, signal) if code or signal else ProcessDone(0))
        self._process.processExited(self._reason)
        self._end()

    def die(self, code: int | None = 0, signal: int | None = None) -> None:
        """Exit; the end of the socket is seen first."""
        self.wire.end()
        self.exit(code, signal)

    def _end(self) -> None:
        if self._reason is not None and not self.holds_output:
            reason, self._reason = self._reason, None
            self._process.processEnded(reason)


class Reactor(Clock):
    """A clock that also spawns processes and adopts sockets, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Child] = []
        self.wires: list[Wire] = []
        self.spawn_error: Exception | None = None
        self.adopt_error: Exception | None = None
        self.inherited: list[dict[int, int | str]] = []

    def adoptStreamConnection(self, descriptor: int, family: int, factory: IProtocolFactory) -> None:
        """See `IReactorSocket`."""
        if self.adopt_error is not None:
            raise self.adopt_error
        os.fstat(descriptor)
        connection = cast(WorkerConnection, factory.buildProtocol(UNIXAddress(None)))
        self.wires.append(Wire(self, connection))
        connection.makeConnection(self.wires[-1])

    def spawnProcess(
        self,
        process: WorkerProcess,
        executable: str,
        args: list[str],
        env: Mapping[str, str],
        childFDs: dict[int, int | str],
    ) -> Child:
        """See `IReactorProcess`."""
        if self.spawn_error is not None:
            raise self.spawn_error
        for descriptor in childFDs.values():
            if isinstance(descriptor, int):
                os.fstat(descriptor)
        self.inherited.append(childFDs)
        self.children.append(Child(self, process, [executable, *args], env))
        process.makeConnection(self.children[-1])
        return self.children[-1]


def jobs(*request_ids: str) -> list[Job]:
    """Make a batch."""
    return [Job(request_id, {}, []) for request_id in request_ids]


def items(*request_ids: str) -> list[Item]:
    """Make the response to a batch."""
    return [Item(request_id, 200, "", {}, b"") for request_id in request_ids]


class LocalTestCase(SynchronousTestCase):
    """The base class of tests with a provider on a reactor in memory."""

    def setUp(self) -> None:
        """Make the provider."""
        self.reactor = Reactor()
        self.printed: list[tuple[str, str, str]] = []
        self.metrics: list[str] = []
        log = Logger(observer=self.observe)  # type: ignore[arg-type]
        self.taken: list[Reading] = []
        self.provider = LocalProvider(self.reactor, log, self.metrics.append, self.taken.extend)  # type: ignore[arg-type]
        self.descriptors = self.open_descriptors()

    def tearDown(self) -> None:
        """Assert that no descriptor stays open."""
        self.assertEqual(self.descriptors, self.open_descriptors())

    def observe(self, event: Mapping[str, Any]) -> None:
        """Record a line of the model log."""
        self.assertEqual("MODEL_LOG", event["logger_name"])
        self.printed.append((event["thread_name"], event["log_level"].name, event["line"]))

    def open_descriptors(self) -> int:
        """Return the number of open descriptors of this process."""
        return len(os.listdir("/proc/self/fd"))

    def start(self, **changes: Any) -> tuple[IWorker, Child]:
        """Start a worker and return it with its child process."""
        worker = self.provider.start(changed(SPEC, **changes), Placement("9000", 1))
        return worker, self.reactor.children[-1]

    def ready(self) -> tuple[IWorker, Child]:
        """Start a worker that has loaded."""
        worker, child = self.start()
        child.say(Loaded())
        self.successResultOf(worker.loaded)
        child.messages()
        return worker, child

    def busy(
        self, on_chunk: Callable[[StreamChunk], None] = lambda chunk: None
    ) -> tuple[IWorker, Child, Deferred[Predicted]]:
        """Start a worker that has a batch."""
        worker, child = self.ready()
        answer = worker.run(7, jobs("a", "b"), on_chunk)
        self.assertEqual([Predict(7, jobs("a", "b"))], child.messages())
        return worker, child, answer

    def failed(self, result: Deferred[Any]) -> WorkerFailed:
        """Return the error with which ``result`` has failed."""
        error = self.failureResultOf(result, WorkerFailed).value
        assert isinstance(error, WorkerFailed)
        return error

    def assert_gone(self, worker: IWorker, how: str) -> None:
        """Assert that the worker is lost and has left no timer."""
        self.assertEqual(how, self.successResultOf(worker.lost))
        self.assertIsNone(worker.pid)
        self.assertEqual([], self.reactor.getDelayedCalls())
