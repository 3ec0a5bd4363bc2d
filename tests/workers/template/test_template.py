# SPDX-License-Identifier: Apache-2.0
"""Tests for the server's side of forked workers, with templates in memory."""

from __future__ import annotations

import os
from signal import SIGKILL
from typing import cast

from attrs import evolve

from tests.specs import changed
from tests.workers.template.forking_case import SPEC, ForkingTestCase, TemplateInMemory
from twisted_serve.wire.codec import encode, worker_reader
from twisted_serve.wire.control import (
    Alone,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    Signal,
    TemplateReady,
)
from twisted_serve.wire.messages import LoadFailed, LoadModel
from twisted_serve.workers.template.link import FORK_LIMIT, TemplateLink
from twisted_serve.workers.template.version_template import LINGER


class VersionTemplateTests(ForkingTestCase):
    """The workers of a version."""

    def test_first(self) -> None:
        """The first worker loads while the others wait; then they are forked from it."""
        first, second = self.start(), self.start(9001)
        root = self.root()
        [fork] = root.heard()
        assert isinstance(fork, Fork)
        assert fork.environment is not None
        self.assertEqual((fork.name, fork.may_divide, fork.environment["LANG"]), ("ts-W-9000", True, "C"))
        self.assertTrue(fork.environment["PYTHONPATH"].endswith("/models/m"))
        reader = worker_reader()
        reader.receive(self.reactor.frames[0].value())
        [load] = reader.messages()
        self.assertIsInstance(load, LoadModel)
        root.say(Forked(fork.number, 100))
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
        # The exit of the process that has become the template is not the worker's end.
        root.say(Exited(fork.number, 0))
        self.assertEqual(101, first.pid)
        self.assertEqual([], root.heard())

    def test_alone(self) -> None:
        """If the first cannot be forked, each worker loads for itself, and the log has the reason."""
        first, second = self.start(), self.start(9001)
        root = self.root()
        [number] = root.forks()
        root.say(Forked(number, 100))
        TemplateInMemory(self.reactor.links[-1]).say(Alone("it holds socket open"))
        self.reactor.links[-1].end()
        self.loaded(self.reactor.frames[0])
        self.successResultOf(first.loaded)
        self.assertEqual((100, False), (first.pid, first.shares_weights))
        [fork] = root.heard()
        assert isinstance(fork, Fork)
        self.assertFalse(fork.may_divide)
        self.assertEqual("m", cast(LoadModel, self.first_message(1)).model_name)
        root.say(Exited(number, SIGKILL))
        self.reactor.frames[0].end()
        self.reactor.read_all()
        self.assertNoResult(second.loaded)

    def first_message(self, at: int) -> object:
        """Return the first message to the worker with the ``at``-th socket."""
        reader = worker_reader()
        reader.receive(self.reactor.frames[at].value())
        return next(iter(reader.messages()))

    def test_unwanted(self) -> None:
        """Workers with a GPU, or that must not share, load for themselves, immediately."""
        for changes, gpu in (({"share_weights": False}, None), ({}, 1)):
            spec = changed(SPEC, **changes)
            self.start(spec=spec, gpu=gpu)
            self.start(spec=spec, gpu=gpu)
        root = self.root()
        self.assertEqual([False] * 4, [each.may_divide for each in root.heard() if isinstance(each, Fork)])

    def test_cannot_load(self) -> None:
        """If the first fails to load, so do the waiting ones; the next worker tries again."""
        first, second = self.start(), self.start(9001)
        root = self.root()
        [number] = root.forks()
        root.say(Forked(number, 100))
        self.reactor.frames[0].protocol.dataReceived(bytes(encode(LoadFailed(507, "no memory"))))
        self.assertEqual((507, "no memory"), (self.failed(first).status, self.failed(second).message))
        self.successResultOf(second.lost)
        # The exit is reported once it is known that no fork continues as the worker.
        root.say(Exited(number, 1 << 8))
        self.reactor.frames[0].end()
        self.reactor.read_all()
        self.assertNoResult(first.lost)
        self.reactor.links[-1].end()
        self.reactor.read_all()
        self.assertEqual("it exited with code 1", self.successResultOf(first.lost))
        self.start()
        self.assertEqual(1, len(root.forks()))
        self.assertEqual(1, len(self.reactor.roots))

    def test_first_is_stopped(self) -> None:
        """When the first is stopped while it loads, the next takes its place."""
        first, second, third = self.start(), self.start(9001), self.start(9002)
        root = self.root()
        [number] = root.forks()
        root.say(Forked(number, 100))
        third.stop(10.0)
        self.assertIn("stopped", self.failed(third).message)
        first.stop(0.0)
        self.reactor.advance(0)
        self.assertEqual([Signal(number, SIGKILL)], root.heard())
        root.say(Exited(number, SIGKILL))
        self.reactor.links[-1].end()
        self.reactor.read_all()
        self.failed(first)
        self.successResultOf(first.lost)
        [fork] = root.heard()
        assert isinstance(fork, Fork)
        self.assertEqual(("ts-W-9001", True), (fork.name, fork.may_divide))
        self.assertNoResult(second.loaded)

    def test_no_fork(self) -> None:
        """A failed fork is a worker that failed to load, and leaves nothing open."""
        worker = self.start(spec=changed(SPEC, share_weights=False))
        root = self.root()
        [number] = root.forks()
        root.say(ForkFailed(number, "fork: Resource temporarily unavailable"))
        self.assertEqual(
            "The worker's process could not be started: fork: Resource temporarily unavailable",
            self.failed(worker).message,
        )
        self.reactor.advance(0)
        self.reactor.read_all()
        self.successResultOf(worker.lost)
        self.assert_nothing_open()

    def test_does_not_fork(self) -> None:
        """A template that does not fork (a stopped one, for example) is ended; the next worker gets another one."""
        worker = self.start(spec=changed(SPEC, share_weights=False, startup_timeout=120.0))
        root = self.root()
        root.forks()
        self.reactor.advance(FORK_LIMIT)
        self.reactor.advance(0)
        self.assertEqual(["KILL"], root.signals)
        self.reactor.frames[0].end()
        self.reactor.read_all()
        self.assertIn("it was ended by SIGKILL", self.failed(worker).message)
        self.successResultOf(worker.lost)
        root.die(SIGKILL)
        self.start(9001)
        self.assertEqual(2, len(self.reactor.roots))
        self.assertEqual(1, len(self.root().forks()))

    def test_forks_slowly(self) -> None:
        """The time limit of a template is for each fork, however many are requested together."""
        spec = changed(SPEC, share_weights=False, startup_timeout=120.0)
        workers = [self.start(9000 + each, spec) for each in range(3)]
        root = self.root()
        for number in root.forks():
            self.reactor.advance(FORK_LIMIT - 1)
            root.say(Forked(number, 100 + number))
        self.reactor.advance(FORK_LIMIT)
        self.assertEqual([], root.signals)
        self.assertEqual([101, 102, 103], [worker.pid for worker in workers])

    def test_template_dies(self) -> None:
        """The workers of a template die with it, and the next worker loads again."""
        worker, root, model = self.shared()
        model.wire.end()
        self.reactor.frames[0].end()
        self.reactor.read_all()
        self.assertEqual("it was ended by SIGKILL", self.successResultOf(worker.lost))
        # The process is killed even if it only closed its connection.
        self.assertEqual([Signal(1, SIGKILL)], root.heard())
        self.start(9001)
        [fork] = root.heard()
        assert isinstance(fork, Fork)
        self.assertTrue(fork.may_divide)

    def test_stuck(self) -> None:
        """A template that does not kill a process as told is ended itself."""
        worker, root, model = self.shared()
        stopped = worker.stop(0.0)
        for _ in range(4):
            self.reactor.advance(5.0)
        self.assertEqual([Signal(1, SIGKILL)], model.heard())
        self.assertEqual([Signal(1, SIGKILL)], root.heard())
        self.assertTrue(model.wire.closed)
        self.reactor.read_all()
        self.successResultOf(stopped)

    def test_lingers(self) -> None:
        """A template whose workers are gone is kept for a while, and then ended."""
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
        """Have a worker exit that was asked to."""
        self.reactor.advance(0)
        model.say(Exited(number, 0))
        self.reactor.frames[number - 1].end()
        self.reactor.read_all()

    def test_forgotten(self) -> None:
        """The template of an unregistered version ends; a version unregistered while it loads gets none."""
        _, root, model = self.shared()
        self.provider.forget(evolve(SPEC))
        self.reactor.advance(0)
        self.assertFalse(model.wire.closed)
        self.provider.forget(SPEC)
        self.reactor.advance(0)
        self.assertTrue(model.wire.closed)
        spec = evolve(SPEC)
        self.start(9001, spec)
        [number] = root.forks()
        self.provider.forget(spec)
        TemplateInMemory(self.reactor.links[-1]).say(Forked(number, 200))
        self.reactor.advance(0)
        self.assertTrue(self.reactor.links[-1].closed)

    def test_same_directory_again(self) -> None:
        """A model that is registered again is loaded again, even if nothing known about it has changed."""
        self.shared()
        self.start(9001, evolve(SPEC))
        self.assertEqual(1, len(self.reactor.roots[0].forks()))

    def test_unexpected_messages(self) -> None:
        """A model's code may write anything to its control socket; no other version is affected."""
        _, root, model = self.shared()
        alone = self.start(9001, changed(SPEC, share_weights=False))
        [number] = root.forks()
        root.say(Forked(number, 102))
        model.say(Forked(number, 1), Exited(number, 0), ForkFailed(77, "x"))
        self.assertEqual(102, alone.pid)
        model.say(TemplateReady())
        self.assertIn(Signal(1, SIGKILL), root.heard())
        link = model.wire.protocol
        assert isinstance(link, TemplateLink)
        self.assertFalse(link.is_open)


class OutputTests(ForkingTestCase):
    """The output of forked workers."""

    def test_lines(self) -> None:
        """Output from a worker's pipe is logged under the worker's name."""
        self.start(spec=changed(SPEC, share_weights=False))
        root = self.root()
        root.heard()
        _, out, err = root.wire.descriptors
        os.write(out, b"hello\n")
        os.write(err, b"oops\n")
        self.reactor.read_all()
        self.assertEqual(
            [("W-9000-m_1.0-stdout", "hello"), ("W-9000-m_1.0-stderr", "oops")],
            [(event["thread_name"], event["line"]) for event in self.events],
        )
        for descriptor in root.wire.descriptors:
            os.close(descriptor)
