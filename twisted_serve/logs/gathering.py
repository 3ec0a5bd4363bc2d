# SPDX-License-Identifier: Apache-2.0
"""
This module implements the gathering of events of one line, as each request brings them, into events of many lines.

What is to be done for an event, from the search for keys to the name of its
level, is done for all of its lines at once then.  Besides ``lines`` such an event has
``moments`` and ``details``: of each line when it was said, and its ``fields``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter

from twisted.logger import LogEvent, LogLevel

from twisted_serve.logs.events import READY

_NO_FIELDS: Mapping[str, object] = {}


class Gathering:
    """
    Takes events, and gives few that say the same, in the same order.

    :ivar size: How many characters were taken, ends of lines included.
    """

    def __init__(self) -> None:
        self._taken: list[tuple[str, str, float, str, Mapping[str, object]]] = []
        self.size = 0

    def add(self, logger: str, event: LogEvent) -> None:
        """Take an event of this logger, of information, whose one line is ready."""
        line = event["line"]
        # One step, whichever thread it is done in.
        self._taken.append(
            (logger, event.get("thread_name", "main"), event["log_time"], line, event.get("fields", _NO_FIELDS))
        )
        self.size += len(line) + 1

    def take(self) -> list[LogEvent]:
        """Give what was taken."""
        taken, self._taken, self.size = self._taken, [], 0
        events = []
        for (logger, thread), said in groupby(taken, itemgetter(0, 1)):
            _loggers, _threads, moments, lines, details = zip(*said, strict=True)
            events.append(
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
        return events


def one_by_one(event: LogEvent) -> Iterator[LogEvent]:
    """Undo the gathering: give an event for each line."""
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
