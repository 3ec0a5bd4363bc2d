# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.session`: whole conversations, the server's words written beforehand."""

from __future__ import annotations

import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.backend.model_log import model_log
from tests.backend.untimed import untimed
from twisted_serve.backend.channel import Channel
from twisted_serve.backend.process import enter_model_dir
from twisted_serve.backend.session import ExitCode, serve
from twisted_serve.wire import codec
from twisted_serve.wire.codec import encode, server_reader
from twisted_serve.wire.messages import (
    Cancel,
    FromWorker,
    Item,
    Job,
    Loaded,
    LoadFailed,
    LoadModel,
    Part,
    Predict,
    Predicted,
    PredictFailed,
    ToWorker,
)

# The time in which anything that is going to happen has happened, on a busy machine.
LONG = 30.0

HANDLER = """
import os, sys
if os.path.exists("on_import"):
    exec(open("on_import").read())

def handle(data, context):
    if data is not None:
        return [eval(bytes(row["body"])) for row in data]
"""


def predict(number: int, code: str) -> Predict:
    return Predict(number, [Job(f"r{number}", {}, [Part("body", "", code.encode())])])


def answered(number: int, body: bytes) -> Predicted:
    return Predicted(number, [Item(f"r{number}", 200, "", {}, body)])


class SessionTests(SynchronousTestCase):
    """A conversation from loading to the end."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "session_handler.py").write_text(HANDLER)
        self.addCleanup(os.chdir, os.getcwd())
        self.addCleanup(sys.modules.pop, "session_handler", None)
        self.patch(sys, "path", sys.path[:])
        self.errors = model_log(self)

    def _load(self, handler: str = "session_handler.py") -> LoadModel:
        return LoadModel("m", "1.0", str(self.dir), handler, 1, {}, {}, "0")

    def _converse(
        self, *words: ToWorker, raw: bytes = b"", answers: int | None = None
    ) -> tuple[ExitCode, list[FromWorker]]:
        """Send messages, and close when all are answered (or a number of answers has come)."""
        server, worker = socket.socketpair()
        server.settimeout(LONG)
        if answers is None:
            answers = sum(isinstance(each, (LoadModel, Predict)) for each in words)
        reader = server_reader()
        said: list[FromWorker] = []

        def run() -> ExitCode:
            with worker:
                return serve(Channel(worker), enter_model_dir)

        with server, ThreadPoolExecutor(1) as threads:
            server.sendall(b"".join(encode(each) for each in words) + raw)
            code = threads.submit(run)
            while True:
                if len(said) == answers:
                    server.shutdown(socket.SHUT_WR)
                data = server.recv(1 << 16)
                if not data:
                    return code.result(LONG), said
                reader.receive(data)
                said += map(untimed, reader.messages())

    def test_whole(self) -> None:
        """A worker loads, answers batch after batch, and ends well when the server closes its end."""
        code, said = self._converse(self._load(), predict(1, "b'a'"), predict(2, "1/0"), predict(3, "b'c'"))
        self.assertEqual(code, ExitCode.DONE)
        self.assertEqual(
            said,
            [
                Loaded(),
                answered(1, b"a"),
                PredictFailed(
                    2,
                    503,
                    "Prediction failed",
                    reason="ZeroDivisionError: division by zero (session_handler.py, line 8)",
                ),
                answered(3, b"c"),
            ],
        )

    def test_nobody_waits(self) -> None:
        """A batch whose clients have all disconnected is answered without calling the handler."""
        code, said = self._converse(
            self._load(), predict(1, "open('never', 'w')"), Cancel(["r1"]), predict(2, "b'b'"), Cancel(["r3"])
        )
        self.assertEqual(code, ExitCode.DONE)
        self.assertEqual(said, [Loaded(), PredictFailed(1, 503, "Nobody waits for this any more."), answered(2, b"b")])
        self.assertFalse((self.dir / "never").exists())

    def test_directory(self) -> None:
        """A handler runs in the model's directory, and its modules are found before others."""
        (self.dir / "session_neighbour.py").write_text("WORD = 'hello'\n")
        self.addCleanup(sys.modules.pop, "session_neighbour", None)
        _code, said = self._converse(
            self._load(), predict(1, "os.getcwd()"), predict(2, "__import__('session_neighbour').WORD")
        )
        self.assertEqual(said[1:], [answered(1, str(self.dir).encode()), answered(2, b"hello")])

    def test_never_asked(self) -> None:
        """A server that goes without a word leaves a worker with nothing to do."""
        self.assertEqual(self._converse(), (ExitCode.DONE, []))

    def test_load_failed(self) -> None:
        """A handler that does not load is told to the server in a line, to the model log in full."""
        (self.dir / "on_import").write_text("x = 1\nraise KeyError('lamp')")
        code, said = self._converse(self._load(), predict(1, "b'a'"))
        self.assertEqual(code, ExitCode.NOT_LOADED)
        self.assertEqual(said, [LoadFailed(500, "KeyError: 'lamp' (session_handler.py, line 4)", printed=True)])
        self.assertIn("Traceback (most recent call last)", self.errors.read_text())

    def test_exit_at_import(self) -> None:
        """A handler that exits while it is imported has failed to load."""
        (self.dir / "on_import").write_text("sys.exit('no licence')")
        _code, said = self._converse(self._load())
        self.assertEqual(said, [LoadFailed(500, "SystemExit: no licence (session_handler.py, line 4)", printed=True)])

    def test_out_of_memory(self) -> None:
        """A model that is too large for host or device is told so."""
        for source in ("raise MemoryError", "raise RuntimeError('CUDA out of memory')"):
            sys.modules.pop("session_handler", None)
            (self.dir / "on_import").write_text(source)
            _code, said = self._converse(self._load())
            assert isinstance(said[0], LoadFailed)
            self.assertEqual(said[0].code, 507)
            self.assertTrue(said[0].reason.startswith("System out of memory: "), said[0].reason)

    def test_other_cuda_error(self) -> None:
        """Only a RuntimeError's CUDA means memory when a model is loaded."""
        (self.dir / "on_import").write_text("raise ValueError('CUDA is not a colour')")
        _code, said = self._converse(self._load())
        self.assertEqual(
            said, [LoadFailed(500, "ValueError: CUDA is not a colour (session_handler.py, line 4)", printed=True)]
        )

    def test_no_directory(self) -> None:
        """A model whose directory does not exist fails to load."""
        load = LoadModel("m", "1.0", str(self.dir / "gone"), "h.py", 1, {}, {}, "0")
        code, said = self._converse(load)
        self.assertEqual(code, ExitCode.NOT_LOADED)
        assert isinstance(said[0], LoadFailed)
        self.assertTrue(said[0].reason.startswith("FileNotFoundError: "), said[0].reason)

    def test_wrong_order(self) -> None:
        """A server that does not begin by loading, or loads twice, is not understood."""
        self.assertEqual(self._converse(predict(1, "b'a'")), (ExitCode.PROTOCOL_ERROR, []))
        code, said = self._converse(self._load(), self._load())
        self.assertEqual((code, said), (ExitCode.PROTOCOL_ERROR, [Loaded()]))
        self.assertIn("LoadModel came after LoadModel", self.errors.read_text())

    def test_nonsense(self) -> None:
        """Bytes that are no message end the worker, and the model log says why."""
        code, _said = self._converse(self._load(), raw=b"\xff\xff\xff\xff")
        self.assertEqual(code, ExitCode.PROTOCOL_ERROR)
        self.assertIn("a frame of 4294967295 bytes", self.errors.read_text())

    def test_server_dies(self) -> None:
        """A worker whose server closes the connection before it answers exits normally."""
        server, worker = socket.socketpair()
        with worker:
            server.sendall(encode(self._load()))
            server.close()
            self.assertEqual(serve(Channel(worker), enter_model_dir), ExitCode.DONE)

    def test_handler_exits(self) -> None:
        """A handler that exits takes the worker with it."""
        self.assertRaises(SystemExit, self._converse, self._load(), predict(1, "sys.exit(3)"))

    def test_answers_too_large_together(self) -> None:
        """Answers that no frame can carry together fail their batch, not the worker."""
        load, ask, more = self._load(), predict(1, "b'a' * 1000"), predict(2, "b'b'")
        frames = [encode(each) for each in (load, ask, more)]
        self.patch(codec, "MAX_FRAME", 900)
        code, said = self._converse(raw=b"".join(frames), answers=3)
        self.assertEqual(code, ExitCode.DONE)
        assert isinstance(said[1], PredictFailed)
        self.assertEqual((said[1].batch_id, said[1].code), (1, 500))
        self.assertEqual(said[2], answered(2, b"b"))
