# SPDX-License-Identifier: Apache-2.0
"""
Render a log record: TorchServe's two patterns (``docs/torchserve/config_cli.md`` §9), and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone, tzinfo
from itertools import repeat
from json.encoder import encode_basestring
from math import isfinite
from typing import TypeAlias, TypeVar

from twisted.logger import LogLevel

from twisted_serve.logs.records import Record

#: Renders a record as complete lines.
Layout: TypeAlias = Callable[[Record], str]

_T = TypeVar("_T")

_LEVELS = {
    LogLevel.debug: "DEBUG",
    LogLevel.info: "INFO ",
    LogLevel.warn: "WARN ",
    LogLevel.error: "ERROR",
    LogLevel.critical: "ERROR",
}

# `json.dumps` would create an encoder for each line.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


class _Clock:
    """
    Format times; the text of the current second is cached.

    :param zone: The time zone of the output; by default, the machine's.
    :param end: What the milliseconds, of three digits, stand in.
    """

    def __init__(self, zone: tzinfo | None, end: str = ",{}") -> None:
        self._zone = zone
        self._ends = tuple(end.format(f"{milliseconds:03}") for milliseconds in range(1000))
        # Each in one attribute, because other threads log, too.
        self._second = -1, ""
        self._last: tuple[Sequence[int], Sequence[str]] = (), ()

    def show(self, moment: int) -> str:
        """Format a time, given in milliseconds since the epoch."""
        second, milliseconds = divmod(moment, 1000)
        return self._text_of(second) + self._ends[milliseconds]

    def show_all(self, moments: Sequence[int]) -> Sequence[str]:
        """Format many times; those last formatted are not formatted again for the next layout."""
        last, texts = self._last
        if moments is not last:
            texts, second, shown, ends = [], None, "", self._ends
            for moment in moments:
                if moment // 1000 != second:
                    second = moment // 1000
                    shown = self._text_of(second)
                texts.append(shown + ends[moment % 1000])
            self._last = moments, texts
        return texts

    def _text_of(self, second: int) -> str:
        known, shown = self._second
        if second != known:
            date = datetime.fromtimestamp(second, timezone.utc).astimezone(self._zone)
            shown = date.strftime("%Y-%m-%dT%H:%M:%S")
            self._second = second, shown
        return shown


def text_layouts(zone: tzinfo | None = None) -> tuple[Layout, Layout]:
    """
    Return TorchServe's two layouts.

    :return: That of the console, ``ts_log.log`` and ``model_log.log``; that of the access log and the metrics files.
    """
    clock = _Clock(zone)
    return (
        lambda entry: _render(clock, f" [{_LEVELS[entry.level]}] {entry.thread} {entry.logger} - ", entry),
        lambda entry: _render(clock, " - ", entry),
    )


def long_layout(zone: tzinfo | None = None) -> Layout:
    """Return the layout of the console, ``ts_log.log`` and ``model_log.log``; a traceback follows, indented."""
    return text_layouts(zone)[0]


def short_layout(zone: tzinfo | None = None) -> Layout:
    """Return the layout of the access log and the metrics files."""
    return text_layouts(zone)[1]


def _render(clock: _Clock, middle: str, entry: Record) -> str:
    if len(entry.moments) == 1:
        start = clock.show(entry.moments[0]) + middle
        text = start + f"\n{start}".join(entry.lines) + "\n"
    else:
        said = zip(clock.show_all(entry.moments), entry.lines, strict=True)
        text = "".join([f"{moment}{middle}{line}\n" for moment, line in said])
    return text + "".join(f"\t{line}\n" for line in entry.traceback)


_utc = _Clock(timezone.utc, ".{}Z")


# The members of every JSON object.
_OURS = frozenset({"time", "level", "logger", "thread", "message"})


def json_layout(entry: Record) -> str:
    """Render a JSON object for each line, with the time in UTC; the members that lines share are encoded once."""
    common = {"level": _LEVELS[entry.level].strip(), "logger": entry.logger, "thread": entry.thread}
    middle = _encode(common)[1:-1]
    traceback = {"traceback": "\n".join(entry.traceback)} if entry.traceback else {}
    objects = []
    times = _utc.show_all(entry.moments)
    for line, time, fields in zip(entry.lines, _repeated(times), _repeated(entry.details), strict=False):
        rest = {**traceback, **fields} if traceback else fields
        if _OURS.isdisjoint(rest):
            end = "".join([f", {encode_basestring(name)}: {_value(value)}" for name, value in rest.items()])
            objects.append(f'{{"time": "{time}", {middle}, "message": {encode_basestring(line)}{end}}}\n')
        else:
            objects.append(_encode({"time": time, **common, "message": line, **rest}) + "\n")
    return "".join(objects)


def _value(value: object) -> str:
    """Encode a value as the encoder does, which takes ten times as long for the usual ones."""
    if type(value) is str:
        return encode_basestring(value)
    if type(value) is int or (type(value) is float and isfinite(value)):
        return repr(value)
    return _encode(value)


def _repeated(said: Sequence[_T]) -> Iterable[_T]:
    """Return the values of each line, or repeat the one value that all lines share."""
    return said if len(said) > 1 else repeat(said[0])
