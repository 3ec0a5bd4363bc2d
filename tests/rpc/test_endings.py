# SPDX-License-Identifier: Apache-2.0
"""Tests for the records of gRPC calls: access log, counter, traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.logs import ACCESS_LOG
from twisted_serve.rpc.messages import PredictionsRequest
from twisted_serve.rpc.methods import INFERENCE
from twisted_serve.rpc.statuses import Code
from twisted_serve.testing.server import MemoryServer, Role

PING = f"/{INFERENCE}/Ping"
PREDICT = f"/{INFERENCE}/Predictions"

MESSAGE = PredictionsRequest(model_name="m", input={"data": b"x"})

TRACE, PARENT = "a" * 32, "b" * 16


class EndingTests(SynchronousTestCase):
    """Calls to a server with traces."""

    def setUp(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.server = MemoryServer({"tracing": True}, models={"m": {}}, span_exporter=self.exporter)
        self.addCleanup(self.server.close)
        self.key = self.server.key(TokenKind.INFERENCE)

    def lines(self, logs: Sequence[Any]) -> list[str]:
        """Return the lines of the access log."""
        return [each["line"] for each in logs if each.get("logger_name") == ACCESS_LOG]

    def spans(self) -> list[Any]:
        """Stop the server, and return the spans of calls."""
        self.server.close()
        return [span for span in self.exporter.get_finished_spans() if span.kind is SpanKind.SERVER]

    def test_access_log(self) -> None:
        """Each call has one line when it is over: with its code as the status, an id if it went wrong or has one."""
        connection = self.server.grpc()
        with capturedLogs() as logs:
            connection.call(PING, b"", self.key)
            named = connection.call(PING, b"", self.key, metadata=[("x-request-id", "mine-1")])
            refused = connection.call(PING, b"")
            unknown = connection.call(f"/x/{self.key}", b"", self.key)
            connection.begin(PREDICT, self.key).cancel()
        self.assertEqual(named.headers["x-request-id"], "mine-1")
        told = [f" {call.headers['x-request-id']}" for call in (refused, unknown)]
        lines = self.lines(logs)
        self.assertEqual(
            lines[:4],
            [
                f'/127.0.0.1:31337 "gRPC {PING} HTTP/2.0" 0 0',
                f'/127.0.0.1:31337 "gRPC {PING} HTTP/2.0" 0 0 mine-1',
                f'/127.0.0.1:31337 "gRPC {PING} HTTP/2.0" 7 0{told[0]}',
                f'/127.0.0.1:31337 "gRPC /x/<redacted> HTTP/2.0" 12 0{told[1]}',
            ],
        )
        self.assertIn(f'"gRPC {PREDICT} HTTP/2.0" 1 0', lines[4])
        self.assertEqual(len(lines), 5)

    def test_forged_line(self) -> None:
        """No path makes a second line, or one of another client."""
        with capturedLogs() as logs:
            self.server.grpc().begin('/x" 0 0\u2028/1.2.3.4:5 "gRPC', self.key)
        for line in self.lines(logs):
            self.assertTrue(line.isascii())
            self.assertEqual(line.replace('\\"', "").count('"'), 2)

    def test_counter(self) -> None:
        """Calls are counted by method and code; paths of clients make no series."""
        connection = self.server.grpc()
        for _ in range(3):
            connection.call(PING, b"", self.key)
        connection.call(PING, b"")
        for i in range(5):
            connection.call(f"/x/{i}", b"", self.key)
        text = self.server.request("GET", "/metrics", role=Role.METRICS).body.decode()
        lines = sorted(line for line in text.splitlines() if line.startswith("ts_grpc_calls_total{"))
        self.assertEqual(
            lines,
            [
                f'ts_grpc_calls_total{{method="{PING}",code="OK",}} 3.0',
                f'ts_grpc_calls_total{{method="{PING}",code="PERMISSION_DENIED",}} 1.0',
                'ts_grpc_calls_total{method="unknown",code="UNIMPLEMENTED",} 5.0',
            ],
        )

    def test_trace(self) -> None:
        """A prediction is a span with the attributes of RPC, in the client's trace; a ping is none."""
        connection = self.server.grpc()
        connection.call(PING, b"", self.key)
        parent = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
        self.assertEqual(connection.call(PREDICT, MESSAGE, self.key, metadata=parent).code, Code.OK)
        [span] = self.spans()
        self.assertEqual(span.name, PREDICT[1:])
        self.assertEqual(f"{span.context.trace_id:032x}", TRACE)
        self.assertEqual(
            dict(span.attributes),
            {
                "rpc.system": "grpc",
                "rpc.service": INFERENCE,
                "rpc.method": "Predictions",
                "rpc.grpc.status_code": 0,
                "model.name": "m",
                "model.version": "1.0",
            },
        )
        self.assertEqual(span.status.status_code, StatusCode.UNSET)

    def test_trace_of_errors(self) -> None:
        """Errors of the server and lost clients are errors of a span, mistakes are not; a refusal has none."""
        connection = self.server.grpc()
        connection.call(PREDICT, PredictionsRequest(model_name="m"), self.key)
        connection.call(PREDICT, PredictionsRequest(model_name="nothing"), self.key)
        connection.call(PREDICT, MESSAGE)
        [worker] = self.server.provider.workers
        worker.holding = True
        connection.call(PREDICT, MESSAGE, self.key).cancel()
        connection.call(PREDICT, MESSAGE, self.key, timeout=1)
        self.server.advance(2)
        errors = [span.attributes.get("error.type") for span in self.spans()]
        # TorchServe's code for an unknown model is INTERNAL, whatever OpenTelemetry makes of it.
        self.assertEqual(errors, [None, "13", "client_gone", "4"])
