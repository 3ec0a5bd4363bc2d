# SPDX-License-Identifier: Apache-2.0
"""
This module implements what an entry looks like: the predecessor's two patterns (``spec/config_cli.md`` §9), and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone, tzinfo
from typing import TypeAlias

from twisted.logger import LogLevel

from twisted_serve.logs.entries import Entry

#: Makes whole lines of an entry.
Layout: TypeAlias = Callable[[Entry], str]

_LEVELS = {
    LogLevel.debug: "DEBUG",
    LogLevel.info: "INFO ",
    LogLevel.warn: "WARN ",
    LogLevel.error: "ERROR",
    LogLevel.critical: "ERROR",
}


class _Clock:
    """
    Writes moments; those of one second are written once.

    :param zone: What times are shown in; the machine's own when not given.
    """

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self._second = -1
        self._shown = ""

    def show(self, entry: Entry) -> str:
        if entry.seconds != self._second:
            shown = datetime.fromtimestamp(entry.seconds, timezone.utc).astimezone(self._zone)
            self._second, self._shown = entry.seconds, shown.strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._shown},{entry.milliseconds:03}"


def long_layout(zone: tzinfo | None = None) -> Layout:
    """Make the pattern of the console, ``ts_log.log`` and ``model_log.log``; a traceback follows, indented."""
    clock = _Clock(zone)

    def lay_out(entry: Entry) -> str:
        start = f"{clock.show(entry)} [{_LEVELS[entry.level]}] {entry.thread} {entry.logger} - "
        return _joined(start, entry)

    return lay_out


def short_layout(zone: tzinfo | None = None) -> Layout:
    """Make the pattern of the access log and of the metrics' files."""
    clock = _Clock(zone)
    return lambda entry: _joined(f"{clock.show(entry)} - ", entry)


def _joined(start: str, entry: Entry) -> str:
    text = start + f"\n{start}".join(entry.lines) + "\n"
    return text + "".join(f"\t{line}\n" for line in entry.traceback)


def json_layout(entry: Entry) -> str:
    """Write an object for each line, with the time in UTC."""
    moment = datetime.fromtimestamp(entry.seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    common: dict[str, object] = {
        "time": f"{moment}.{entry.milliseconds:03}Z",
        "level": _LEVELS[entry.level].strip(),
        "logger": entry.logger,
        "thread": entry.thread,
    }
    rest = {**({"traceback": "\n".join(entry.traceback)} if entry.traceback else {}), **entry.fields}
    return "".join(
        json.dumps({**common, "message": line, **rest}, ensure_ascii=False, default=str) + "\n" for line in entry.lines
    )
