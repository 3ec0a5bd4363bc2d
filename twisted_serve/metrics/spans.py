# SPDX-License-Identifier: Apache-2.0
"""
Describe a finished prediction for a trace: its spans and attributes.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from twisted_serve.metrics.timing import Timing

# The codes of gRPC that are errors of a server (OpenTelemetry's conventions for RPC): UNKNOWN, DEADLINE_EXCEEDED,
# UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
_SERVER_ERRORS = frozenset({2, 4, 12, 13, 14, 15})

# Any other method is arbitrary client input and is not exported.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})


@frozen
class Prediction:
    """
    A finished prediction, with times in seconds of the clock.

    :ivar began: When the first bytes of the request arrived.
    :ivar ended: When the response ended, or the client disconnected.
    :ivar route: The path template, with names in place of the variable segments.
    :ivar parent: The client's ``traceparent``; ``""`` for none.
    :ivar status: The status of the response; ``None`` if the client disconnected before it.
    :ivar whole: Whether the client stayed connected until the end of the response.
    :ivar grpc_code: The status code of a gRPC call, whose ``route`` is ``/package.Service/Method``; ``None`` for HTTP.
    """

    began: float
    timing: Timing
    ended: float
    method: str
    route: str
    parent: str
    status: int | None
    whole: bool
    grpc_code: int | None = None

    @property
    def name(self) -> str:
        """The name of the span."""
        return f"{self._shown_method} {self.route}" if self.grpc_code is None else self.route.removeprefix("/")

    @property
    def problem(self) -> str | None:
        """The error on the server's side or of the connection, or ``None``; client errors do not count."""
        if not self.whole:
            return "client_gone"
        if self.grpc_code is not None:
            return str(self.grpc_code) if self.grpc_code in _SERVER_ERRORS else None
        if self.status is not None and self.status >= 500:
            return str(self.status)
        # The status of a stream is sent before the stream can fail.
        said_well = self.status is not None and self.status < 400
        broken = said_well and self.timing.sent is not None and self.timing.answered is None
        return "stream_broken" if broken else None

    def stages(self) -> Iterator[tuple[str, float, float]]:
        """Yield name, start and end of each stage the prediction reached; the last stage ends with the prediction."""
        timing = self.timing
        yield "receive", self.began, timing.received
        if timing.queued is not None:
            yield "queue", timing.queued, self.ended if timing.sent is None else timing.sent
        if timing.sent is not None:
            yield "worker", timing.sent, self.ended if timing.answered is None else timing.answered
        if timing.answered is not None:
            yield "respond", timing.answered, self.ended

    def attributes(self) -> dict[str, str | int]:
        """Return the attributes of the span, none of which can contain a key that a client sent."""
        known: dict[str, str | int | None] = {
            **self._of_transport(),
            "error.type": self.problem,
            "model.name": self.timing.model,
            "model.version": self.timing.version,
        }
        return {name: value for name, value in known.items() if value is not None}

    def _of_transport(self) -> dict[str, str | int | None]:
        if self.grpc_code is None:
            return {
                "http.request.method": self._shown_method,
                "http.route": self.route,
                "http.response.status_code": self.status,
            }
        service, _, method = self.route.removeprefix("/").partition("/")
        return {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "rpc.grpc.status_code": self.grpc_code,
        }

    @property
    def _shown_method(self) -> str:
        return self.method if self.method in _METHODS else "_OTHER"
