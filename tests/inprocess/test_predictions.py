# SPDX-License-Identifier: Apache-2.0
"""Tests for predictions of the application, without HTTP, by a server in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve import ModelServer
from twisted_serve.errors import (
    BadRequest,
    ModelNotFound,
    ModelVersionNotFound,
    RequestTimeout,
    RequestTooLarge,
    ServerNotRunning,
    ServiceUnavailable,
    WorkerFailed,
)
from twisted_serve.testing.server import MemoryServer
from twisted_serve.wire.messages import Item, Job

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)

FORM = "application/x-www-form-urlencoded"


class PredictionTests(SynchronousTestCase):
    """Predictions of the application."""

    def setUp(self) -> None:
        self.memory = MemoryServer({"max_request_size": 1000, "job_queue_size": 1}, models={"m": {}})
        self.addCleanup(self.memory.close)
        self.server: ModelServer = self.memory.server
        [self.worker] = self.memory.provider.workers

    def jobs(self) -> list[Job]:
        """Return the jobs that the worker got."""
        return [job for batch in self.worker.batches for job in batch]

    def test_body(self) -> None:
        """The input is the handler's, and its response comes with status, reason and headers."""
        self.memory.provider.respond = lambda jobs: [
            Item(job.request_id, 418, "Short and stout", {"X-Tea": "Earl"}, job.parts[0].value) for job in jobs
        ]
        answer = self.successResultOf(self.server.predict("m", b"hello", content_type="text/plain"))
        self.assertEqual(
            (answer.status, answer.reason, answer.headers, answer.body),
            (418, "Short and stout", {"X-Tea": "Earl"}, b"hello"),
        )
        [job] = self.jobs()
        self.assertEqual([(part.name, part.content_type) for part in job.parts], [("body", "text/plain")])
        self.assertEqual(job.headers, {"Content-Type": "text/plain", "url_path": "", "explain": "False"})

    def test_buffers(self) -> None:
        """A buffer that the application changes afterwards is copied."""
        self.worker.holding = True
        buffer = bytearray(b"before")
        for data in (buffer, memoryview(buffer)):
            waiting = self.server.predict("m", data)  # type: ignore[arg-type]
            buffer[:] = b"after!"
            self.worker.answer()
            self.assertIn(self.successResultOf(waiting).body, (b"before", b"after!"))
            self.assertEqual(self.jobs()[0].parts[0].value, b"before")

    @given(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.binary(max_size=20) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            max_size=5,
        )
    )
    def test_fields(self, fields: dict[str, Any]) -> None:
        """Fields arrive by name, text as UTF-8, in their order."""
        before = len(self.jobs())
        self.successResultOf(self.server.predict("m", fields))
        [job] = self.jobs()[before:]
        sent = [(name, value.encode() if isinstance(value, str) else value) for name, value in fields.items()]
        self.assertEqual([(part.name, part.value) for part in job.parts], sent)

    def test_form(self) -> None:
        """A form is parsed as that of a client."""
        self.successResultOf(self.server.predict("m", b"a=1&b=2", content_type=FORM))
        self.assertEqual([part.name for part in self.jobs()[0].parts], ["a", "b"])

    def test_large_form(self) -> None:
        """A large form is parsed in a thread."""
        with MemoryServer(models={"m": {}}) as memory:
            body = b"&".join(b"%d=%s" % (number, b"x" * 100) for number in range(900))
            self.successResultOf(memory.server.predict("m", body, content_type=FORM))
            self.assertEqual(len(memory.provider.batches[0][0].parts), 900)

    def test_headers(self) -> None:
        """Headers are the handler's, those of a caller that has a key included; the route cannot be changed."""
        headers = {"X-Own": "é", "authorization": "Basic x", "Url_Path": "/up", "EXPLAIN": "True", "describe": "True"}
        self.successResultOf(self.server.predict("m", headers=headers, explain=True))
        self.assertEqual(
            self.jobs()[0].headers, {"X-Own": "é", "authorization": "Basic x", "url_path": "", "explain": "True"}
        )

    def test_bad_arguments(self) -> None:
        """An argument that cannot be used is an error that names it; no job arrives."""
        cases: Sequence[tuple[dict[str, Any], str]] = [
            ({"data": "text"}, "data must be bytes or a mapping of fields, not str"),
            ({"data": None}, "data must be bytes or a mapping of fields, not NoneType"),
            ({"data": {"a": 1}}, "The field 'a' of data"),
            ({"data": {1: b""}}, "The field 1 of data"),
            ({"data": {"\ud800": b""}}, r"The field '\\ud800' of data"),
            ({"data": {"a": "\ud800"}}, "The field 'a' of data"),
            ({"content_type": None}, "content_type must be a string, not None"),
            ({"timeout": True}, "not True"),
            ({"headers": {"X\n": "a"}}, r"The header 'X\\n'"),
            ({"headers": {"X": "a\r\nY: b"}}, "The header 'X' has a control character"),
            ({"headers": {"": "a"}}, "The header '' has a control character, or no name"),
            ({"headers": {"X": "€"}}, "The header 'X' has a name or value that is not text of HTTP"),
            ({"headers": {"X": 1}}, "The header 'X' has a name or value"),
            ({"content_type": "a\nb"}, "The header 'Content-Type'"),
            ({"timeout": 0}, "timeout must be a number above 0, at most 86400 seconds, not 0"),
            ({"timeout": float("nan")}, "not nan"),
            ({"timeout": "1"}, "not '1'"),
            ({"data": b"a=1&" * 1001, "content_type": FORM}, ""),
        ]
        for arguments, text in cases[:-1]:
            failure = self.failureResultOf(self.server.predict("m", **arguments), BadRequest)
            self.assertRegex(str(failure.value), text)
        self.failureResultOf(self.server.predict("m", **cases[-1][0]), RequestTooLarge)
        self.assertEqual(self.jobs(), [])

    def test_too_large(self) -> None:
        """The limit of inputs is that of HTTP."""
        self.successResultOf(self.server.predict("m", b"x" * 1000))
        self.failureResultOf(self.server.predict("m", b"x" * 1001), RequestTooLarge)
        self.failureResultOf(self.server.predict("m", {"a": b"x" * 500, "b": b"x" * 501}), RequestTooLarge)

    def test_unknown(self) -> None:
        """A model or version that is not there is an error."""
        self.failureResultOf(self.server.predict("n"), ModelNotFound)
        self.failureResultOf(self.server.predict("m", version="2.0"), ModelVersionNotFound)
        self.successResultOf(self.server.predict("m", version="1.0"))

    def test_timeout(self) -> None:
        """The caller waits no longer than it said."""
        self.worker.holding = True
        waiting = self.server.predict("m", timeout=2.5)
        self.memory.advance(2.4)
        self.assertNoResult(waiting)
        self.memory.advance(0.2)
        self.failureResultOf(waiting, RequestTimeout)

    def test_queue(self) -> None:
        """A full queue refuses."""
        self.worker.holding = True
        running, queued = self.server.predict("m", b"1"), self.server.predict("m", b"2")
        self.failureResultOf(self.server.predict("m", b"3"), ServiceUnavailable)
        self.worker.answer()
        self.worker.answer()
        self.assertEqual([self.successResultOf(each).body for each in (running, queued)], [b"1", b"2"])

    def test_cancel(self) -> None:
        """Cancelling gives the job up, once."""
        self.worker.holding = True
        running, queued = self.server.predict("m", b"1"), self.server.predict("m", b"2")
        for each in (queued, running):
            each.cancel()
            each.cancel()
            self.failureResultOf(each, CancelledError)
            each.cancel()
        self.assertEqual(self.worker.cancelled, [self.jobs()[0].request_id])
        self.worker.answer()
        self.assertEqual(len(self.jobs()), 1)

    def test_handler_fails(self) -> None:
        """A handler that raises is an error with its status."""
        self.memory.provider.respond = lambda jobs: WorkerFailed(503, "Prediction failed")
        failure = self.failureResultOf(self.server.predict("m"), WorkerFailed)
        self.assertEqual(failure.value.status, 503)

    def test_streamed(self) -> None:
        """The parts of a streamed response are joined, with the head of the first."""
        self.worker.holding = True
        waiting = self.server.predict("m")
        [job] = self.jobs()
        for text in (b"a", b"b"):
            self.worker.chunk(Item(job.request_id, 201, "Made", {"X": text.decode()}, text))
        self.worker.answer([Item(job.request_id, 200, "", {}, b"c")])
        answer = self.successResultOf(waiting)
        self.assertEqual((answer.status, answer.headers, answer.body), (201, {"X": "a"}, b"abc"))

    def test_await(self) -> None:
        """Predictions can be awaited."""

        async def twice() -> bytes:
            first = await self.server.predict("m", b"1")
            return (await self.server.predict("m", first.body + b"2")).body

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(twice())), b"12")

    def test_counted(self) -> None:
        """Predictions are counted as those of clients."""
        self.successResultOf(self.server.predict("m"))
        metrics = self.memory.request("GET", "/metrics", self.memory.keys.management.secret).body.decode()
        self.assertIn('ts_inference_requests_total{model_name="m",model_version="default"', metrics)

    def test_repr(self) -> None:
        """What a log may show of a response does not include its body."""
        self.assertNotIn("secret", repr(self.successResultOf(self.server.predict("m", b"secret"))))


class RunTests(SynchronousTestCase):
    """Before the start of the server, while it stops, and after."""

    def test_before_and_after(self) -> None:
        """Outside its run, a server says that it does not run, to each call, and never raises."""
        memory = MemoryServer(models={"m": {}})
        self.addCleanup(memory.close)
        stopped = memory.server
        memory.restart()
        never = ModelServer(memory.clock, memory.options)
        for server in (stopped, never):

            async def read(server: ModelServer = server) -> None:
                async for _part in server.stream("m"):
                    pass

            for result in (
                server.predict("m"),
                Deferred.fromCoroutine(read()),
                server.register("m"),
                server.scale("m", 1),
                server.set_default("m", "1.0"),
                server.unregister("m"),
                server.describe("m"),
                server.models(),
            ):
                self.failureResultOf(result, ServerNotRunning)
        self.assertEqual(self.successResultOf(memory.server.predict("m", b"x")).body, b"x")

    def test_while_it_stops(self) -> None:
        """What was accepted before the stop is answered; during ``shutdown_delay`` more is accepted, then none."""
        memory = MemoryServer({"shutdown_delay": 5}, models={"m": {}})
        self.addCleanup(memory.close)
        [worker] = memory.provider.workers
        worker.holding = True
        first = memory.server.predict("m", b"1")
        stopping = memory.server.stopService()
        second = memory.server.predict("m", b"2")
        memory.advance(5)
        self.failureResultOf(memory.server.predict("m", b"3"), ServerNotRunning)
        worker.answer()
        self.assertEqual(self.successResultOf(first).body, b"1")
        worker.answer()
        self.assertEqual(self.successResultOf(second).body, b"2")
        memory.advance(60)
        self.successResultOf(stopping)
