# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the tests of forked workers: a reactor with templates in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProtocolFactory, IReadDescriptor
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from tests.workers.wire import Wire
from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces import IWorker, Placement, WorkerSpec
from twisted_serve.wire.codec import encode
from twisted_serve.wire.control import (
    Fork,
    Forked,
    FromTemplate,
    TemplateReady,
    ToTemplate,
    template_control_reader,
)
from twisted_serve.wire.messages import Loaded
from twisted_serve.workers.local import LocalProvider
from twisted_serve.workers.process.connection import WorkerConnection
from twisted_serve.workers.process.process import WorkerProcess

SPEC = worker_spec("m", "1.0", Path("/models/m"), "h.py", 2, {}, {}, sys.executable, {"LANG": "C"}, 10.0)


class TemplateInMemory:
    """A template that the test controls, at the other end of a link."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._reader = template_control_reader()

    def heard(self) -> list[ToTemplate]:
        """Return the messages that the server has sent since the last call."""
        self._reader.receive(self.wire.value())
        self.wire.clear()
        return list(self._reader.messages())

    def say(self, *messages: FromTemplate) -> None:
        """Send messages to the server."""
        self.wire.protocol.dataReceived(b"".join(map(encode, messages)))

    def forks(self) -> list[int]:
        """Return the numbers of the requested forks, and take their descriptors."""
        forks = [each for each in self.heard() if isinstance(each, Fork)]
        count = sum(4 if fork.may_divide else 3 for fork in forks)
        ends, self.wire.descriptors = self.wire.descriptors[:count], self.wire.descriptors[count:]
        for descriptor in ends:
            os.close(descriptor)
        return [fork.number for fork in forks]


class RootInMemory(TemplateInMemory):
    """The process of a root template."""

    def __init__(self, wire: Wire, process: WorkerProcess, command: list[str], env: Mapping[str, str]) -> None:
        super().__init__(wire)
        self.command = command
        self.env = env
        self.signals: list[str] = []
        self._process = process

    pid = 99

    def signalProcess(self, signal: str) -> None:
        """See `IProcessTransport`."""
        self.signals.append(signal)

    def loseConnection(self) -> None:
        """See `IProcessTransport`."""

    def die(self, signal: int | None = None, words: bytes = b"") -> None:
        """End."""
        self.wire.end()
        self._process.errReceived(words)
        reason = Failure(ProcessTerminated(None, signal) if signal else ProcessDone(0))
        self._process.processExited(reason)
        self._process.processEnded(reason)


class Reactor(Clock):
    """A clock with sockets and processes in memory; pipes are real, and read when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Wire] = []
        self.links: list[Wire] = []
        self.roots: list[RootInMemory] = []
        self.spawned: list[list[str]] = []
        self.readers: list[Any] = []
        self._pending: tuple[WorkerProcess, list[str], Mapping[str, str]] | None = None

    def adoptStreamConnection(self, descriptor: int, family: int, factory: IProtocolFactory) -> None:
        """See `IReactorSocket`."""
        os.fstat(descriptor)
        protocol = cast(Protocol, factory.buildProtocol(UNIXAddress(None)))
        wire = Wire(self, protocol)
        (self.frames if isinstance(protocol, WorkerConnection) else self.links).append(wire)
        protocol.makeConnection(wire)
        if self._pending is not None:
            process, command, env = self._pending
            self._pending = None
            self.roots.append(RootInMemory(wire, process, command, env))
            process.makeConnection(self.roots[-1])

    def spawnProcess(
        self, process: WorkerProcess, executable: str, args: list[str], env: Mapping[str, str], childFDs: object
    ) -> RootInMemory:
        """See `IReactorProcess`."""
        if "twisted_serve.backend.template.root" in " ".join(args):
            self._pending = (process, args, env)
        else:
            self.spawned.append(args)
            process.makeConnection(RootInMemory(self.frames[-1], process, args, env))
        return cast(RootInMemory, process.transport or RootInMemory)

    def addReader(self, reader: IReadDescriptor) -> None:
        """See `IReactorFDSet`."""
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """See `IReactorFDSet`."""
        if reader in self.readers:
            self.readers.remove(reader)

    def removeWriter(self, writer: object) -> None:
        """See `IReactorFDSet`."""

    def read_all(self) -> None:
        """Read all pipes; a pipe without writers ends."""
        for reader in list(self.readers):
            why = reader.doRead()
            if why is not None:
                reader.connectionLost(Failure(why))


class ForkingTestCase(SynchronousTestCase):
    """The base class of tests with a provider that forks."""

    def setUp(self) -> None:
        """Make the provider."""
        self.reactor = Reactor()
        self.events: list[Mapping[str, Any]] = []
        log = Logger(observer=self.events.append)  # type: ignore[arg-type]
        self.provider = LocalProvider(
            self.reactor,  # type: ignore[arg-type]
            log,
            template_environment={"HOME": "/h"},
        )
        self.descriptors = len(os.listdir("/proc/self/fd"))

    def assert_nothing_open(self) -> None:
        """Assert that every descriptor has been closed."""
        self.reactor.read_all()
        self.assertEqual(self.descriptors, len(os.listdir("/proc/self/fd")))

    def start(self, number: int = 9000, spec: WorkerSpec = SPEC, gpu: int | None = None) -> IWorker:
        """Start a worker."""
        return self.provider.start(spec, Placement(str(number), gpu))

    def root(self) -> RootInMemory:
        """Return the root template, which is ready."""
        root = self.reactor.roots[-1]
        root.say(TemplateReady())
        return root

    def loaded(self, wire: Wire) -> None:
        """Have the worker at the other end report that it has loaded."""
        wire.protocol.dataReceived(bytes(encode(Loaded())))

    def failed(self, worker: IWorker) -> WorkerFailed:
        """Return the error with which the worker has failed to load."""
        error = self.failureResultOf(worker.loaded, WorkerFailed).value
        assert isinstance(error, WorkerFailed)
        return error

    def shared(self) -> tuple[IWorker, RootInMemory, TemplateInMemory]:
        """Start a worker that has become the template of its siblings; return it, the root and the template."""
        worker = self.start()
        root = self.root()
        [number] = root.forks()
        root.say(Forked(number, 100))
        model = TemplateInMemory(self.reactor.links[-1])
        model.say(Forked(number, 101))
        self.loaded(self.reactor.frames[-1])
        self.successResultOf(worker.loaded)
        return worker, root, model
