# SPDX-License-Identifier: Apache-2.0
"""Tests for the traces of a whole server, in memory, with OpenTelemetry's own SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from threading import Event
from time import monotonic
from typing import Any
from unittest import mock

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.values import ConfigError
from twisted_serve.listening.roles import Role
from twisted_serve.metrics.spans import Prediction
from twisted_serve.metrics.timing import Timing
from twisted_serve.metrics.tracing import Tracer
from twisted_serve.testing.server import EPOCH, Answer, MemoryServer
from twisted_serve.wire.messages import Item

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


class TracingTests(SynchronousTestCase):
    """A server with ``tracing``, and the spans that have been sent when it has stopped."""

    def setUp(self) -> None:
        self.serve()

    def serve(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.server = MemoryServer({"tracing": True, **options}, models={"m": {}}, span_exporter=self.exporter)
        self.addCleanup(self.server.close)

    def predict(self, path: str = "/predictions/m", method: str = "POST", **headers: Any) -> Answer:
        return self.server.request(method, path, self.server.key(TokenKind.INFERENCE), headers, b"x")

    def spans(self) -> list[ReadableSpan]:
        """Stop the server, and return what it has sent."""
        self.server.close()
        return list(self.exporter.get_finished_spans())

    def prediction(self) -> tuple[ReadableSpan, list[ReadableSpan]]:
        """Do the same for one prediction: return its span and those of its stages, which are in it."""
        spans = self.spans()
        [whole] = [span for span in spans if span.kind is SpanKind.SERVER]
        stages = [span for span in spans if span is not whole]
        for stage in stages:
            assert stage.parent is not None
            self.assertEqual(stage.parent.span_id, context_of(whole).span_id)
            self.assertEqual(context_of(stage).trace_id, context_of(whole).trace_id)
        return whole, stages

    def test_prediction(self) -> None:
        """A prediction is a span of its own trace, and its stages are spans in it, one after another."""
        self.assertEqual(self.predict("/predictions/m/1.0/a/b?q=secret").status, 200)
        whole, stages = self.prediction()
        self.assertEqual(whole.name, "POST /predictions/{model}/{version}/{path}")
        self.assertIsNone(whole.parent)
        self.assertEqual(
            dict(whole.attributes or {}),
            {
                "http.request.method": "POST",
                "http.route": "/predictions/{model}/{version}/{path}",
                "http.response.status_code": 200,
                "model.name": "m",
                "model.version": "1.0",
            },
        )
        self.assertEqual(whole.status.status_code, StatusCode.UNSET)
        self.assertEqual([stage.name for stage in stages], ["receive", "queue", "worker", "respond"])
        self.assertEqual(whole.resource.attributes["service.name"], "twisted_serve")

    def test_times(self) -> None:
        """Spans have the moments at which it happened, from a request's first bytes to the answer's last."""
        [worker] = self.server.provider.workers
        worker.holding = True
        key = self.server.key(TokenKind.INFERENCE)
        self.server.advance(10)
        other = self.server.connect()
        body = f"POST /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\nContent-Length: 2\r\n\r\n"
        other.send(f"{body}xx".encode())
        connection = self.server.connect()
        connection.send(f"{body}x".encode())
        self.server.advance(1)
        connection.send(b"y")
        self.server.advance(2)
        worker.answer()
        self.server.advance(4)
        worker.answer()
        self.assertIn(b"200", connection.received)
        self.server.close()
        spans = self.exporter.get_finished_spans()
        last = [span for span in spans if context_of(span).trace_id == context_of(spans[-1]).trace_id]
        start = round(EPOCH.timestamp()) * 10**9

        def seconds(moment: int | None) -> float:
            assert moment is not None
            return round((moment - start) / 1e9, 3)

        self.assertEqual(
            {span.name: (seconds(span.start_time), seconds(span.end_time)) for span in last},
            {
                "receive": (10, 11),
                "queue": (11, 13),
                "worker": (13, 17),
                "respond": (17, 17),
                "POST /predictions/{model}": (10, 17),
            },
        )

    def test_traceparent(self) -> None:
        """A prediction is part of its client's trace."""
        self.predict(traceparent=SAMPLED)
        whole, _stages = self.prediction()
        assert whole.parent is not None
        self.assertEqual((f"{context_of(whole).trace_id:032x}", f"{whole.parent.span_id:016x}"), (TRACE, PARENT))
        self.assertTrue(whole.parent.is_remote)

    def test_not_sampled(self) -> None:
        """Of a trace that the client does not record nothing is sent."""
        self.predict(traceparent=SAMPLED[:-1] + "0")
        self.assertEqual(self.spans(), [])

    def test_bad_traceparent(self) -> None:
        """One that is malformed, or more than one, is as none."""
        bad: list[str | list[str]] = [
            "x",
            "",
            f"00-{TRACE}-{PARENT}",
            f"ff-{TRACE}-{PARENT}-01",
            f"00-{'0' * 32}-{PARENT}-01",
            f"00-{TRACE.upper()}-{PARENT}-01",
            SAMPLED + "-more",
            f"01-{TRACE}-{PARENT}-01-{'x' * 600}",
            "\xff" * 55,
            [SAMPLED, SAMPLED],
        ]
        for each in bad:
            self.assertEqual(self.predict(traceparent=each).status, 200, each)
        predictions = [span for span in self.spans() if span.kind is SpanKind.SERVER]
        self.assertEqual([span.parent for span in predictions], [None] * len(bad))
        self.assertNotIn(int(TRACE, 16), [context_of(span).trace_id for span in predictions])

    def test_not_found(self) -> None:
        """What the client got wrong has its status, and not its words; it is no error of the server."""
        key = self.server.key(TokenKind.INFERENCE)
        self.assertEqual(self.predict(f"/predictions/{key}?{key}", method="SECRET", traceparent=key).status, 404)
        whole, stages = self.prediction()
        self.assertEqual(
            dict(whole.attributes or {}),
            {
                "http.request.method": "_OTHER",
                "http.route": "/predictions/{model}",
                "http.response.status_code": 404,
            },
        )
        self.assertEqual(whole.status.status_code, StatusCode.UNSET)
        self.assertEqual([stage.name for stage in stages], ["receive"])
        self.assertNotIn(key, whole.to_json())

    def test_refused(self) -> None:
        """A prediction which is refused, or fails at the worker, is marked as an error."""
        self.serve(job_queue_size=1, retry_on_worker_death=False)
        [worker] = self.server.provider.workers
        worker.holding = True
        key = self.server.key(TokenKind.INFERENCE)
        for _ in range(2):
            self.server.send("POST", "/predictions/m", key, body=b"x")
        self.assertEqual(self.predict().status, 503)
        worker.kill()
        failed = [span for span in self.spans() if span.kind is SpanKind.SERVER][:2]
        for span, status in zip(failed, (503, 500), strict=True):
            attributes = span.attributes or {}
            self.assertEqual(attributes["http.response.status_code"], status)
            self.assertEqual(attributes["error.type"], str(status))
            self.assertEqual(attributes["model.name"], "m")
            self.assertEqual(span.status.status_code, StatusCode.ERROR)

    def test_too_late(self) -> None:
        """A prediction which waits until its client's time is over was in the queue until then, and nowhere else."""
        [worker] = self.server.provider.workers
        worker.holding = True
        key = self.server.key(TokenKind.INFERENCE)
        for path in ("/predictions/m", "/explanations/m"):
            self.server.send("POST", path, key, {"x-request-timeout-ms": "3000"}, b"x")
        self.server.advance(3)
        self.server.flush()
        spans = self.spans()
        [whole] = [span for span in spans if span.name == "POST /explanations/{model}"]
        self.assertEqual((whole.attributes or {})["http.response.status_code"], 408)
        inside = [span for span in spans if span.parent and span.parent.span_id == context_of(whole).span_id]
        self.assertEqual([span.name for span in inside], ["receive", "queue"])
        queue = inside[1]
        assert queue.start_time is not None
        assert queue.end_time is not None
        self.assertEqual(round((queue.end_time - queue.start_time) / 1e9, 3), 3)

    def test_gone(self) -> None:
        """A client that does not wait for its answer leaves a trace, without a status."""
        self.server.provider.workers[0].holding = True
        connection = self.server.connect()
        key = self.server.key(TokenKind.INFERENCE)
        connection.send(f"GET /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        connection.leave()
        whole, stages = self.prediction()
        attributes = whole.attributes or {}
        self.assertEqual(attributes["error.type"], "client_gone")
        self.assertNotIn("http.response.status_code", attributes)
        self.assertEqual([stage.name for stage in stages], ["receive", "queue", "worker"])

    def test_broken_stream(self) -> None:
        """A stream that breaks off is an error, whatever its head has said."""
        [worker] = self.server.provider.workers
        worker.holding = True
        sent = self.server.send("POST", "/predictions/m", self.server.key(TokenKind.INFERENCE), body=b"x")
        sent.addErrback(lambda _failure: None)
        worker.chunk(Item(worker.batches[0][0].request_id, 200, "", {}, b"part"))
        worker.kill()
        whole, _stages = self.prediction()
        self.assertEqual((whole.attributes or {})["http.response.status_code"], 200)
        self.assertEqual((whole.attributes or {})["error.type"], "stream_broken")
        self.assertEqual(whole.status.status_code, StatusCode.ERROR)

    def test_strangers(self) -> None:
        """Without a token nobody makes traces; nor does what is no prediction."""
        self.assertEqual(self.server.request("POST", "/predictions/m", body=b"x").status, 400)
        self.assertEqual(self.server.request("POST", "/predictions/m", "wrong" * 10, body=b"x").status, 400)
        self.assertEqual(self.predict("/ping").status, 200)
        self.assertEqual(self.predict("/predictions/m", "OPTIONS").status, 200)
        self.server.request("GET", "/metrics")
        self.server.request("GET", "/models", self.server.key(TokenKind.MANAGEMENT))
        self.assertEqual(self.spans(), [])

    def test_routes(self) -> None:
        """Each route that predicts is named as our own description names it, ids apart."""
        self.serve(ts_open_inference_protocol="true")
        paths = self.server.request("OPTIONS", "/", role=Role.INFERENCE).json["paths"]
        names = [path.replace("model_name", "model").replace("model_version", "version") for path in paths]
        names = [name.replace("url_path", "path").replace("workflow_name", "workflow") for name in names]
        for path in paths:
            real = path.format(model_name="m", model_version="1.0", url_path="r", workflow_name="w")
            self.predict(real)
        traced = {str((span.attributes or {}).get("http.route")) for span in self.spans() if span.attributes}
        predicting = {
            name
            for name in names
            if name.startswith(("/predictions", "/explanations", "/wfpredict"))
            or name.endswith(("/predict", "/invoke", "/infer", "/explain", ":predict", ":explain", "/invocations"))
        }
        self.assertGreater(len(predicting), 14)
        self.assertEqual(traced, predicting)


class TracerTests(SynchronousTestCase):
    """Tests for what a server does without ``tracing``, and for what may be wrong around it."""

    def test_off(self) -> None:
        """Without the setting nothing of OpenTelemetry is imported."""
        program = (
            "import sys\n"
            "from twisted_serve.auth.tokens import TokenKind\n"
            "from twisted_serve.testing.server import MemoryServer\n"
            "with MemoryServer(models={'m': {}}) as server:\n"
            "    answer = server.request('POST', '/predictions/m', server.key(TokenKind.INFERENCE), body=b'x')\n"
            "    assert answer.status == 200\n"
            "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_missing(self) -> None:
        """Without the packages a server with the setting does not start, and says how to get them."""
        missing = {"twisted_serve.metrics.tracing": None}
        with mock.patch.dict(sys.modules, missing):
            error = self.assertRaises(ConfigError, MemoryServer, {"tracing": "true"})
        self.assertIn("pip install 'twisted-serve[otel]' (tracing)", str(error))

    def test_environment(self) -> None:
        """OpenTelemetry's variables say what the service is called."""
        exporter = InMemorySpanExporter()
        with mock.patch.dict("os.environ", {"OTEL_SERVICE_NAME": "digits", "OTEL_RESOURCE_ATTRIBUTES": "zone=a"}):
            tracer = Tracer(lambda: EPOCH, exporter)
        tracer.start()
        tracer.trace(a_prediction())
        tracer.stop()
        attributes = exporter.get_finished_spans()[0].resource.attributes
        self.assertEqual((attributes["service.name"], attributes["zone"]), ("digits", "a"))

    def test_collector_hangs(self) -> None:
        """A collector that does not answer holds the server's end up no longer than the limit."""
        never = Event()
        self.addCleanup(never.set)

        class Hanging(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                never.wait(60)
                return SpanExportResult.FAILURE

        tracer = Tracer(lambda: EPOCH, Hanging())
        tracer.start()
        tracer.trace(a_prediction())
        before = monotonic()
        tracer.stop(limit=0.05)
        self.assertLess(monotonic() - before, 20)


def context_of(span: ReadableSpan) -> Any:
    """Return the ids of a span."""
    assert span.context is not None
    return span.context


def a_prediction() -> Prediction:
    """Make one that is over."""
    return Prediction(0.0, Timing(0.0), 1.0, "POST", "/predictions/{model}", "", 200, True)
