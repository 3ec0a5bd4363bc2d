# SPDX-License-Identifier: Apache-2.0
"""
This module implements what a trace tells of a prediction that is over: its stages, and what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from twisted_serve.metrics.timing import Timing

# Other methods are a client's own words.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})


@frozen
class Prediction:
    """
    A prediction that is over, in seconds of the clock.

    :ivar began: When the first of the request was there.
    :ivar route: The path, with names for what differs from one request to the next.
    :ivar parent: The client's ``traceparent``, ``""`` for none.
    :ivar status: Of the answer; ``None`` if the client has gone without any.
    :ivar whole: Whether the client was there until the answer's end.
    """

    began: float
    timing: Timing
    ended: float
    method: str
    route: str
    parent: str
    status: int | None
    whole: bool

    @property
    def problem(self) -> str | None:
        """Return what went wrong on our side, or with the connection; a client's own errors do not count."""
        if not self.whole:
            return "client_gone"
        if self.status is not None and self.status >= 500:
            return str(self.status)
        # The head of a stream has said that all is well.
        said_well = self.status is not None and self.status < 400
        broken = said_well and self.timing.sent is not None and self.timing.answered is None
        return "stream_broken" if broken else None

    def stages(self) -> Iterator[tuple[str, float, float]]:
        """List the stages it came to, with beginning and end; the last one ends with it."""
        timing = self.timing
        yield "receive", self.began, timing.received
        if timing.queued is not None:
            yield "queue", timing.queued, self.ended if timing.sent is None else timing.sent
        if timing.sent is not None:
            yield "worker", timing.sent, self.ended if timing.answered is None else timing.answered
        if timing.answered is not None:
            yield "respond", timing.answered, self.ended

    def attributes(self) -> dict[str, str | int]:
        """Return what is told of it: nothing that a client could have put a key into."""
        method = self.method if self.method in _METHODS else "_OTHER"
        known: dict[str, str | int | None] = {
            "http.request.method": method,
            "http.route": self.route,
            "http.response.status_code": self.status,
            "error.type": self.problem,
            "model.name": self.timing.model,
            "model.version": self.timing.version,
        }
        return {name: value for name, value in known.items() if value is not None}
