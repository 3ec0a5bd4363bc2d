# SPDX-License-Identifier: Apache-2.0
"""
This module implements the way of metrics into the log, many lines at a time.

A request makes half a dozen of them: one event for each would cost more than the
request.  Each line says itself, to the second, which moment it is about.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_serve.logs import log_lines

# Seconds that a line waits for others.
GATHERING = 0.1
# So many lines wait at most.
MOST_LINES = 1000


class MetricLog:
    """
    Gathers the lines of one logger.

    :param name: The logger's name, ``TS_METRICS`` say.
    """

    def __init__(self, log: Logger, name: str, clock: IReactorTime) -> None:
        self._log = log
        self._name = name
        self._clock = clock
        self._lines: list[str] = []
        self._due: IDelayedCall | None = None
        self._closed = False

    def write(self, line: str) -> None:
        """Have a line written soon."""
        self._lines.append(line)
        if self._closed or len(self._lines) >= MOST_LINES:
            self._flush()
        elif self._due is None:
            self._due = self._clock.callLater(GATHERING, self._come)

    def close(self) -> None:
        """Write what waits, and from now on each line at once."""
        self._closed = True
        if self._due is not None:
            self._due.cancel()
            self._come()

    def _come(self) -> None:
        self._due = None
        self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            log_lines(self._log, self._name, lines)
