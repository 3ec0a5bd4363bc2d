# SPDX-License-Identifier: Apache-2.0
"""
Parse large JSON texts piece by piece, and scan long lists likewise.

A call into C code blocks all other threads until it returns.  `json.loads` takes hundreds of milliseconds for a few
megabytes, and would block the reactor for that long even from another thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from json import JSONDecodeError
from typing import Any

#: In bytes. A shorter text is parsed in a few milliseconds, a longer one in pieces, and in a thread.
MOST_AT_ONCE = 1 << 17

#: Maximum number of lists and objects: the garbage collector traverses all of them in one call (41 ms), and another
#: frees them (33 ms).
MAX_CONTAINERS = 1 << 18

#: Maximum number of objects among them: in a request each is an input.
MAX_OBJECTS = 1 << 16

# Number of values scanned per call.
_SLICE = 1 << 14

# Numbers, constants, short strings, and short lists of these, each with its comma: the bulk of a large request.  All
# repetitions are bounded, and no alternative can continue another, so backtracking is limited.
_SPACE = r"[ \t\n\r]{0,16}"
_VALUE = r'(?:[-+.0-9eE]{1,40}|"[^"\\\x00-\x1f]{0,60}"|true|false|null)'
_ROW = rf"\[{_SPACE}{_VALUE}{_SPACE}(?:,{_SPACE}{_VALUE}{_SPACE}){{0,31}}\]"
_RUN = re.compile(rf"(?:{_SPACE}(?:{_VALUE}|{_ROW}){_SPACE},){{1,2048}}")

_BLANK = re.compile(r"[ \t\n\r]*")

_SCALAR = json.JSONDecoder()


def read_json(text: bytes) -> Any:
    """
    Parse a text like `json.loads`.

    :raise ValueError: if it is not valid JSON, or is large and has more than `MAX_CONTAINERS` lists and objects, or
        more than `MAX_OBJECTS` objects.
    :raise RecursionError: if it is nested too deeply.
    """
    if len(text) <= MOST_AT_ONCE:
        return json.loads(text)
    return _Reader(text.decode(json.detect_encoding(text), "surrogatepass")).read()


def slices(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Split a long list into slices, each small enough to process in one call."""
    return (values[start : start + _SLICE] for start in range(0, len(values), _SLICE))


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._containers = 0
        self._objects = 0

    def read(self) -> Any:
        value, at = self._value(self._skip_blanks(0))
        at = self._skip_blanks(at)
        if at != len(self._text):
            raise self._error("Extra data", at)
        return value

    def _error(self, what: str, at: int) -> JSONDecodeError:
        return JSONDecodeError(what, self._text, at)

    def _count(self, containers: int, at: int) -> None:
        """
        Count lists and objects.

        :raise JSONDecodeError: if there are too many.
        """
        self._containers += containers
        if self._containers > MAX_CONTAINERS:
            raise self._error(f"There are more than {MAX_CONTAINERS} lists and objects", at)
        if self._objects > MAX_OBJECTS:
            raise self._error(f"There are more than {MAX_OBJECTS} objects", at)

    def _skip_blanks(self, at: int) -> int:
        found = _BLANK.match(self._text, at)
        return at if found is None else found.end()

    def _value(self, at: int) -> tuple[Any, int]:
        """Parse the value at an index; return it and the index after it."""
        begin = self._text[at : at + 1]
        if begin not in ("[", "{"):
            return _SCALAR.raw_decode(self._text, at)
        self._objects += begin == "{"
        self._count(1, at)
        at = self._skip_blanks(at + 1)
        return self._list(at) if begin == "[" else self._object(at)

    def _list(self, at: int) -> tuple[list[Any], int]:
        text, in_runs = self._text, True
        values: list[Any] = []
        if text.startswith("]", at):
            return values, at + 1
        while True:
            if in_runs and (run := _RUN.match(text, at)) is not None:
                try:
                    found = json.loads(f"[{text[at : run.end() - 1]}]")
                except ValueError:
                    # Parse value by value from here, to report the position of the error.
                    in_runs = False
                else:
                    self._count(sum(type(each) is list for each in found), at)
                    values += found
                    at = self._skip_blanks(run.end())
                    continue
            value, at = self._value(at)
            values.append(value)
            at = self._skip_blanks(at)
            if text.startswith("]", at):
                return values, at + 1
            if not text.startswith(",", at):
                raise self._error("Expecting ',' delimiter", at)
            at = self._skip_blanks(at + 1)

    def _object(self, at: int) -> tuple[dict[str, Any], int]:
        text = self._text
        members: dict[str, Any] = {}
        if text.startswith("}", at):
            return members, at + 1
        while True:
            if not text.startswith('"', at):
                raise self._error("Expecting property name enclosed in double quotes", at)
            name, at = _SCALAR.raw_decode(text, at)
            at = self._skip_blanks(at)
            if not text.startswith(":", at):
                raise self._error("Expecting ':' delimiter", at)
            members[name], at = self._value(self._skip_blanks(at + 1))
            at = self._skip_blanks(at)
            if text.startswith("}", at):
                return members, at + 1
            if not text.startswith(",", at):
                raise self._error("Expecting ',' delimiter", at)
            at = self._skip_blanks(at + 1)
