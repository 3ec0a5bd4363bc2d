# SPDX-License-Identifier: Apache-2.0
"""Tests for workers that are forked: the server's side, with templates in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, cast

from attrs import evolve
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProtocolFactory, IReadDescriptor
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.workers.wire import Wire
from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces import IWorker, Placement, WorkerSpec
from twisted_serve.wire.codec import encode, worker_reader
from twisted_serve.wire.control import (
    Alone,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    FromTemplate,
    Signal,
    TemplateReady,
    ToTemplate,
    template_control_reader,
)
from twisted_serve.wire.messages import Loaded, LoadFailed, LoadModel
from twisted_serve.workers.connection import WorkerConnection
from twisted_serve.workers.control import FORK_LIMIT, TemplateLink
from twisted_serve.workers.family import LINGER
from twisted_serve.workers.local import LocalProvider
from twisted_serve.workers.process import WorkerProcess

SPEC = WorkerSpec("m", "1.0", Path("/models/m"), "h.py", 2, {}, {}, sys.executable, {"LANG": "C"}, 10.0)


class TemplateInMemory:
    """A template that does as the test says; at the other end of a link."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._reader = template_control_reader()

    def heard(self) -> list[ToTemplate]:
        """Give what it was asked since last time."""
        self._reader.receive(self.wire.value())
        self.wire.clear()
        return list(self._reader.messages())

    def say(self, *messages: FromTemplate) -> None:
        """Tell the server something."""
        self.wire.protocol.dataReceived(b"".join(map(encode, messages)))

    def forks(self) -> list[int]:
        """Give the numbers of the workers it was asked for, and take their ends."""
        forks = [each for each in self.heard() if isinstance(each, Fork)]
        count = sum(4 if fork.may_divide else 3 for fork in forks)
        ends, self.wire.descriptors = self.wire.descriptors[:count], self.wire.descriptors[count:]
        for descriptor in ends:
            os.close(descriptor)
        return [fork.number for fork in forks]


class Base(TemplateInMemory):
    """The process of a base template, besides."""

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
    """A clock with sockets and processes in memory; pipes are real, and read when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Wire] = []
        self.links: list[Wire] = []
        self.bases: list[Base] = []
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
            self.bases.append(Base(wire, process, command, env))
            process.makeConnection(self.bases[-1])

    def spawnProcess(
        self, process: WorkerProcess, executable: str, args: list[str], env: Mapping[str, str], childFDs: object
    ) -> Base:
        """See `IReactorProcess`."""
        if "twisted_serve.backend.base_template" in args:
            self._pending = (process, args, env)
        else:
            self.spawned.append(args)
            process.makeConnection(Base(self.frames[-1], process, args, env))
        return cast(Base, process.transport or Base)

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
        """Read what there is to be read; a pipe without writers ends."""
        for reader in list(self.readers):
            why = reader.doRead()
            if why is not None:
                reader.connectionLost(Failure(why))


class ForkingTestCase(SynchronousTestCase):
    """A provider that forks."""

    def setUp(self) -> None:
        """Make it."""
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
        """See that every descriptor has been closed."""
        self.reactor.read_all()
        self.assertEqual(self.descriptors, len(os.listdir("/proc/self/fd")))

    def start(self, number: int = 9000, spec: WorkerSpec = SPEC, gpu: int | None = None) -> IWorker:
        """Start a worker."""
        return self.provider.start(spec, Placement(str(number), gpu))

    def base(self) -> Base:
        """Give the base template, which is ready."""
        base = self.reactor.bases[-1]
        base.say(TemplateReady())
        return base

    def loaded(self, wire: Wire) -> None:
        """Have the worker at the other end say that it has loaded."""
        wire.protocol.dataReceived(bytes(encode(Loaded())))

    def failed(self, worker: IWorker) -> WorkerFailed:
        """Give the error with which it has failed to load."""
        error = self.failureResultOf(worker.loaded, WorkerFailed).value
        assert isinstance(error, WorkerFailed)
        return error

    def shared(self) -> tuple[IWorker, Base, TemplateInMemory]:
        """Start a worker which has become the template of its siblings; give the three."""
        worker = self.start()
        base = self.base()
        [number] = base.forks()
        base.say(Forked(number, 100))
        model = TemplateInMemory(self.reactor.links[-1])
        model.say(Forked(number, 101))
        self.loaded(self.reactor.frames[-1])
        self.successResultOf(worker.loaded)
        return worker, base, model


class BaseTests(ForkingTestCase):
    """The server's own template."""

    def test_command(self) -> None:
        """It is started once, in our interpreter, with one thread and nothing of any model."""
        first, second = self.start(), self.start(9001, evolve(SPEC))
        [base] = self.reactor.bases
        self.assertEqual(base.command, [sys.executable, "-m", "twisted_serve.backend.base_template", "--fd", "3"])
        self.assertEqual((base.env["HOME"], base.env["OMP_NUM_THREADS"]), ("/h", "1"))
        self.assertNotIn("/models/m", base.env.get("PYTHONPATH", ""))
        self.assertIsNone(first.pid)
        self.assertNoResult(second.loaded)

    def test_prepared(self) -> None:
        """It can be begun before there is a worker."""
        self.provider.prepare()
        self.assertEqual(1, len(self.reactor.bases))
        self.provider.prepare()
        self.base()
        self.start()
        self.assertEqual(1, len(self.reactor.bases))

    def test_cannot_start(self) -> None:
        """If it cannot start, workers do by themselves, with one line in the log; it is tried again after a while."""
        first = self.start()
        self.reactor.bases[0].die(SIGKILL, b"no torch today\n")
        self.assertEqual(1, len(self.reactor.spawned))
        second = self.start(9001)
        self.assertEqual(2, len(self.reactor.spawned))
        self.assertEqual(1, len(self.reactor.bases))
        self.loaded(self.reactor.frames[0])
        self.successResultOf(first.loaded)
        self.assertFalse(first.shares_weights)
        self.reactor.advance(60.0)
        self.failureResultOf(second.loaded, WorkerFailed)
        self.start(9002)
        self.assertEqual(2, len(self.reactor.bases))

    def test_too_slow(self) -> None:
        """One that does not get ready is killed."""
        self.start()
        self.reactor.advance(60.0)
        [base] = self.reactor.bases
        self.assertEqual(["KILL"], base.signals)
        base.die(SIGKILL)
        self.assertEqual(1, len(self.reactor.spawned))

    def test_dies(self) -> None:
        """When it dies, so do its workers, as if killed; the next worker has another."""
        worker, base, _ = self.shared()
        alone = self.start(9001, evolve(SPEC, share_weights=False))
        [number] = base.forks()
        base.say(Forked(number, 102))
        self.assertEqual(102, alone.pid)
        base.die(SIGKILL)
        self.reactor.frames[-1].end()
        self.reactor.read_all()
        self.assertEqual("it was ended by SIGKILL", self.successResultOf(alone.lost))
        self.failureResultOf(alone.loaded, WorkerFailed)
        self.assertNoResult(worker.lost)
        self.start(9002, evolve(SPEC))
        self.assertEqual(2, len(self.reactor.bases))

    def test_stop(self) -> None:
        """It ends with the provider, and is made to if it does not."""
        worker, base, model = self.shared()
        stopped = self.provider.stop()
        self.reactor.advance(0)
        self.assertTrue(self.reactor.frames[0].closed)
        model.say(Exited(1, 0))
        self.reactor.read_all()
        self.successResultOf(worker.lost)
        self.reactor.advance(0)
        self.assertTrue(base.wire.closed)
        self.assertTrue(model.wire.closed)
        self.assertNoResult(stopped)
        self.reactor.advance(5.0)
        self.assertIn("KILL", base.signals)
        base.die(SIGKILL)
        self.successResultOf(stopped)
        self.assertEqual([], self.reactor.getDelayedCalls())
        self.assert_nothing_open()

    def test_stop_while_it_starts(self) -> None:
        """A provider can be stopped at any time."""
        worker = self.start()
        stopped = self.provider.stop()
        self.assertEqual("The worker was stopped before it had loaded.", self.failed(worker).message)
        self.reactor.bases[0].die()
        self.successResultOf(stopped)
        self.reactor.advance(0)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_nonsense(self) -> None:
        """One that breaks the protocol is killed."""
        self.start()
        base = self.base()
        base.forks()
        base.wire.protocol.dataReceived(b"\xff\xff\xff\xff")
        self.assertEqual(["KILL"], base.signals)

    def test_own_interpreter(self) -> None:
        """A model with an interpreter of its own is not forked from ours."""
        self.start(spec=evolve(SPEC, python="/venv/bin/python"))
        self.assertEqual([], self.reactor.bases)
        self.assertEqual("/venv/bin/python", self.reactor.spawned[0][0])


class FamilyTests(ForkingTestCase):
    """The workers of a version."""

    def test_first(self) -> None:
        """The first loads while the others wait; then they are forked from it."""
        first, second = self.start(), self.start(9001)
        base = self.base()
        [fork] = base.heard()
        assert isinstance(fork, Fork)
        assert fork.environment is not None
        self.assertEqual((fork.name, fork.may_divide, fork.environment["LANG"]), ("ts-W-9000", True, "C"))
        self.assertTrue(fork.environment["PYTHONPATH"].endswith("/models/m"))
        reader = worker_reader()
        reader.receive(self.reactor.frames[0].value())
        [load] = reader.messages()
        self.assertIsInstance(load, LoadModel)
        base.say(Forked(fork.number, 100))
        self.assertEqual((100, None), (first.pid, second.pid))

        model = TemplateInMemory(self.reactor.links[-1])
        model.say(Forked(fork.number, 101))
        self.loaded(self.reactor.frames[0])
        self.successResultOf(first.loaded)
        self.assertEqual((101, True), (first.pid, first.shares_weights))
        [again] = model.heard()
        self.assertEqual(Fork(2, "ts-W-9001"), again)
        model.say(Forked(2, 102))
        self.assertEqual((102, True), (second.pid, second.shares_weights))
        # What comes of the process that has become the template is not the worker's end.
        base.say(Exited(fork.number, 0))
        self.assertEqual(101, first.pid)
        self.assertEqual([], base.heard())

    def test_alone(self) -> None:
        """If the first cannot be forked each loads for itself, and the log has the reason."""
        first, second = self.start(), self.start(9001)
        base = self.base()
        [number] = base.forks()
        base.say(Forked(number, 100))
        TemplateInMemory(self.reactor.links[-1]).say(Alone("it holds socket open"))
        self.reactor.links[-1].end()
        self.loaded(self.reactor.frames[0])
        self.successResultOf(first.loaded)
        self.assertEqual((100, False), (first.pid, first.shares_weights))
        [fork] = base.heard()
        assert isinstance(fork, Fork)
        self.assertFalse(fork.may_divide)
        self.assertEqual("m", cast(LoadModel, self.first_message(1)).model_name)
        base.say(Exited(number, SIGTERM))
        self.reactor.frames[0].end()
        self.reactor.read_all()
        self.assertNoResult(second.loaded)

    def first_message(self, at: int) -> object:
        """Read what the worker with the ``at``-th socket was told first."""
        reader = worker_reader()
        reader.receive(self.reactor.frames[at].value())
        return next(iter(reader.messages()))

    def test_unwanted(self) -> None:
        """Workers with a device, or that must not share, load each for themselves, at once."""
        for changes, gpu in (({"share_weights": False}, None), ({}, 1)):
            spec = evolve(SPEC, **changes)  # type: ignore[arg-type]
            self.start(spec=spec, gpu=gpu)
            self.start(spec=spec, gpu=gpu)
        base = self.base()
        self.assertEqual([False] * 4, [each.may_divide for each in base.heard() if isinstance(each, Fork)])

    def test_cannot_load(self) -> None:
        """What the first cannot load the others cannot either; the next to come tries again."""
        first, second = self.start(), self.start(9001)
        base = self.base()
        [number] = base.forks()
        base.say(Forked(number, 100))
        self.reactor.frames[0].protocol.dataReceived(bytes(encode(LoadFailed(507, "no memory"))))
        self.assertEqual((507, "no memory"), (self.failed(first).status, self.failed(second).message))
        self.successResultOf(second.lost)
        # The exit is known when it is known that nothing goes on in its place.
        base.say(Exited(number, 1 << 8))
        self.reactor.frames[0].end()
        self.reactor.read_all()
        self.assertNoResult(first.lost)
        self.reactor.links[-1].end()
        self.reactor.read_all()
        self.assertEqual("it exited with code 1", self.successResultOf(first.lost))
        self.start()
        self.assertEqual(1, len(base.forks()))
        self.assertEqual(1, len(self.reactor.bases))

    def test_first_is_stopped(self) -> None:
        """When the first is sent away while it loads, the next takes its place."""
        first, second, third = self.start(), self.start(9001), self.start(9002)
        base = self.base()
        [number] = base.forks()
        base.say(Forked(number, 100))
        third.stop(10.0)
        self.assertIn("stopped", self.failed(third).message)
        first.stop(0.0)
        self.reactor.advance(0)
        self.assertEqual([Signal(number, SIGTERM)], base.heard())
        base.say(Exited(number, SIGTERM))
        self.reactor.links[-1].end()
        self.reactor.read_all()
        self.failed(first)
        self.successResultOf(first.lost)
        [fork] = base.heard()
        assert isinstance(fork, Fork)
        self.assertEqual(("ts-W-9001", True), (fork.name, fork.may_divide))
        self.assertNoResult(second.loaded)

    def test_no_fork(self) -> None:
        """A fork that fails is a worker that could not load, and leaves nothing open."""
        worker = self.start(spec=evolve(SPEC, share_weights=False))
        base = self.base()
        [number] = base.forks()
        base.say(ForkFailed(number, "fork: Resource temporarily unavailable"))
        self.assertEqual(
            "The worker's process could not be started: fork: Resource temporarily unavailable",
            self.failed(worker).message,
        )
        self.reactor.advance(0)
        self.reactor.read_all()
        self.successResultOf(worker.lost)
        self.assert_nothing_open()

    def test_does_not_fork(self) -> None:
        """A template that does not fork, because it is stopped say, is ended; the next worker gets another one."""
        worker = self.start(spec=evolve(SPEC, share_weights=False, startup_timeout=120.0))
        base = self.base()
        base.forks()
        self.reactor.advance(FORK_LIMIT)
        self.reactor.advance(0)
        self.assertEqual(["KILL"], base.signals)
        self.reactor.frames[0].end()
        self.reactor.read_all()
        self.assertIn("it was ended by SIGKILL", self.failed(worker).message)
        self.successResultOf(worker.lost)
        base.die(SIGKILL)
        self.start(9001)
        self.assertEqual(2, len(self.reactor.bases))
        self.assertEqual(1, len(self.base().forks()))

    def test_forks_slowly(self) -> None:
        """A template has its time for each fork, however many are asked for at once."""
        spec = evolve(SPEC, share_weights=False, startup_timeout=120.0)
        workers = [self.start(9000 + each, spec) for each in range(3)]
        base = self.base()
        for number in base.forks():
            self.reactor.advance(FORK_LIMIT - 1)
            base.say(Forked(number, 100 + number))
        self.reactor.advance(FORK_LIMIT)
        self.assertEqual([], base.signals)
        self.assertEqual([101, 102, 103], [worker.pid for worker in workers])

    def test_template_dies(self) -> None:
        """The workers of a template die with it, and the next worker loads again."""
        worker, base, model = self.shared()
        model.wire.end()
        self.reactor.frames[0].end()
        self.reactor.read_all()
        self.assertEqual("it was ended by SIGKILL", self.successResultOf(worker.lost))
        # Whatever it is that closed the connection, it is not let live.
        self.assertEqual([Signal(1, SIGKILL)], base.heard())
        self.start(9001)
        [fork] = base.heard()
        assert isinstance(fork, Fork)
        self.assertTrue(fork.may_divide)

    def test_stuck(self) -> None:
        """A template which does not kill what it is told to is ended itself: nobody waits for it for ever."""
        worker, base, model = self.shared()
        stopped = worker.stop(0.0)
        for _ in range(4):
            self.reactor.advance(5.0)
        self.assertEqual([Signal(1, SIGTERM), Signal(1, SIGKILL)], model.heard())
        self.assertEqual([Signal(1, SIGKILL)], base.heard())
        self.assertTrue(model.wire.closed)
        self.reactor.read_all()
        self.successResultOf(stopped)

    def test_lingers(self) -> None:
        """A template whose workers are gone is kept for a while, and then not."""
        worker, _, model = self.shared()
        worker.stop(0.0)
        self.end_worker(model, 1)
        self.successResultOf(worker.lost)
        self.reactor.advance(LINGER - 1)
        again = self.start(9000)
        [number] = model.forks()
        model.say(Forked(number, 105))
        self.loaded(self.reactor.frames[-1])
        self.successResultOf(again.loaded)
        self.reactor.advance(10.0)
        self.assertEqual(105, again.pid)
        self.assertFalse(model.wire.closed)
        again.stop(0.0)
        self.end_worker(model, 2)
        self.reactor.advance(LINGER)
        self.reactor.advance(0)
        self.assertTrue(model.wire.closed)

    def end_worker(self, model: TemplateInMemory, number: int) -> None:
        """Have a worker end that was asked to."""
        self.reactor.advance(0)
        model.say(Exited(number, 0))
        self.reactor.frames[number - 1].end()
        self.reactor.read_all()

    def test_forgotten(self) -> None:
        """A version that is no more has no template; one that is forgotten while it loads gets none."""
        _, base, model = self.shared()
        self.provider.forget(evolve(SPEC))
        self.reactor.advance(0)
        self.assertFalse(model.wire.closed)
        self.provider.forget(SPEC)
        self.reactor.advance(0)
        self.assertTrue(model.wire.closed)
        spec = evolve(SPEC)
        self.start(9001, spec)
        [number] = base.forks()
        self.provider.forget(spec)
        TemplateInMemory(self.reactor.links[-1]).say(Forked(number, 200))
        self.reactor.advance(0)
        self.assertTrue(self.reactor.links[-1].closed)

    def test_same_directory_again(self) -> None:
        """A model that is registered again is loaded again, even if nothing that we know of it is different."""
        self.shared()
        self.start(9001, evolve(SPEC))
        self.assertEqual(1, len(self.reactor.bases[0].forks()))

    def test_lies(self) -> None:
        """The code of a model can write what it likes to its control socket; it concerns nobody else."""
        _, base, model = self.shared()
        alone = self.start(9001, evolve(SPEC, share_weights=False))
        [number] = base.forks()
        base.say(Forked(number, 102))
        model.say(Forked(number, 1), Exited(number, 0), ForkFailed(77, "x"))
        self.assertEqual(102, alone.pid)
        model.say(TemplateReady())
        self.assertIn(Signal(1, SIGKILL), base.heard())
        link = model.wire.protocol
        assert isinstance(link, TemplateLink)
        self.assertFalse(link.is_open)


class OutputTests(ForkingTestCase):
    """What forked workers print."""

    def test_lines(self) -> None:
        """What is written to a worker's pipe comes under the worker's name."""
        self.start(spec=evolve(SPEC, share_weights=False))
        base = self.base()
        base.heard()
        _, out, err = base.wire.descriptors
        os.write(out, b"hello\n")
        os.write(err, b"oops\n")
        self.reactor.read_all()
        self.assertEqual(
            [("W-9000-m_1.0-stdout", "hello"), ("W-9000-m_1.0-stderr", "oops")],
            [(event["thread_name"], event["line"]) for event in self.events],
        )
        for descriptor in base.wire.descriptors:
            os.close(descriptor)
