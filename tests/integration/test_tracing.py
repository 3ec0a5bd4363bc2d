# SPDX-License-Identifier: Apache-2.0
"""Tests for traces which a server sends to a collector, as OpenTelemetry's variables say."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.conftest import ECHO

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer

pytestmark = pytest.mark.integration

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Run a collector; give its address, and what it was sent."""
    sent: list[bytes] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_collector(make_server: MakeServer) -> None:
    """A prediction's spans are at the collector when the server has stopped, in the client's trace."""
    with collector() as (address, sent):
        server = make_server({"m": ECHO}, tracing="true")
        server.environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_SERVICE_NAME": "digits"}
        server.start("--models", "m=m")
        parent = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01"
        assert server.predict("m", b"x", "-H", parent).status == 200
        assert server.stop() == 0
    exported = [ExportTraceServiceRequest.FromString(body) for body in sent]
    resources = [resource for each in exported for resource in each.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["POST /predictions/{model}", "queue", "receive", "respond", "worker"]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    named = {each.key: each.value.string_value for resource in resources for each in resource.resource.attributes}
    assert named["service.name"] == "digits"


def test_no_collector(make_server: MakeServer) -> None:
    """Without a collector the server serves, and stops, as ever."""
    with socket.socket() as taken:
        # Nobody listens there, and nobody else can.
        taken.bind(("127.0.0.1", 0))
        server = make_server({"m": ECHO}, tracing="true")
        server.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{taken.getsockname()[1]}"
        server.start("--models", "m=m")
        assert server.predict("m", b"x").status == 200
        assert server.stop() == 0
