# SPDX-License-Identifier: Apache-2.0
"""
Log metrics: buffer their values, and render the lines of many at once.

A request has half a dozen of them: a line and an event for each would cost more than
the request itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_serve.interfaces import Now
from twisted_serve.logs import RenderedLines, log_lines
from twisted_serve.metrics.torchserve.lines import Series

# Seconds for which values are buffered.
GATHERING = 0.1
# The buffer is flushed when it has this many values.
MOST_LINES = 1000

_Value = TypeVar("_Value")

#: Renders values with their series, recorded in this second since the epoch.
Render: TypeAlias = Callable[[Sequence[tuple[Series, _Value]], int], RenderedLines]


class MetricLog(Generic[_Value]):
    """
    Buffer the values of one logger.

    Their second is read once for all: the buffer is flushed where a second ends.

    :param name: The name of the logger, for example ``TS_METRICS``.
    """

    def __init__(self, log: Logger, name: str, clock: IReactorTime, now: Now, render: Render[_Value]) -> None:
        self._log = log
        self._name = name
        self._clock = clock
        self._now = now
        self._render = render
        self._values: list[tuple[Series, _Value]] = []
        self._second = 0
        self._due: IDelayedCall | None = None
        self._closed = False

    def add(self, series: Series, value: _Value) -> None:
        """Buffer a value; it is logged within `GATHERING` seconds."""
        values = self._values
        values.append((series, value))
        if self._due is None:
            self._begin()
        elif len(values) >= MOST_LINES:
            self._flush()

    def close(self) -> None:
        """Flush the buffer, and log each later value immediately."""
        self._closed = True
        if self._due is not None:
            self._due.cancel()
            self._on_due()

    def _begin(self) -> None:
        moment = self._now().timestamp()
        self._second = int(moment)
        if self._closed:
            self._flush()
        else:
            self._due = self._clock.callLater(min(GATHERING, self._second + 1 - moment), self._on_due)

    def _on_due(self) -> None:
        self._due = None
        self._flush()

    def _flush(self) -> None:
        values, self._values = self._values, []
        if values:
            log_lines(self._log, self._name, self._render(values, self._second))
