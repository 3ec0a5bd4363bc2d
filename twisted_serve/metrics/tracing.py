# SPDX-License-Identifier: Apache-2.0
"""
This module implements traces for OpenTelemetry: a span for each prediction, and one in it for each of its stages.

They are made when the prediction is over, from the moments which it has by then.  Only
a server with ``tracing`` imports this module: what it needs is an extra.  Where spans
go, and which are taken, is said in OpenTelemetry's own variables.
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
from twisted_serve.metrics.stages import Prediction

# Seconds that the last spans have to be sent when the server stops.
LAST_SPANS = 5.0

# A longer header is none; OpenTelemetry would log each of them.
_LONGEST_PARENT = 512


class Tracer:
    """
    Makes traces, and has a thread that sends them.

    :param now: The date and time of the clock's moment.
    :param exporter: Where spans go; ``None`` for what OpenTelemetry's variables say.
    :raise ValueError: for one of these variables that cannot be used.
    """

    def __init__(self, now: Now, exporter: SpanExporter | None = None) -> None:
        self._now = now
        self._exporter = exporter or OTLPSpanExporter()
        ours = Resource.create({SERVICE_NAME: "twisted_serve", SERVICE_VERSION: __version__})
        # What the variables say counts more.
        resource = ours.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracer = self._provider.get_tracer("twisted_serve", __version__)
        self._parents = TraceContextTextMapPropagator()

    def start(self) -> None:
        """Begin to send, from a thread which keeps no process alive."""
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))

    def stop(self, limit: float = LAST_SPANS) -> None:
        """Send what has not been sent, for ``limit`` seconds at most, and end; this blocks."""
        # OpenTelemetry has no such limit: what takes longer is left to a thread that ends with the process.
        ending = Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(limit)

    def trace(self, prediction: Prediction) -> None:
        """Make the spans of a prediction that has ended just now."""
        epoch = self._now().timestamp() - prediction.ended

        def nanoseconds(moment: float) -> int:
            return round((epoch + moment) * 1e9)

        attributes = prediction.attributes()
        whole = self._tracer.start_span(
            f"{attributes['http.request.method']} {prediction.route}",
            self._parent(prediction.parent),
            SpanKind.SERVER,
            attributes,
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
        """Read a ``traceparent``; one that is malformed is as none."""
        carrier = {"traceparent": header} if 0 < len(header) <= _LONGEST_PARENT else {}
        return self._parents.extract(carrier, Context())
