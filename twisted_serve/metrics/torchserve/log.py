# SPDX-License-Identifier: Apache-2.0
"""
Log metric lines in batches.

A request produces half a dozen lines: one event for each would cost more than the
request itself.  Each line has its own timestamp, in seconds.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_serve.logs import log_lines

# Seconds for which lines are buffered.
GATHERING = 0.1
# The buffer is flushed when it has this many lines.
MOST_LINES = 1000


class MetricLog:
    """
    Buffer the lines of one logger.

    :param name: The name of the logger, for example ``TS_METRICS``.
    """

    def __init__(self, log: Logger, name: str, clock: IReactorTime) -> None:
        self._log = log
        self._name = name
        self._clock = clock
        self._lines: list[str] = []
        self._due: IDelayedCall | None = None
        self._closed = False

    def write(self, line: str) -> None:
        """Buffer a line; it is logged within `GATHERING` seconds."""
        self._lines.append(line)
        if self._closed or len(self._lines) >= MOST_LINES:
            self._flush()
        elif self._due is None:
            self._due = self._clock.callLater(GATHERING, self._on_due)

    def close(self) -> None:
        """Flush the buffer, and log each later line immediately."""
        self._closed = True
        if self._due is not None:
            self._due.cancel()
            self._on_due()

    def _on_due(self) -> None:
        self._due = None
        self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            log_lines(self._log, self._name, lines)
