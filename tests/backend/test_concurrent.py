# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.concurrent`: whole conversations with a worker that does many things at a time."""

from __future__ import annotations

import io
import socket
import sys
from pathlib import Path
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from tests.backend.model_log import model_log
from tests.backend.untimed import untimed
from twisted_serve.backend import metric_buffer
from twisted_serve.backend.channel import Channel
from twisted_serve.backend.session import ExitCode, serve
from twisted_serve.backend.ts import names
from twisted_serve.testing.local_worker import local_worker
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
    Pause,
    Predict,
    Predicted,
    PredictFailed,
    Resume,
    StreamChunk,
    ToWorker,
)

# The time in which anything that is going to happen has happened, on a busy machine.
LONG = 30.0

# Does what the bodies say; events let one request wait for another.
HANDLER = """
import asyncio
from collections import defaultdict
from ts.async_service import AsyncService
from ts.handler_utils.utils import send_intermediate_predict_response as send
from ts.utils.util import PredictionException

class Handler(AsyncService):
    def initialize(self, context):
        asyncio.get_running_loop()
        self.events = defaultdict(asyncio.Event)
        self.notes = []

    async def handle(self, data, context):
        code = bytes(data[0]["body"]).decode()
        names = {**globals(), "self": self, "context": context}
        result = eval(code, names)
        return [await result if asyncio.iscoroutine(result) else result for _ in data]

    async def wait(self, name):
        try:
            await self.events[name].wait()
        except asyncio.CancelledError:
            self.notes.append(f"{name} was cancelled")
            raise
        return name

    def set(self, name):
        self.events[name].set()

    async def stream(self, context, count):
        for number in range(count):
            send([f"{number} "], context.request_ids, "", 200, context)
            self.notes.append(number)
            await asyncio.sleep(0)
        return "end"

    async def attribute(self, context, name):
        context.mine = name
        context.set_response_header(0, "x-name", name)
        await self.wait(name)
        return context.mine

    async def measure(self, context, name):
        context.metrics.add_counter(name, 1)
        await self.wait(name)
        context.metrics.add_counter(name, 1)

    async def leave(self, context, name):
        self.left = asyncio.create_task(self.measure(context, name))
        await asyncio.sleep(0)

    def throw(self, error):
        raise error
"""


def ask(number: int, code: str) -> Predict:
    return Predict(number, [Job(f"r{number}", {}, [Part("body", "", code.encode())])])


def answer(number: int, body: bytes, headers: dict[str, str] | None = None) -> Predicted:
    return Predicted(number, [Item(f"r{number}", 200, "", headers or {}, body)])


class ConcurrentTests(SynchronousTestCase):
    """A worker in a thread, and what the server says to it."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        self.patch(sys, "path", [str(self.dir), *sys.path])
        self.patch(sys, "meta_path", sys.meta_path[:])
        self.addCleanup(self._forget_modules)
        self.errors = model_log(self)
        names.install()
        self.reader = server_reader()
        self.heard: list[FromWorker] = []
        self.metrics: dict[int, list[tuple[str, str]]] = {}
        self.code: ExitCode | None = None

    def _forget_modules(self) -> None:
        for name in list(sys.modules):
            if name == "concurrent_handler" or name.partition(".")[0] == "ts":
                del sys.modules[name]

    def start(self, source: str = HANDLER) -> None:
        (self.dir / "concurrent_handler.py").write_text(source)
        self.server, worker = socket.socketpair()
        self.server.settimeout(LONG)
        self.addCleanup(self.server.close)

        def run() -> None:
            with worker:
                self.code = serve(Channel(worker), lambda model_dir: None)

        self.thread = Thread(target=run)
        self.say(LoadModel("m", "1.0", str(self.dir), "concurrent_handler.py", 1, {}, {}, "0", asynchronous=True))
        self.thread.start()
        self.addCleanup(self.thread.join, LONG)
        self.addCleanup(self.server.close)

    def say(self, *messages: ToWorker) -> None:
        self.server.sendall(b"".join(encode(each) for each in messages))

    def hear(self) -> FromWorker:
        while not self.heard:
            data = self.server.recv(1 << 16)
            assert data, "the worker has gone"
            self.reader.receive(data)
            for message in self.reader.messages():
                self.heard.append(untimed(message))
                if isinstance(message, (Predicted, PredictFailed)):
                    self.metrics[message.batch_id] = [(each.name, each.request_ids) for each in message.metrics]
        return self.heard.pop(0)

    def end(self) -> ExitCode | None:
        self.server.shutdown(socket.SHUT_WR)
        self.thread.join(LONG)
        return self.code

    def test_any_order(self) -> None:
        """Responses may come in any order; a failure affects only its own request."""
        self.start()
        self.assertEqual(self.hear(), Loaded())
        self.say(ask(1, "self.wait('a')"), ask(2, "self.wait('b')"), ask(3, "1 / 0"), ask(4, "'quick'"))
        failed = self.hear()
        assert isinstance(failed, PredictFailed)
        self.assertEqual((3, 503, "Prediction failed"), (failed.batch_id, failed.code, failed.message))
        self.assertIn("ZeroDivisionError: division by zero (", failed.reason)
        self.assertEqual(answer(4, b"quick"), self.hear())
        self.assertIn("ZeroDivisionError", self.errors.read_text())
        self.say(ask(5, "self.set('b')"))
        self.assertEqual({type(self.hear()), type(self.hear())}, {Predicted})
        self.say(ask(6, "self.throw(PredictionException('no', 404))"), ask(7, "self.set('a')"))
        said = [self.hear() for _ in range(3)]
        self.assertEqual(said[0], PredictFailed(6, 404, "no"))
        self.assertIn(answer(1, b"a"), said)
        self.assertEqual(self.end(), ExitCode.DONE)

    def test_no_exception(self) -> None:
        """An exception that is not an ``Exception`` fails the call like any other, except for the exits."""
        self.start()
        self.hear()
        self.say(ask(1, "self.throw(type('Odd', (BaseException,), {})('at odds'))"), ask(2, "'after'"))
        failed = self.hear()
        assert isinstance(failed, PredictFailed)
        self.assertEqual((1, 503, "Prediction failed"), (failed.batch_id, failed.code, failed.message))
        self.assertEqual(answer(2, b"after"), self.hear())
        self.assertIn("Odd: at odds", self.errors.read_text())
        self.assertEqual(self.end(), ExitCode.DONE)

    def test_contexts(self) -> None:
        """Calls at the same time do not see each other's context."""
        self.start()
        self.hear()
        self.say(ask(1, "self.attribute(context, 'a')"), ask(2, "self.attribute(context, 'b')"))
        self.say(ask(3, "self.set('a')"))
        self.assertEqual({self.hear().batch_id, self.hear().batch_id}, {1, 3})  # type: ignore[union-attr]
        self.say(ask(4, "self.set('b')"), ask(5, "hasattr(context, 'mine')"))
        said = {each.batch_id: each for each in (self.hear(), self.hear(), self.hear())}  # type: ignore[union-attr]
        self.assertEqual(said[2], answer(2, b"b", {"x-name": "b"}))
        self.assertEqual(said[5], answer(5, b"false"))

    def test_metrics(self) -> None:
        """Metrics come with the answer to their own call, or are printed if that has been given."""
        self.patch(metric_buffer, "LONGEST_WAIT", 600.0)
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        self.start()
        self.hear()
        self.say(ask(1, "'patience'"))
        self.hear()
        self.say(ask(2, "self.measure(context, 'A')"), ask(3, "self.measure(context, 'B')"), ask(4, "self.set('A')"))
        self.assertEqual({self.hear().batch_id, self.hear().batch_id}, {2, 4})  # type: ignore[union-attr]
        self.say(ask(5, "self.leave(context, 'C')"), ask(6, "self.set('B')"))
        for _ in range(3):
            self.hear()
        self.assertEqual(
            self.metrics,
            {
                1: [],
                2: [("A", "r2"), ("A", "r2"), ("PredictionTime", "r2")],
                3: [("B", "r3"), ("B", "r3"), ("PredictionTime", "r3")],
                4: [("PredictionTime", "r4")],
                5: [("C", "r5"), ("PredictionTime", "r5")],
                6: [("PredictionTime", "r6")],
            },
        )
        self.say(ask(7, "self.set('C')"), ask(8, "asyncio.wait_for(self.left, 30)"))
        self.hear(), self.hear()
        self.end()
        names = [line.partition(".")[0] for line in output.getvalue().splitlines()]
        self.assertEqual(names, ["[METRICS]PredictionTime", "[METRICS]C"])

    def test_cancel(self) -> None:
        """A coroutine whose client has disconnected is cancelled; the others continue."""
        self.start()
        self.hear()
        # One that is cancelled before it has begun is answered, too.
        self.say(ask(9, "self.wait('a')"), Cancel(["r9"]))
        self.assertEqual(self.hear(), PredictFailed(9, 503, "The request was cancelled."))
        self.say(ask(1, "self.wait('a')"), ask(2, "self.wait('b')"), ask(5, "'begun'"))
        self.assertEqual(self.hear(), answer(5, b"begun"))
        self.say(Cancel(["r1"]))
        self.assertEqual(self.hear(), PredictFailed(1, 503, "The request was cancelled."))
        self.say(ask(3, "self.notes"))
        self.assertEqual(self.hear(), answer(3, b'[\n  "a was cancelled"\n]'))
        self.say(ask(4, "self.set('b')"))
        self.assertEqual({self.hear().batch_id, self.hear().batch_id}, {2, 4})  # type: ignore[union-attr]

    def test_slow_client(self) -> None:
        """A coroutine which sends is not resumed while its client takes nothing; others are."""
        self.start()
        self.hear()
        self.say(ask(1, "self.wait('go')"), Pause(["r2"]), ask(2, "self.stream(context, 3)"), Pause(["r2"]))
        self.assertEqual(self.hear(), StreamChunk(2, Item("r2", 200, "", {}, b"0 ")))
        for number in range(3, 20):
            self.say(ask(number, "len(self.notes)"))
            self.assertEqual(self.hear(), answer(number, b"1"))
        self.say(Resume(["r2"]))
        self.assertEqual(
            [self.hear() for _ in range(3)],
            [*(StreamChunk(2, Item("r2", 200, "", {}, text)) for text in (b"1 ", b"2 ")), answer(2, b"end")],
        )
        self.say(ask(30, "self.stream(context, 3)"), Pause(["r30"]))
        self.hear()
        self.say(Cancel(["r30"]))
        self.assertEqual(self.hear(), PredictFailed(30, 503, "The request was cancelled."))

    def test_server_goes(self) -> None:
        """A worker ends when the server has closed the connection, even with requests in flight."""
        self.start()
        self.hear()
        self.say(ask(1, "self.wait('for ever')"))
        self.assertEqual(self.end(), ExitCode.DONE)

    def test_server_goes_unheard(self) -> None:
        """A worker that is sending when its server dies ends as well."""
        self.start()
        self.hear()
        self.say(ask(1, "b'x' * 5_000_000"))
        self.server.recv(10)
        self.server.close()
        self.thread.join(LONG)
        self.assertEqual(self.code, ExitCode.DONE)

    def test_wrong_order(self) -> None:
        """A server that breaks the protocol is not understood."""
        self.start()
        self.hear()
        self.say(LoadModel("m", "1.0", str(self.dir), "h.py", 1, {}, {}, "0"))
        self.thread.join(LONG)
        self.assertEqual(self.code, ExitCode.PROTOCOL_ERROR)

    def test_plain_class(self) -> None:
        """Any class with ``async def handle``, or a function of a module, may be the handler."""
        for source in (
            "class H:\n    def initialize(self, c): pass\n    async def handle(self, d, c): return ['well']\n",
            "async def handle(d, c): return ['well']\n",
        ):
            self.heard.clear()
            sys.modules.pop("concurrent_handler", None)
            self.start(source)
            self.assertEqual(self.hear(), Loaded())
            self.say(ask(1, ""))
            self.assertEqual(self.hear(), answer(1, b"well"))
            self.assertEqual(self.end(), ExitCode.DONE)

    def test_no_coroutine(self) -> None:
        """A handler that is no coroutine function is told what it lacks."""
        self.start("class H:\n    def initialize(self, c): pass\n    def handle(self, d, c): return ['well']\n")
        said = self.hear()
        assert isinstance(said, LoadFailed)
        self.assertEqual(
            said.reason.partition(" (")[0],
            "TypeError: asyncCommunication needs a coroutine function; H.handle is none: write async def",
        )
        self.thread.join(LONG)
        self.assertEqual(self.code, ExitCode.NOT_LOADED)

    def test_not_asynchronous(self) -> None:
        """A coroutine function answers one batch after the other where the model does not ask for more."""
        (self.dir / "alone.py").write_text(
            "import asyncio\nasync def handle(d, c):\n    await asyncio.sleep(0)\n    return d and ['well']\n"
        )
        with local_worker(self.dir, "alone.py") as worker:
            for _ in range(2):
                self.assertEqual([item.body for item in worker.predict(Part("body", "", b""))], [b"well"])
