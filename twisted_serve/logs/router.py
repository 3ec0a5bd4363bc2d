# SPDX-License-Identifier: Apache-2.0
"""
This module implements the ways of the log: what is worth writing, where it goes, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import tzinfo
from typing import TextIO

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from twisted_serve.logs.entries import entry_of, logger_of, without_keys
from twisted_serve.logs.events import ACCESS_LOG, MODEL_LOG, READY
from twisted_serve.logs.gathering import Gathering
from twisted_serve.logs.layouts import Layout, long_layout
from twisted_serve.logs.levels import Levels

# Seconds that a line waits for others: one write for all of them.
GATHERING = 0.05
# Whose lines wait: those that come with each request.  What happens now and then, an audit line say, waits for nothing,
# nor do lines of metrics, which have waited for each other before they came here.
_FREQUENT = frozenset({ACCESS_LOG, MODEL_LOG})
# So many characters wait at most.
MOST_CHARACTERS = 1 << 16

#: Calls a function after so many seconds, once the reactor runs.
CallLater = Callable[[float, Callable[[], None]], object]


@frozen
class Destination:
    """
    Where lines go.

    :ivar write: Takes whole lines.
    :ivar loggers: Whose lines; ``None`` for everybody's.
    """

    write: Callable[[str], object]
    layout: Layout
    loggers: frozenset[str] | None = None


@implementer(ILogObserver)
class Router:
    """
    Writes events to all destinations that want them, in the order in which they come; keys it leaves out.

    What is to be done for each line is done for many at once, and so are the writes.

    :param levels: What is not worth writing.
    :param secrets: Asked for the keys of the moment, whenever something is to be written.
    :param call_later: ``None`` to write each event at once.
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
        self._waiting = Gathering()

    def __call__(self, event: LogEvent) -> None:
        """Write ``event``, soon if it is one of many, else now."""
        logger, level = logger_of(event), event.get("log_level", LogLevel.info)
        if not self._levels.let_through(logger, level):
            return
        frequent = logger in _FREQUENT and level is LogLevel.info and event.get("log_format") == READY
        if self._call_later is None or not frequent or "lines" in event:
            self.flush()
            self._write([event])
            return
        if not self._waiting.size:
            self._call_later(GATHERING, self.flush)
        self._waiting.add(logger, event)
        if self._waiting.size >= MOST_CHARACTERS:
            self.flush()

    def close(self) -> None:
        """Write everything that waits, and each event at once from now on."""
        self._call_later = None
        self.flush()

    def flush(self) -> None:
        """Write everything that waits."""
        waiting = self._waiting.take()
        if waiting:
            self._write(waiting)

    def _write(self, events: Sequence[LogEvent]) -> None:
        lines: list[list[str]] = [[] for _ in self._destinations]
        for event in without_keys(events, self._secrets()):
            logger, entry = logger_of(event), entry_of(event)
            laid_out: dict[Layout, str] = {}
            for place, destination in zip(lines, self._destinations, strict=True):
                if destination.loggers is None or logger in destination.loggers:
                    layout = destination.layout
                    if layout not in laid_out:
                        laid_out[layout] = layout(entry)
                    place.append(laid_out[layout])
        for place, destination in zip(lines, self._destinations, strict=True):
            if place:
                destination.write("".join(place))


@implementer(ILogObserver)
class LineObserver:
    """
    Writes each event, of any level, in the predecessor's pattern.

    :param write: Takes one or more whole lines.
    :param zone: What times are shown in; the machine's own when not given.
    """

    def __init__(self, write: Callable[[str], object], zone: tzinfo | None = None) -> None:
        self._write = write
        self._layout = long_layout(zone)

    def __call__(self, event: LogEvent) -> None:
        """Write ``event``."""
        self._write(self._layout(entry_of(event)))


def to_stream(stream: TextIO) -> Callable[[str], None]:
    """Make what writes lines to ``stream``."""

    def write(lines: str) -> None:
        # Nobody reading any more is no reason to stop serving.
        with suppress(OSError):
            stream.write(lines)
            stream.flush()

    return write


def console(stream: TextIO, secrets: Callable[[], Collection[str]], zone: tzinfo | None = None) -> ILogObserver:
    """Make the observer which writes the server's log, information and worse, to ``stream``."""
    return Router([Destination(to_stream(stream), long_layout(zone))], Levels(), secrets)
