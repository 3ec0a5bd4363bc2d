# SPDX-License-Identifier: Apache-2.0
"""
Dispatch log events to their destinations, and buffer the frequent ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import tzinfo
from typing import TextIO

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from twisted_serve.logs.access_lines import Request
from twisted_serve.logs.coalescing import Coalescing
from twisted_serve.logs.events import ACCESS_LOG, MODEL_LOG, READY
from twisted_serve.logs.layouts import Layout, long_layout
from twisted_serve.logs.levels import Levels
from twisted_serve.logs.records import entry_of, logger_of, without_keys

# Seconds for which lines are buffered, so that one write serves all of them.
GATHERING = 0.05
# The loggers with buffered lines: those that every request writes to.  Rare lines, such as audit lines, are written
# immediately, and so are lines of metrics, which were coalesced before.
_FREQUENT = frozenset({ACCESS_LOG, MODEL_LOG})
# The buffer is flushed when it reaches this number of characters.
MAX_BUFFERED = 1 << 16

#: Calls a function after this many seconds, once the reactor runs.
CallLater = Callable[[float, Callable[[], None]], object]


@frozen
class Destination:
    """
    A destination of log lines.

    :ivar write: Writes complete lines.
    :ivar layout: Renders the records of this destination.
    :ivar loggers: The loggers with lines for this destination; ``None`` for all loggers.
    """

    write: Callable[[str], object]
    layout: Layout
    loggers: frozenset[str] | None = None


@implementer(ILogObserver)
class Router:
    """
    Write each event to its destinations, in the order of arrival, with keys redacted.

    Frequent lines are buffered, so that the work per event and the writes are shared by many lines.

    :param levels: The levels of the loggers; events below them are dropped.
    :param secrets: Called before each write; returns the current keys.
    :param call_later: Schedules a flush of the buffer; ``None`` to write each event immediately.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        levels: Levels,
        secrets: Callable[[], Collection[str]],
        call_later: CallLater | None = None,
    ) -> None:
        self._destinations = destinations
        self._levels = levels
        self._secrets = secrets
        self._call_later = call_later
        self._buffer = Coalescing()
        self._logs_requests = levels.let_through(ACCESS_LOG, LogLevel.info)

    def __call__(self, event: LogEvent) -> None:
        """Write ``event`` immediately, or buffer it if it is a frequent one."""
        logger, level = logger_of(event), event.get("log_level", LogLevel.info)
        if not self._levels.let_through(logger, level):
            return
        frequent = logger in _FREQUENT and level is LogLevel.info and event.get("log_format") == READY
        if self._call_later is None or not frequent or "lines" in event:
            self.flush()
            self._write([event])
            return
        if not self._buffer.size:
            self._call_later(GATHERING, self.flush)
        self._buffer.add(logger, event)
        if self._buffer.size >= MAX_BUFFERED:
            self.flush()

    def add_request(self, request: Request) -> None:
        """Log a request, in its order among the events; its line is rendered when the buffer is flushed."""
        if not self._logs_requests:
            return
        buffer = self._buffer
        if not buffer.size and self._call_later is not None:
            self._call_later(GATHERING, self.flush)
        buffer.add_request(request)
        if buffer.size >= MAX_BUFFERED or self._call_later is None:
            self.flush()

    def close(self) -> None:
        """Flush the buffer, and write each later event immediately."""
        self._call_later = None
        self.flush()

    def flush(self) -> None:
        """Write all buffered events."""
        waiting = self._buffer.take()
        if waiting:
            self._write(waiting)

    def _write(self, events: Sequence[LogEvent]) -> None:
        texts: list[list[tuple[str, Sequence[int] | None]]] = [[] for _ in self._destinations]
        for event in without_keys(events, self._secrets()):
            logger, entry = logger_of(event), entry_of(event)
            rendered: dict[Layout, str] = {}
            for place, destination in zip(texts, self._destinations, strict=True):
                if destination.loggers is None or logger in destination.loggers:
                    layout = destination.layout
                    if layout not in rendered:
                        rendered[layout] = layout(entry)
                    place.append((rendered[layout], event.get("positions")))
        for place, destination in zip(texts, self._destinations, strict=True):
            if place:
                destination.write(place[0][0] if len(place) == 1 else in_order(place))


def in_order(texts: Sequence[tuple[str, Sequence[int] | None]]) -> str:
    """
    Join the lines of several texts.

    :param texts: Each with the positions of its lines among all; without them if it is the only one.
    """
    placed: dict[int, str] = {}
    for text, positions in texts:
        # No line has an end within it, see `records`.
        placed.update(zip(positions or (), text.split("\n"), strict=False))
    return "\n".join([placed[position] for position in sorted(placed)]) + "\n"


@implementer(ILogObserver)
class LineObserver:
    """
    Write each event, of any level, in TorchServe's long pattern.

    :param write: Writes one or more complete lines.
    :param zone: The time zone of the output; by default, the machine's.
    """

    def __init__(self, write: Callable[[str], object], zone: tzinfo | None = None) -> None:
        self._write = write
        self._layout = long_layout(zone)

    def __call__(self, event: LogEvent) -> None:
        """Write ``event``."""
        self._write(self._layout(entry_of(event)))


def to_stream(stream: TextIO) -> Callable[[str], None]:
    """Return a function that writes lines to ``stream``."""

    def write(lines: str) -> None:
        # A stream that its reader has closed must not stop the server.
        with suppress(OSError):
            stream.write(lines)
            stream.flush()

    return write


def console(stream: TextIO, secrets: Callable[[], Collection[str]], zone: tzinfo | None = None) -> ILogObserver:
    """Return an observer that writes the server's log, from level ``info`` up, to ``stream``."""
    return Router([Destination(to_stream(stream), long_layout(zone))], Levels(), secrets)
