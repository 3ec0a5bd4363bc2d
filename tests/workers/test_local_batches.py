# SPDX-License-Identifier: Apache-2.0
"""Tests for the batches of a local worker, with a reactor in memory."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGKILL

from tests.specs import changed
from tests.workers.local_case import SPEC, Child, LocalTestCase, items, jobs
from twisted_serve.errors import WorkerDied
from twisted_serve.wire.codec import UnsendableError
from twisted_serve.wire.messages import (
    Cancel,
    Job,
    Loaded,
    LoadFailed,
    Part,
    Predict,
    Predicted,
    PredictFailed,
    StreamChunk,
)
from twisted_serve.workers.local import longest_frame


class RunTests(LocalTestCase):
    """Batches and their responses."""

    def test_answer(self) -> None:
        """A batch is sent in one frame; its chunks and its response come back."""
        chunks: list[StreamChunk] = []
        _, child, answer = self.busy(chunks.append)
        child.say(StreamChunk(7, items("a")[0]), Predicted(7, items("a", "b")))
        self.assertEqual(items("a", "b"), self.successResultOf(answer).items)
        self.assertEqual([StreamChunk(7, items("a")[0])], chunks)

    def test_ahead(self) -> None:
        """Messages that the worker is not waiting for are sent a little later, in one write, before any other."""
        worker, child, first = self.busy()
        others = [worker.run(number, jobs(str(number)), lambda chunk: None) for number in (8, 9)]
        self.assertEqual([], child.messages())
        self.reactor.advance(0)
        self.assertEqual([Predict(8, jobs("8")), Predict(9, jobs("9"))], child.messages())
        others.append(worker.run(10, jobs("10"), lambda chunk: None))
        worker.cancel(["10"])
        self.assertEqual([Predict(10, jobs("10")), Cancel(["10"])], child.messages())
        child.say(Predicted(7, items("a", "b")), *[Predicted(n, items(str(n))) for n in (8, 9, 10)])
        self.assertEqual(["8", "9", "10"], [self.successResultOf(each).items[0].request_id for each in others])
        self.successResultOf(first)

    def test_large_ahead(self) -> None:
        """A large message is not delayed."""
        worker, child, _ = self.busy()
        large = [Job("large", {}, [Part("body", "", b"x" * 100_000)])]
        worker.run(8, jobs("8"), lambda chunk: None)
        worker.run(9, large, lambda chunk: None)
        self.assertEqual([Predict(8, jobs("8")), Predict(9, large)], child.messages())

    def test_dies_with_several(self) -> None:
        """All its batches fail when it dies, in the order in which they were sent, and nothing is left to be sent."""
        worker, child, first = self.busy()
        second = worker.run(8, jobs("8"), lambda chunk: None)
        failed: list[int] = []
        first.addErrback(lambda _: failed.append(7))
        second.addErrback(lambda _: failed.append(8))
        child.die(1)
        self.assertEqual([7, 8], failed)
        self.assert_gone(worker, "it exited with code 1")

    def test_handler_raised(self) -> None:
        """A handler's error has its code; an impossible code becomes 500."""
        for code, status in ((503, 503), (599, 599), (0, 500), (-1, 500), (100, 500), (1000, 500)):
            _, child, answer = self.busy()
            child.say(PredictFailed(7, code, "Prediction failed"))
            error = self.failed(answer)
            self.assertEqual((status, "Prediction failed"), (error.status, error.message))

    def test_cancel(self) -> None:
        """A worker is told which requests are cancelled."""
        worker, child, _ = self.busy()
        worker.cancel(["b"])
        self.assertEqual([Cancel(["b"])], child.messages())

    def test_cannot_be_sent(self) -> None:
        """A batch that cannot be sent does not change the worker."""
        worker, child = self.ready()
        self.assertRaises(UnsendableError, worker.run, 7, [Job("\ud800", {}, [])], lambda chunk: None)
        self.assertEqual([], child.messages())
        answer = worker.run(8, jobs("a"), lambda chunk: None)
        child.say(Predicted(8, items("a")))
        self.successResultOf(answer)

    def test_dies(self) -> None:
        """A batch whose worker dies fails once, whatever is noticed first; no other batch goes there."""
        for end in (lambda child: child.die(1), lambda child: (child.exit(1), child.wire.end())):
            worker, child, answer = self.busy()
            end(child)
            error = self.failed(answer)
            self.assertEqual((500, "Worker died."), (error.status, error.message))
            self.assertRaises(WorkerDied, worker.run, 8, jobs("c"), lambda chunk: None)
            self.assert_gone(worker, "it exited with code 1")

    def test_killed(self) -> None:
        """A SIGKILL from outside the server is told from other ends: 507."""
        _, child, answer = self.busy()
        child.wire.end()
        self.assertNoResult(answer)
        child.exit(None, SIGKILL)
        self.assertEqual(507, self.failed(answer).status)

    def test_hangs_after_closing(self) -> None:
        """A worker that closes its socket and does not exit fails its batch after a second, and is killed."""
        worker, child, answer = self.busy()
        child.wire.end()
        self.reactor.advance(1.0)
        self.assertEqual(500, self.failed(answer).status)
        self.assertEqual(["KILL"], child.signals)
        self.assertNoResult(worker.lost)
        self.reactor.advance(5.0)
        child.exit(None, SIGKILL)
        self.assert_gone(worker, "it was ended by SIGKILL")

    def test_socket_held_open(self) -> None:
        """If the socket of a dead worker is held open, its batch fails after a second."""
        worker, child, answer = self.busy()
        child.exit(1)
        self.reactor.advance(1.0)
        self.assertEqual(500, self.failed(answer).status)
        self.reactor.advance(0)
        self.assert_gone(worker, "it exited with code 1")

    def test_output_held_open(self) -> None:
        """A program that the handler started, and that runs on, does not keep a dead worker from being lost."""
        worker, child, answer = self.busy()
        child.holds_output = True
        child.die(1)
        self.failed(answer)
        self.assertNoResult(worker.lost)
        self.reactor.advance(2.0)
        self.assert_gone(worker, "it exited with code 1")

    def test_breaks_the_protocol(self) -> None:
        """Invalid messages and unexpected messages end the connection, and so the worker."""
        nonsense: list[Callable[[Child], object]] = [
            lambda child: child.wire.protocol.dataReceived(b"\xff\xff\xff\xff"),
            lambda child: child.wire.protocol.dataReceived(b"\x00\x00\x00\x01\xc1"),
            lambda child: child.say(Loaded(), Predicted(7, [])),
            lambda child: child.say(LoadFailed(500, "late")),
            lambda child: child.say(Predicted(6, [])),
            lambda child: child.say(PredictFailed(8, 500, "")),
            lambda child: child.say(StreamChunk(8, items("a")[0])),
        ]
        for speak in nonsense:
            worker, child, answer = self.busy()
            speak(child)
            self.assertRaises(WorkerDied, worker.run, 8, jobs("c"), lambda chunk: None)
            worker.cancel(["a"])
            self.reactor.advance(1.0)
            self.assertEqual("Worker died.", self.failed(answer).message)
            self.assertEqual(["KILL"], child.signals)
            child.exit(None, SIGKILL)
            self.reactor.advance(0)
            self.assert_gone(worker, "it was ended by SIGKILL")

    def test_longest_message(self) -> None:
        """The server keeps no more of a worker's message than a batch of the largest responses."""
        self.assertEqual(2 * (100 + (1 << 20)), longest_frame(changed(SPEC, max_response_size=100)))
        self.assertEqual(1 << 31, longest_frame(changed(SPEC, max_response_size=1 << 40)))
