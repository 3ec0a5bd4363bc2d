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

from twisted_serve.logs.entries import entry_of, logger_of, redacting
from twisted_serve.logs.events import ACCESS_LOG, MODEL_LOG, MODEL_METRICS, TS_METRICS
from twisted_serve.logs.layouts import Layout, long_layout
from twisted_serve.logs.levels import Levels

# Seconds that a line waits for others: one write for all of them.
GATHERING = 0.05
# Whose lines wait: those that come with each request.  What happens now and then, an audit line say, waits for nothing.
_FREQUENT = frozenset({ACCESS_LOG, MODEL_LOG, TS_METRICS, MODEL_METRICS})
# So many characters wait at most.
MOST_CHARACTERS = 1 << 16

#: Calls a function after so many seconds, once the reactor runs.
CallLater = Callable[[float, Callable[[], None]], object]


class Gathering:
    """
    Takes lines, and writes many of them at once.

    :param write: Writes them.
    :param call_later: ``None`` to write each at once.
    """

    def __init__(self, write: Callable[[str], object], call_later: CallLater | None = None) -> None:
        self._write = write
        self._call_later = call_later
        self._waiting: list[str] = []
        self._size = 0

    def take(self, lines: str) -> None:
        """Take whole lines."""
        if self._call_later is None:
            self._write(lines)
            return
        if not self._waiting:
            self._call_later(GATHERING, self.flush)
        self._waiting.append(lines)
        self._size += len(lines)
        if self._size >= MOST_CHARACTERS:
            self.flush()

    def close(self) -> None:
        """Write what waits, and let nothing wait any more."""
        self._call_later = None
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            waiting, self._waiting, self._size = self._waiting, [], 0
            self._write("".join(waiting))


@frozen
class Destination:
    """
    Where lines go.

    :ivar loggers: Whose lines; ``None`` for everybody's.
    """

    lines: Gathering
    layout: Layout
    loggers: frozenset[str] | None = None


@implementer(ILogObserver)
class Router:
    """
    Writes events to all destinations that want them.

    :param levels: What is not worth writing.
    """

    def __init__(self, destinations: Sequence[Destination], levels: Levels) -> None:
        self._destinations = destinations
        self._levels = levels

    def __call__(self, event: LogEvent) -> None:
        """Write ``event``."""
        logger, level = logger_of(event), event.get("log_level", LogLevel.info)
        if not self._levels.let_through(logger, level):
            return
        entry = entry_of(event)
        laid_out: dict[Layout, str] = {}
        for destination in self._destinations:
            if destination.loggers is None or logger in destination.loggers:
                layout = destination.layout
                if layout not in laid_out:
                    laid_out[layout] = layout(entry)
                destination.lines.take(laid_out[layout])
        if level >= LogLevel.warn or logger not in _FREQUENT:
            self.flush()

    def close(self) -> None:
        """Write everything that waits, and each line at once from now on."""
        for destination in self._destinations:
            destination.lines.close()

    def flush(self) -> None:
        """Write everything that waits."""
        for destination in self._destinations:
            destination.lines.flush()


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
    destination = Destination(Gathering(to_stream(stream)), long_layout(zone))
    return redacting(Router([destination], Levels()), secrets)
