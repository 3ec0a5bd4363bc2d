# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.rpc.services.inference``, over the planes of a server in memory."""

from __future__ import annotations

import json

from tests.rpc.services.service_case import RecordingCall, ServiceTestCase
from twisted_serve.errors import WorkerFailed
from twisted_serve.rpc.messages import Empty, PredictionResponse, PredictionsRequest
from twisted_serve.rpc.services.inference import inference_endpoints
from twisted_serve.rpc.services.jobs import HandlerHeaders
from twisted_serve.rpc.statuses import Code
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.wire.messages import Item, Job, Part

NO_WORKER = (
    'Model "m" has no worker to serve inference request. Please use scale workers API to add workers. If this is a '
    "sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)


def asked(model: str = "m", version: str = "", **inputs: bytes) -> PredictionsRequest:
    return PredictionsRequest(model_name=model, model_version=version, input=inputs or {"data": b"1"})


class PingTests(ServiceTestCase):
    """Health."""

    def test_healthy(self) -> None:
        """The text is TorchServe's to the letter."""
        self.assertEqual(self.answer("Ping", Empty()).health, '{\n  "status": "Healthy"\n}')

    def test_unhealthy(self) -> None:
        """A model without workers for long is in the text; the status of the call is still OK."""
        self.server.provider.load_delay = None
        self.worker.kill()
        self.server.advance(1)
        self.server.provider.load_error = WorkerFailed(500, "no luck")
        self.server.provider.load_delay = 0.0
        self.server.advance(600)
        self.assertEqual(json.loads(self.answer("Ping", Empty()).health), {"status": "Unhealthy"})


class PredictionsTests(ServiceTestCase):
    """Unary predictions."""

    def test_inputs(self) -> None:
        """A handler gets bytes under each name, never decoded, and headers without a route: it predicts."""
        self.respond(lambda job: b"\x00\xff")
        answer = self.answer("Predictions", asked(data=b'{"a": 1}', extra=b""))
        self.assertEqual(answer, PredictionResponse(prediction=b"\x00\xff"))
        [job] = self.jobs
        self.assertEqual(job.parts, [Part("data", "", b'{"a": 1}', False), Part("extra", "", b"", False)])
        self.assertEqual((job.headers, job.request_id), ({}, "job"))

    def test_no_inputs(self) -> None:
        """A message without inputs is a row without inputs."""
        self.answer("Predictions", PredictionsRequest(model_name="m"))
        self.assertEqual([job.parts for job in self.jobs], [[]])

    def test_too_many_inputs(self) -> None:
        """More inputs than a form may have fields are refused, and no worker sees them."""
        message = PredictionsRequest(model_name="m", input={str(i): b"" for i in range(1001)})
        status = self.status("Predictions", message)
        self.assertStatus(
            status, 3, "The message has 1001 inputs, more than 1000.", "org.pytorch.serve.http.BadRequestException"
        )
        self.assertEqual(self.jobs, [])

    def test_equal_messages(self) -> None:
        """The order of a map, which means nothing, does not make another job."""
        inputs = {str(i): b"" for i in range(20)}
        for each in (inputs, dict(reversed(inputs.items()))):
            self.answer("Predictions", PredictionsRequest(model_name="m", input=each))
        first, second = self.jobs
        self.assertEqual(first.parts, second.parts)

    def test_metadata(self) -> None:
        """A handler sees the client's metadata, and none of the protocol's, of the server's and of credentials."""
        metadata = [
            (b"protocol", b"gRPC"),
            (b"session_id", b"1"),
            (b"session_id", b"12345"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"grpc-python"),
            (b"grpc-timeout", b"1S"),
            (b"grpc-accept-encoding", b"gzip"),
            (b"trace-bin", b"AAAA"),
            (b"explain", b"True"),
            (b"describe", b"True"),
            (b"url_path", b"x"),
        ]
        self.answer("Predictions", asked(), RecordingCall([*metadata, (b"authorization", b"Basic eA==")]))
        own = {"protocol": "gRPC", "session_id": "12345"}
        self.assertEqual(self.jobs[-1].headers, {**own, "authorization": "Basic eA=="})

    def test_secrets(self) -> None:
        """A handler sees no key where keys are on, and no principal but that of the authorizer."""
        call = RecordingCall([(b"authorization", b"Bearer x"), (b"principal", b"me")], principal="them")
        for headers, seen in (
            (HandlerHeaders(tokens=True), {"principal": "them"}),
            (HandlerHeaders(tokens=False, principals=True), {"principal": "them"}),
        ):
            self.answers.update(inference_endpoints(self.inference, headers, SequenceHeaders(), 1000))
            self.answer("Predictions", asked(), call)
            self.assertEqual(self.jobs[-1].headers, seen)
        call.principal = None
        self.answer("Predictions", asked(), call)
        self.assertEqual(self.jobs[-1].headers, {})

    def test_own_status(self) -> None:
        """A handler's own HTTP status has no place in a response: the call is OK, as in TorchServe."""
        self.server.provider.respond = lambda jobs: [
            Item(job.request_id, 418, "Short and stout", {"X": "y"}, b"tea") for job in jobs
        ]
        self.assertEqual(self.answer("Predictions", asked()).prediction, b"tea")

    def test_parts(self) -> None:
        """A streaming handler's parts are joined."""
        self.worker.holding = True
        waiting = self.ask("Predictions", asked())
        [job] = self.jobs
        self.worker.chunk(self.item(job, b"a"))
        self.worker.chunk(self.item(job, b"b"))
        self.worker.answer([self.item(job, b"c")])
        self.assertEqual(self.successResultOf(waiting).prediction, b"abc")

    def test_unknown(self) -> None:
        """Unknown models and versions, and no name at all, have TorchServe's code and both lines."""
        package = "org.pytorch.serve.archive.model."
        for method in ("Predictions", "StreamPredictions"):
            status = self.status(method, asked("nope"))
            self.assertStatus(status, 13, "Model not found: nope", f"{package}ModelNotFoundException")
            status = self.status(method, asked("m", "9"))
            text = "Model version: 9 does not exist for model: m"
            self.assertStatus(status, 13, text, f"{package}ModelVersionNotFoundException")
            status = self.status(method, asked(""))
            self.assertStatus(status, 13, "Parameter model_name is required.", "BadRequestException.()")

    def test_long_name(self) -> None:
        """A name of megabytes does not make a trailer of megabytes."""
        self.assertLess(len(self.status("Predictions", asked("x" * (1 << 20))).message), 3000)

    def test_no_worker(self) -> None:
        """Without a worker the client may try again; the text and the other line are TorchServe's."""
        self.server.request("PUT", "/models/m?min_worker=0&synchronous=true")
        status = self.status("Predictions", asked())
        self.assertStatus(status, 14, f"{NO_WORKER}. It is scaled to zero workers.", "InternalServerException.()")

    def test_full_queue(self) -> None:
        """A client that finds the queue full is told to try again, and when."""
        self.worker.holding = True
        for number in range(101):
            self.ask("Predictions", asked(), RecordingCall(job_id=str(number))).addErrback(lambda _: None)
        status = self.status("Predictions", asked())
        self.assertEqual((status.code, status.metadata), (Code.UNAVAILABLE, ((b"retry-after", b"1"),)))
        self.assertTrue(status.message.startswith(NO_WORKER), status.message)

    def test_worker_died(self) -> None:
        """A dead worker is an internal error."""
        self.worker.holding = True
        waiting = self.ask("Predictions", asked())
        for _ in range(5):
            self.server.provider.holding = True
            if self.server.provider.alive and self.server.provider.alive[-1].busy:
                self.server.provider.alive[-1].kill()
            self.server.advance(60)
        status = self.status_of("Predictions", waiting)
        self.assertStatus(status, 13, "Worker died.", "org.pytorch.serve.http.InternalServerException")

    def test_worker_errors(self) -> None:
        """The error of a handler has the code that belongs to its HTTP status; it is never OK."""
        tag = "org.pytorch.serve.http.InternalServerException"
        for http, code in [
            (400, 3), (401, 16), (403, 7), (404, 5), (409, 10), (413, 8), (416, 11), (418, 9), (429, 8), (499, 1),
            (500, 13), (501, 12), (503, 14), (504, 4), (507, 13), (599, 13), (299, 2), (700, 2),
        ]:  # fmt: skip
            with self.subTest(http):
                self.respond(lambda job, http=http: WorkerFailed(http, "own text"))
                self.assertStatus(self.status("Predictions", asked(data=b"%d" % http)), code, "own text", tag)

    def test_deadline(self) -> None:
        """A call that is not answered in time fails with the deadline's code."""
        self.worker.holding = True
        self.ask("Predictions", asked()).addErrback(lambda _: None)
        late = self.ask("Predictions", asked(), RecordingCall(deadline=self.server.clock.seconds() + 2, job_id="late"))
        self.server.advance(1.9)
        self.assertNoResult(late)
        self.server.advance(0.2)
        self.assertIs(self.status_of("Predictions", late).code, Code.DEADLINE_EXCEEDED)

    def test_cancel(self) -> None:
        """A client that leaves frees its place in the queue, and its worker."""
        self.worker.holding = True
        running, queued = (self.ask("Predictions", asked(), RecordingCall(job_id=name)) for name in ("a", "b"))
        for each in (queued, running):
            each.cancel()
            self.failureResultOf(each)
        self.assertEqual(self.worker.cancelled, ["a"])
        self.worker.answer()
        self.assertEqual([job.request_id for job in self.jobs], ["a"])

    def test_counted(self) -> None:
        """Predictions are counted as those of HTTP, under the version that the client named."""
        self.answer("Predictions", asked())
        self.answer("StreamPredictions", asked("m", "1.0"))
        self.status("Predictions", asked("nope"))
        text = self.server.request("GET", "/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith("ts_inference_requests_total{")]
        self.assertEqual(sorted(line.rpartition(" ")[2] for line in lines), ["1.0", "1.0"])


class JoinedTests(ServiceTestCase):
    """Parts that are too large to be joined."""

    options = {"max_response_size": 10}

    def test_parts(self) -> None:
        """The worker is freed when the parts are too large together, and the client is told to stream them."""
        self.worker.holding = True
        waiting = self.ask("Predictions", asked())
        [job] = self.jobs
        self.worker.chunk(self.item(job, b"123456"))
        self.worker.chunk(self.item(job, b"789AB"))
        status = self.status_of("Predictions", waiting)
        self.assertIs(status.code, Code.RESOURCE_EXHAUSTED)
        self.assertIn("more than 10 bytes (max_response_size)", status.message)
        self.assertEqual(self.worker.cancelled, ["job"])

    def test_parts_at_once(self) -> None:
        """Parts that come while the request is being submitted count as well."""

        def respond(jobs: list[Job]) -> list[Item]:
            for _ in range(3):
                self.worker.chunk(self.item(jobs[0], b"12345"))
            return [self.item(jobs[0], b"6")]

        self.server.provider.respond = respond
        self.assertIs(self.status("Predictions", asked()).code, Code.RESOURCE_EXHAUSTED)

    def test_last_part(self) -> None:
        """The last part counts, too."""
        self.worker.holding = True
        waiting = self.ask("Predictions", asked())
        [job] = self.jobs
        self.worker.chunk(self.item(job, b"123456"))
        self.worker.answer([self.item(job, b"789AB")])
        self.assertIs(self.status_of("Predictions", waiting).code, Code.RESOURCE_EXHAUSTED)


class StreamTests(ServiceTestCase):
    """Predictions with a stream of responses."""

    def setUp(self) -> None:
        super().setUp()
        self.call = RecordingCall()

    def begin(self) -> None:
        self.worker.holding = True
        self.waiting = self.ask("StreamPredictions", asked(), self.call)
        [self.job] = self.jobs

    def sent(self) -> list[bytes]:
        return [message.prediction for message in self.call.sent]

    def test_ordinary_handler(self) -> None:
        """An ordinary handler's result is the only message; TorchServe's worker dies of such a call."""
        self.assertIsNone(self.answer("StreamPredictions", asked(), self.call))
        self.assertEqual((self.sent(), self.call.producer), ([b"1"], None))

    def test_parts(self) -> None:
        """Each part is a message, also an empty one, and the result is the last one."""
        self.begin()
        for part in (b"a", b"", b"b"):
            self.worker.chunk(self.item(self.job, part))
        self.assertEqual(self.sent(), [b"a", b"", b"b"])
        self.worker.answer([self.item(self.job, b"")])
        self.assertEqual(self.sent(), [b"a", b"", b"b", b""])
        self.assertIsNone(self.successResultOf(self.waiting))
        self.assertIsNone(self.call.producer)

    def test_back_pressure(self) -> None:
        """A client that does not read pauses the handler."""
        self.begin()
        self.worker.chunk(self.item(self.job, b"a"))
        self.call.reading.pauseProducing()
        self.assertEqual(self.worker.paused, {"job"})
        self.call.reading.resumeProducing()
        self.assertEqual(self.worker.paused, set())
        self.worker.answer()
        self.successResultOf(self.waiting)

    def test_failure(self) -> None:
        """An error after a part ends the call with its status."""
        self.begin()
        self.worker.chunk(self.item(self.job, b"a"))
        self.worker.answer(WorkerFailed(503, "Prediction failed"))
        status = self.status_of("StreamPredictions", self.waiting)
        self.assertStatus(status, 14, "Prediction failed", "org.pytorch.serve.http.InternalServerException")
        self.assertEqual((self.sent(), self.call.producer), ([b"a"], None))

    def test_cancel(self) -> None:
        """A client that leaves frees the worker, and no message follows."""
        self.begin()
        self.worker.chunk(self.item(self.job, b"a"))
        self.waiting.cancel()
        self.failureResultOf(self.waiting)
        self.worker.chunk(self.item(self.job, b"b"))
        self.assertEqual((self.worker.cancelled, self.sent()), (["job"], [b"a"]))
