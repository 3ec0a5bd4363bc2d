# SPDX-License-Identifier: Apache-2.0
"""
Coalesce events of one line, as each request logs them, and requests into events of many lines.

The cost of an event, from the search for keys to the name of its level, is then paid
once for all its lines.  Besides ``lines`` such an event has ``moments`` and ``details``:
the time and the ``fields`` of each line; and ``positions`` among the lines of all
events that were coalesced with it, if it is not the only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import RLock
from typing import Any, TypeAlias, cast

from twisted.logger import LogEvent, LogLevel

from twisted_serve.logs.access_lines import Request, coalesced
from twisted_serve.logs.events import READY

_NO_FIELDS: Mapping[str, object] = {}

# Characters of a request's line besides its method and its target, and a principal that is not very long.
_REST_OF_LINE = 120


# Logger, thread, time, line, fields.
_Line: TypeAlias = tuple[str, str, float, str, Mapping[str, object]]

# How many values a request is.
_OF_REQUEST = 11


class Positions(list[int]):
    """The places of the lines of an event among all lines."""


class Coalescing:
    """
    A buffer that turns many events and requests into few events with the same lines.

    :ivar size: The number of buffered characters, line ends included; of requests an estimate, which is not too low.
    """

    def __init__(self) -> None:
        self._taken: list[_Line | Request] = []
        # Also entered from within, by a finalizer that logs.
        self._taking = RLock()
        self.size = 0

    def add(self, logger: str, event: LogEvent) -> None:
        """Buffer an event of this logger, of level ``info``, whose only line is already rendered."""
        line = event["line"]
        # `list.append` is atomic: other threads log, too.
        self._taken.append(
            (logger, event.get("thread_name", "main"), event["log_time"], line, event.get("fields", _NO_FIELDS))
        )
        self.size += len(line) + 1

    def add_request(self, request: Request) -> None:
        """Buffer a request, whose line is rendered when the buffer is emptied."""
        self._taken.append(request)
        self.size += len(request[3]) + len(request[4]) + _REST_OF_LINE

    def take(self) -> list[LogEvent]:
        """Return the coalesced events, one for each logger and thread, and empty the buffer."""
        with self._taking:
            # First, so that a line that is added meanwhile is seen to be the first of the next ones.
            self.size = 0
            taken = self._taken[:]
            del self._taken[: len(taken)]
        if not taken:
            return []
        if set(map(len, taken)) == {_OF_REQUEST}:
            return [coalesced(cast("list[Request]", taken))]
        groups: dict[object, Positions] = {}
        for position, one in enumerate(taken):
            group: object = None if len(one) == _OF_REQUEST else one[:2]
            positions = groups.get(group)
            if positions is None:
                groups[group] = Positions([position])
            else:
                positions.append(position)
        events = []
        for key, positions in groups.items():
            said: list[Any] = [taken[position] for position in positions]
            event = coalesced(said) if key is None else _coalesced_lines(said)
            events.append(event if len(groups) == 1 else {**event, "positions": positions})
        return events


def _coalesced_lines(said: Sequence[_Line]) -> LogEvent:
    loggers, threads, moments, lines, details = zip(*said, strict=True)
    return {
        "log_level": LogLevel.info,
        "log_format": READY,
        "logger_name": loggers[0],
        "thread_name": threads[0],
        "line": "\n".join(lines),
        "moments": moments,
        "lines": lines,
        "details": details,
    }


def one_by_one(event: LogEvent) -> Iterator[LogEvent]:
    """Split a coalesced event into one event for each line."""
    positions = event.get("positions", range(len(event["lines"])))
    said = zip(event["moments"], event["lines"], event["details"], positions, strict=True)
    for moment, line, fields, position in said:
        yield {
            "log_level": event["log_level"],
            "log_format": READY,
            "log_time": moment,
            "logger_name": event["logger_name"],
            "thread_name": event["thread_name"],
            "line": line,
            "fields": fields,
            "positions": Positions([position]),
        }
