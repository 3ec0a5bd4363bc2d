# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workers.local` and `twisted_serve.workers.process`, with a reactor in memory."""

from __future__ import annotations

from pathlib import Path
from signal import SIGKILL
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import twisted_serve
from tests.specs import changed
from tests.workers.local_case import SPEC, LocalTestCase, items, jobs
from twisted_serve.errors import WorkerDied
from twisted_serve.interfaces import IWorker, IWorkerProvider, Placement
from twisted_serve.wire.messages import (
    LoadFailed,
    LoadModel,
    Predicted,
    PredictFailed,
    Reading,
)
from twisted_serve.workers.process.launch import module_command, worker_environment
from twisted_serve.workers.process.process import Exit


class StartTests(LocalTestCase):
    """The start of a worker."""

    def test_contract(self) -> None:
        """Provider and worker provide their interfaces."""
        verifyObject(IWorkerProvider, self.provider)
        verifyObject(IWorker, self.start()[0])

    def test_command(self) -> None:
        """A worker runs the version's interpreter, with its socket at descriptor 3, nothing at 0 and no others."""
        worker, child = self.start()
        self.assertEqual(["python9", *module_command("python9", "twisted_serve.backend", "--fd", "3")], child.command)
        self.assertEqual({0, 1, 2, 3}, set(self.reactor.inherited[0]))
        self.assertEqual({"LANG", "PYTHONPATH"}, set(child.env))
        self.assertEqual(4711, worker.pid)

    def test_first_message(self) -> None:
        """A worker is sent the model to load and its device."""
        _, child = self.start(model_config={"x": [1]}, envelope="json")
        (load,) = child.messages()
        assert isinstance(load, LoadModel)
        self.assertEqual(
            ("m", "1.0", "/models/m", "h.py"), (load.model_name, load.model_version, load.model_dir, load.handler)
        )
        self.assertEqual(
            ({"a": 1}, {"x": [1]}, "json", 1), (load.manifest, load.model_config, load.envelope, load.gpu_id)
        )
        # What handlers compare is the version of TorchServe, as in `ts.__version__`.
        self.assertEqual(twisted_serve.COMPATIBLE_WITH, load.server_version)

    def test_loaded(self) -> None:
        """A worker that has loaded has no time limit."""
        worker, _ = self.ready()
        self.reactor.advance(1000.0)
        self.assertNoResult(worker.lost)

    def test_cannot_load(self) -> None:
        """A worker that fails to load gives the reason; it is asked to exit, and killed if it does not."""
        worker, child = self.start()
        child.say(LoadFailed(507, "System out of memory"))
        error = self.failed(worker.loaded)
        self.assertEqual((507, "System out of memory"), (error.status, error.message))
        self.reactor.advance(5.0)
        self.assertEqual(["KILL"], child.signals)
        child.die(1)
        self.assert_gone(worker, "it exited with code 1")

    def test_too_slow(self) -> None:
        """A worker that does not load in time is killed; that does not count as a lack of memory."""
        worker, child = self.start()
        self.reactor.advance(10.0)
        error = self.failed(worker.loaded)
        self.assertEqual((500, "The worker did not load within 10 seconds."), (error.status, error.message))
        self.reactor.advance(0)
        self.assertEqual(["KILL"], child.signals)
        self.reactor.advance(5.0)
        self.assertEqual(["KILL"], child.signals)
        child.die(None, SIGKILL)
        self.assert_gone(worker, "it was ended by SIGKILL")

    def test_dies_before_it_has_loaded(self) -> None:
        """A worker that dies early fails with its exit code and its last line."""
        worker, child = self.start()
        child.print(err=b"Traceback\nModuleNotFoundError: No module named 'x'\n\n")
        child.die(1)
        error = self.failed(worker.loaded)
        self.assertEqual(500, error.status)
        self.assertEqual(
            "The worker died before it had loaded: it exited with code 1: ModuleNotFoundError: No module named 'x'",
            error.message,
        )
        self.assert_gone(worker, "it exited with code 1")

    def test_killed_before_it_has_loaded(self) -> None:
        """A worker that is killed while it loads has probably used too much memory."""
        for code, signal in ((None, SIGKILL), (137, None)):
            worker, child = self.start()
            child.die(code, signal)
            self.assertEqual(507, self.failed(worker.loaded).status)

    def test_last_message_read_after_the_exit(self) -> None:
        """The last message of a worker counts even if its exit is noticed first."""
        worker, child = self.start()
        child.exit(1)
        child.say(LoadFailed(500, "SyntaxError: invalid syntax"))
        child.wire.end()
        self.assertEqual("SyntaxError: invalid syntax", self.failed(worker.loaded).message)
        self.reactor.advance(0)
        self.assert_gone(worker, "it exited with code 1")

    def test_no_such_interpreter(self) -> None:
        """A process that cannot be spawned is a worker that failed to load, not an exception, and leaves nothing."""
        for error in (FileNotFoundError(2, "No such file or directory", "python9"), ValueError("embedded null byte")):
            self.reactor.spawn_error = error
            worker = self.provider.start(SPEC, Placement("9000"))
            self.assertIn(str(error), self.failed(worker.loaded).message)
            self.successResultOf(worker.lost)
            self.successResultOf(worker.stop(1.0))
            self.reactor.advance(0)
            self.assertTrue(self.reactor.wires[-1].closed)
            self.assertRaises(WorkerDied, worker.run, 1, jobs("a"), lambda chunk: None)
            worker.cancel(["a"])
            self.assertEqual([], self.reactor.getDelayedCalls())

    def test_no_descriptors_left(self) -> None:
        """Running out of descriptors is not an exception, either."""
        self.reactor.adopt_error = OSError(24, "Too many open files")
        worker = self.provider.start(SPEC, Placement("9000"))
        self.assertIn("Too many open files", self.failed(worker.loaded).message)
        self.successResultOf(worker.lost)
        self.assertEqual([], self.reactor.children)

    def test_strange_configuration(self) -> None:
        """Values that YAML has and MessagePack lacks are not an exception, and start no process."""
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (1 << 70, object(), "\ud800", deep):
            worker = self.provider.start(changed(SPEC, model_config={"x": value}), Placement("9000"))
            self.assertIn("cannot be handed to a worker", self.failed(worker.loaded).message)
            self.successResultOf(worker.lost)
        self.assertEqual([], self.reactor.children)

    def test_environment(self) -> None:
        """A worker imports from the server's package, the operator's ``PYTHONPATH`` and the model, in this order."""
        root = str(Path(twisted_serve.__file__).resolve().parents[1])
        plain = worker_environment({"A": "b"}, Path("/m"))
        self.assertEqual({"A": "b", "PYTHONPATH": f"{root}:/m"}, plain)
        self.assertEqual(f"{root}:/x:/y:/m", worker_environment({"PYTHONPATH": "/x:/y"}, Path("/m"))["PYTHONPATH"])

    def test_environment_when_installed(self) -> None:
        """The server's ``site-packages`` does not precede those of a model's own interpreter."""
        self.patch(twisted_serve, "__file__", "/usr/lib/python3/site-packages/twisted_serve/__init__.py")
        self.assertEqual({"PYTHONPATH": "/m"}, worker_environment({}, Path("/m")))


class StopTests(LocalTestCase):
    """The end of a worker that is asked to stop."""

    def test_idle(self) -> None:
        """An idle worker sees its socket close, and exits."""
        worker, child = self.ready()
        stopped = worker.stop(60.0)
        self.assertRaises(WorkerDied, worker.run, 8, jobs("c"), lambda chunk: None)
        self.reactor.advance(0)
        self.assertTrue(child.wire.closed)
        child.exit(0)
        self.successResultOf(stopped)
        self.assertEqual([], child.signals)
        self.assert_gone(worker, "it exited with code 0")
        self.successResultOf(worker.stop(1.0))

    def test_idle_and_deaf(self) -> None:
        """An idle worker that does not exit is killed after some seconds, however long the grace is."""
        worker, child = self.ready()
        worker.stop(60.0)
        self.reactor.advance(5.0)
        self.assertEqual(["KILL"], child.signals)
        self.reactor.advance(5.0)
        self.assertEqual(["KILL"], child.signals)

    def test_busy(self) -> None:
        """A batch in flight is finished first."""
        worker, child, answer = self.busy()
        stopped = worker.stop(60.0)
        self.reactor.advance(59.0)
        self.assertFalse(child.wire.closed)
        child.say(Predicted(7, items("a", "b")))
        self.successResultOf(answer)
        self.reactor.advance(0)
        self.assertTrue(child.wire.closed)
        child.exit(0)
        self.successResultOf(stopped)

    def test_goes_on(self) -> None:
        """A continuous batch that continues when it is answered is finished, too; no other is accepted."""
        worker, child, answer = self.busy()
        more: list[Deferred[Predicted]] = []
        answer.addCallback(lambda _: more.append(worker.run(8, jobs("a"), lambda chunk: None)))
        stopped = worker.stop(60.0)
        child.say(Predicted(7, items("a", "b")))
        self.assertRaises(WorkerDied, worker.run, 9, jobs("c"), lambda chunk: None)
        self.reactor.advance(0)
        self.assertFalse(child.wire.closed)
        child.say(Predicted(8, items("a")))
        self.successResultOf(more[0])
        self.reactor.advance(0)
        self.assertTrue(child.wire.closed)
        child.exit(0)
        self.successResultOf(stopped)

    def test_stopped_by_an_answer(self) -> None:
        """A worker that is stopped in a callback of its response exits immediately."""
        worker, child, answer = self.busy()
        answer.addCallback(lambda _: worker.stop(60.0))
        child.say(Predicted(7, items("a", "b")))
        self.reactor.advance(0)
        self.assertTrue(child.wire.closed)
        child.exit(0)
        self.assert_gone(worker, "it exited with code 0")

    def test_busy_for_too_long(self) -> None:
        """A batch that exceeds the grace fails like one whose worker died."""
        worker, child, answer = self.busy()
        worker.stop(60.0)
        self.reactor.advance(60.0)
        self.assertEqual(["KILL"], child.signals)
        child.die(None, SIGKILL)
        self.assertEqual(500, self.failed(answer).status)
        self.assert_gone(worker, "it was ended by SIGKILL")

    def test_hurry(self) -> None:
        """Asking again can shorten the grace, not lengthen it."""
        worker, child, answer = self.busy()
        worker.stop(10.0)
        worker.stop(100.0)
        worker.stop(2.0)
        self.reactor.advance(2.0)
        self.assertEqual(["KILL"], child.signals)
        worker.stop(0.0)
        self.reactor.advance(0.0)
        self.assertEqual(["KILL", "KILL"], child.signals)
        self.reactor.advance(5.0)
        child.die(None, SIGKILL)
        self.assertEqual(500, self.failed(answer).status)
        self.assert_gone(worker, "it was ended by SIGKILL")

    def test_signal_too_late(self) -> None:
        """Signalling a process that has exited has no effect."""
        worker, child = self.ready()
        worker.stop(0.0)
        child.pid = None
        self.reactor.advance(0.0)
        child.die(0)
        self.assert_gone(worker, "it exited with code 0")

    def test_while_loading(self) -> None:
        """Stopping a worker while it loads fails its loading."""
        worker, child = self.start()
        worker.stop(0.0)
        self.reactor.advance(0.0)
        child.die(None, SIGKILL)
        self.assertEqual("The worker was stopped before it had loaded.", self.failed(worker.loaded).message)

    def test_dies_while_stopping(self) -> None:
        """A worker whose connection breaks during its grace is not killed sooner."""
        worker, child, answer = self.busy()
        worker.stop(60.0)
        child.wire.end()
        self.reactor.advance(1.0)
        self.failed(answer)
        self.assertEqual([], child.signals)
        child.exit(0)
        self.assert_gone(worker, "it exited with code 0")

    def test_provider(self) -> None:
        """A provider that is stopped ends all its workers and starts no more."""
        (_, first), (loading, second) = self.ready(), self.start()
        stopped = self.provider.stop()
        first.die(0)
        self.assertNoResult(stopped)
        second.die(0)
        self.failed(loading.loaded)
        self.successResultOf(stopped)
        late = self.provider.start(SPEC, Placement("9002"))
        self.failed(late.loaded)
        self.successResultOf(late.lost)


class OutputTests(LocalTestCase):
    """The output of handlers."""

    def test_model_log(self) -> None:
        """Lines go to the model log under TorchServe's names; lines of stderr are warnings."""
        _, child = self.start()
        child.print(b"one\ntwo {braces}\nthr", b"oops\n")
        child.exit(1)
        self.assertEqual(
            [
                ("W-9000-m_1.0-stdout", "info", "one"),
                ("W-9000-m_1.0-stdout", "info", "two {braces}"),
                ("W-9000-m_1.0-stderr", "warn", "oops"),
                ("W-9000-m_1.0-stdout", "info", "thr"),
            ],
            self.printed,
        )

    def test_last_words_without_end(self) -> None:
        """A last line of stderr without a newline counts, too."""
        worker, child = self.start()
        child.print(err=b"Segmentation fault")
        child.die(None, 11)
        self.assertIn("SIGSEGV: Segmentation fault", self.failed(worker.loaded).message)
        self.assertEqual(("W-9000-m_1.0-stderr", "warn", "Segmentation fault"), self.printed[-1])

    def test_metrics(self) -> None:
        """Lines that are metrics are not logged; a line that only contains the mark is."""
        _, child = self.start()
        child.print(b"[METRICS]A.Count:1|#L:H|#hostname:h,1\nnot [METRICS]\n")
        self.assertEqual(["[METRICS]A.Count:1|#L:H|#hostname:h,1"], self.metrics)
        self.assertEqual("not [METRICS]", self.printed[0][2])

    def test_metrics_of_a_batch(self) -> None:
        """Metrics come with responses and failures; those of an unexpected response do not count."""
        first, second, third = (Reading("A", "Count", n, "L:H", "COUNTER", "h", 1, "a") for n in (1.0, 2.0, 3.0))
        worker, child, answer = self.busy()
        child.say(Predicted(7, items("a", "b"), 0.0, [first, second]))
        self.successResultOf(answer)
        self.assertEqual([first, second], self.taken)
        answer = worker.run(8, jobs("a"), lambda chunk: None)
        child.say(PredictFailed(8, 404, "no", [third]), Predicted(9, [], 0.0, [first]))
        self.failed(answer)
        self.assertEqual([first, second, third], self.taken)
        child.die(0)


class ExitTests(SynchronousTestCase):
    """The description of an exit."""

    def test_words(self) -> None:
        """Signals are called by name if they have one."""
        self.assertEqual("it was ended by SIGSEGV", str(Exit(None, 11)))
        self.assertEqual("it was ended by signal 99", str(Exit(None, 99)))
        self.assertEqual("it exited with code None", str(Exit.from_failure(Failure(RuntimeError()))))
