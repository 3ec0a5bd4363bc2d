# SPDX-License-Identifier: Apache-2.0
"""
Represent a prediction whose connection is in a front.

If its response is a usual one, the front sends it.  Anything else (an error, a stream, a limit of the key) waits for
the connection, and then happens as to any request on the fast lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure

from twisted_serve.auth.gate import Denied
from twisted_serve.errors import ServeError
from twisted_serve.web.http.channel import ServeChannel
from twisted_serve.web.http.contracts import ChannelSite
from twisted_serve.web.routes.fast_lane import Prediction, Quick
from twisted_serve.web.routes.predictions import usual_lines
from twisted_serve.wire.messages import Item


class Away(Protocol):
    """A connection that is in a front."""

    def answer(self, answer_id: str, lines: bytes, body: bytes) -> bool:
        """Send the response to the front; return ``False`` if the front is returning the connection."""

    def call_back(self) -> None:
        """Have the front return the connection."""

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and port of the client."""


class DistantRequest(Quick):
    """
    A prediction whose connection is in a front.

    :param away: The connection.
    :param waited: Seconds from its first byte to its last.
    """

    __slots__ = ("_away", "_events", "_producers")

    def __init__(
        self, site: ChannelSite, away: Away, prediction: Prediction, digits: bytes, body: bytes, waited: float
    ) -> None:
        super().__init__(site, None, prediction, digits, body)
        self._began -= waited
        self._away = away
        # What has happened to the request and waits for the connection.
        self._events: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._producers: list[IPushProducer] = []

    def answered(self, item: Item) -> None:
        """Have the front send the response, if it is a usual one."""
        lines = None
        if self.channel is None and not self._events:
            try:
                lines = usual_lines(item)
            except Exception:
                # A header of the handler that cannot be sent.
                self.fail(Failure())
                return
        if lines is None or not self._away.answer(self.answer_id, lines, item.body):
            self._later(Quick.answered, item)
            return
        self.over = True
        self.log(self._away.address)

    def failed(self, error: ServeError) -> None:
        """Answer with an error, on the returned connection."""
        self._later(Quick.failed, error)

    def fail(self, failure: Failure) -> None:
        """Answer with the error for a failure, on the returned connection."""
        self._later(Quick.fail, failure)

    def refuse(self, denied: Denied) -> None:
        """Refuse the request, on the returned connection."""
        self._later(Quick.refuse, denied)

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Send a part of the response on the returned connection, for which the producer waits."""
        if self.channel is None:
            self._producers.append(producer)
            producer.pauseProducing()
        self._later(Quick.chunk, item, producer)

    def _later(self, event: Callable[..., None], *arguments: Any) -> None:
        if self.channel is not None:
            event(self, *arguments)
            return
        self._events.append((event, arguments))
        if len(self._events) == 1:
            self._away.call_back()

    def come_back(self, channel: ServeChannel) -> None:
        """Continue on the returned connection, whose channel is idle."""
        self.channel = channel
        channel.leave_to(self)
        events, self._events = self._events, []
        for event, arguments in events:
            event(self, *arguments)
        producers, self._producers = self._producers, []
        if not channel.stalled:
            for producer in producers:
                producer.resumeProducing()
