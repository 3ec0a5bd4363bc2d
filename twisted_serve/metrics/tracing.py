# SPDX-License-Identifier: Apache-2.0
"""
Export traces to OpenTelemetry: a span for each prediction, with a child span for each of its stages.

Spans are created after the prediction has ended, from its timestamps.  Only a server with
``tracing`` imports this module, whose dependencies are an extra.  OpenTelemetry's own
environment variables configure the exporter and the sampling.
"""

from __future__ import annotations

from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from twisted_serve import __version__
from twisted_serve.interfaces import Now
from twisted_serve.metrics.spans import Prediction

# Seconds allowed for sending the last spans when the server stops.
LAST_SPANS = 5.0

# In characters; a longer header is ignored, because OpenTelemetry would log each one.
_LONGEST_PARENT = 512


class Tracer:
    """
    Create spans, and send them from a thread.

    :param now: Returns the current date and time.
    :param exporter: Sends the spans; ``None`` for the exporter that OpenTelemetry's variables configure.
    :raise ValueError: for an invalid value of such a variable.
    """

    def __init__(self, now: Now, exporter: SpanExporter | None = None) -> None:
        self._now = now
        self._exporter = exporter or OTLPSpanExporter()
        ours = Resource.create({SERVICE_NAME: "twisted_serve", SERVICE_VERSION: __version__})
        # OpenTelemetry's variables take precedence.
        resource = ours.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracer = self._provider.get_tracer("twisted_serve", __version__)
        self._parents = TraceContextTextMapPropagator()

    def start(self) -> None:
        """Start the thread that sends spans; it is a daemon, so that it keeps no process alive."""
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))

    def stop(self, limit: float = LAST_SPANS) -> None:
        """Send the remaining spans for at most ``limit`` seconds, and shut down; blocks."""
        # OpenTelemetry has no such limit: a daemon thread goes on after it, and ends with the process.
        ending = Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(limit)

    def trace(self, prediction: Prediction) -> None:
        """Create the spans of a prediction that has just ended."""
        epoch = self._now().timestamp() - prediction.ended

        def nanoseconds(moment: float) -> int:
            return round((epoch + moment) * 1e9)

        whole = self._tracer.start_span(
            prediction.name,
            self._parent(prediction.parent),
            SpanKind.SERVER,
            prediction.attributes(),
            start_time=nanoseconds(prediction.began),
        )
        if whole.is_recording():
            inside = set_span_in_context(whole, Context())
            for name, began, ended in prediction.stages():
                stage = self._tracer.start_span(name, inside, start_time=nanoseconds(began))
                stage.end(nanoseconds(ended))
            if prediction.problem is not None:
                whole.set_status(Status(StatusCode.ERROR))
        whole.end(nanoseconds(prediction.ended))

    def _parent(self, header: str) -> Context:
        """Parse a ``traceparent``; a malformed one is ignored."""
        carrier = {"traceparent": header} if 0 < len(header) <= _LONGEST_PARENT else {}
        return self._parents.extract(carrier, Context())
