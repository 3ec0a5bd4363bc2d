# SPDX-License-Identifier: Apache-2.0
"""
Coalesce events of one line, as each request logs them, into events of many lines.

The cost of an event, from the search for keys to the name of its level, is then paid
once for all its lines.  Besides ``lines`` such an event has ``moments`` and ``details``:
the time and the ``fields`` of each line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from threading import RLock

from twisted.logger import LogEvent, LogLevel

from twisted_serve.logs.access_lines import Request, coalesced
from twisted_serve.logs.events import READY

_NO_FIELDS: Mapping[str, object] = {}

# Characters of a request's line besides its method and its target, and a principal that is not very long.
_REST_OF_LINE = 120


class Coalescing:
    """
    A buffer that turns many events and requests into few events with the same lines, in the same order.

    :ivar size: The number of buffered characters, line ends included; of requests an estimate, which is not too low.
    """

    def __init__(self) -> None:
        self._taken: list[tuple[str, str, float, str, Mapping[str, object]]] = []
        # They came after the events that are taken.
        self._requests: list[Request] = []
        self._events: list[LogEvent] = []
        # Also entered from within, by a finalizer that logs.
        self._folding = RLock()
        self.size = 0

    def add(self, logger: str, event: LogEvent) -> None:
        """Buffer an event of this logger, of level ``info``, whose only line is already rendered."""
        if self._requests:
            with self._folding:
                self._fold()
        line = event["line"]
        # `list.append` is atomic: other threads log, too.
        self._taken.append(
            (logger, event.get("thread_name", "main"), event["log_time"], line, event.get("fields", _NO_FIELDS))
        )
        self.size += len(line) + 1

    def add_request(self, request: Request) -> None:
        """Buffer a request, whose line is rendered when the buffer is emptied."""
        self._requests.append(request)
        self.size += len(request[3]) + len(request[4]) + _REST_OF_LINE

    def take(self) -> list[LogEvent]:
        """Return the coalesced events, and empty the buffer."""
        with self._folding:
            # First, so that a line that is added meanwhile is seen to be the first of the next ones.
            self.size = 0
            self._fold()
            events, self._events = self._events, []
        return events

    def _fold(self) -> None:
        """Coalesce what is buffered; meanwhile other threads may add to both lists."""
        taken, requests = self._taken[:], self._requests[:]
        del self._taken[: len(taken)], self._requests[: len(requests)]
        for (logger, thread), said in groupby(taken, itemgetter(0, 1)):
            _loggers, _threads, moments, lines, details = zip(*said, strict=True)
            self._events.append(
                {
                    "log_level": LogLevel.info,
                    "log_format": READY,
                    "logger_name": logger,
                    "thread_name": thread,
                    "line": "\n".join(lines),
                    "moments": moments,
                    "lines": lines,
                    "details": details,
                }
            )
        if requests:
            self._events.append(coalesced(requests))


def one_by_one(event: LogEvent) -> Iterator[LogEvent]:
    """Split a coalesced event into one event for each line."""
    for moment, line, fields in zip(event["moments"], event["lines"], event["details"], strict=True):
        yield {
            "log_level": event["log_level"],
            "log_format": READY,
            "log_time": moment,
            "logger_name": event["logger_name"],
            "thread_name": event["thread_name"],
            "line": line,
            "fields": fields,
        }
