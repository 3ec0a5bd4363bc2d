# SPDX-License-Identifier: Apache-2.0
"""
Read JSON as leniently as TorchServe does in ``models`` and ``model_snapshot`` (Gson's lenient mode).

Beyond JSON, this accepts names and strings in single quotes or without quotes, comments (``//``, ``/* */``, ``#``),
``=`` or ``=>`` instead of ``:``, and ``;`` instead of ``,``.  A comma before a closing bracket is accepted, too; there
Gson is stricter for objects, and reads an additional empty element in arrays.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SKIPPED = re.compile(r"(?:[\s\ufeff]|//[^\n\r]*|#[^\n\r]*|/\*.*?\*/)*", re.S)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"' r"|'(?:[^'\\]|\\.)*'", re.S)
_BARE = re.compile(r"[^\s/\\;#={}\[\]:,'\"]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
# Adjacent code units are one match, because a surrogate pair is one character.
_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\(.)", re.S)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", **{each: each for each in "\"'\\/\n"}}
_WORDS = {"true": True, "false": False, "null": None}

# Deeper than any setting, and far below Python's recursion limit.
_MOST_DEPTH = 100


def read_lenient_json(text: str) -> Any:
    """
    Parse a JSON document, strict or lenient; the last value of a repeated name is used.

    :raise ValueError: for anything else, with the line and column.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as strict:
        try:
            return _Reader(text).document()
        except _LenientError as e:
            # Report the error of the strict parser, unless the lenient parser got further.
            if isinstance(strict, json.JSONDecodeError) and strict.pos >= e.pos:
                raise strict from None
            raise


class _LenientError(json.JSONDecodeError):
    """A document that not even Gson accepts."""


class _Reader:
    """
    A parser of one document.

    :ivar at: The position of the next character.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def document(self) -> Any:
        value = self._value(0)
        if self._next():
            raise self._error("Extra data")
        return value

    def _value(self, depth: int) -> Any:
        if depth > _MOST_DEPTH:
            raise self._error("Too deep")
        character = self._next()
        if character in ("{", "["):
            self.at += 1
            return self._object(depth) if character == "{" else self._array(depth)
        return self._literal()

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._take("}"):
            name = self._text_at()
            if not (self._take(":") or self._take("=")):
                raise self._error("Expecting ':' or '='")
            if self._text.startswith(">", self.at):
                self.at += 1
            found[name] = self._value(depth + 1)
            self._separator("}")
        return found

    def _array(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while not self._take("]"):
            found.append(self._value(depth + 1))
            self._separator("]")
        return found

    def _separator(self, end: str) -> None:
        if not (self._take(",") or self._take(";")) and self._next() != end:
            raise self._error(f"Expecting ',' or '{end}'")

    def _literal(self) -> Any:
        quoted = self._next() in ("'", '"')
        text = self._text_at()
        if quoted:
            return text
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        return json.loads(text) if _NUMBER.fullmatch(text) else text

    def _text_at(self) -> str:
        """Parse a name or a string, quoted or not."""
        if self._next() in ("'", '"'):
            match = _QUOTED.match(self._text, self.at)
            if match is None:
                raise self._error("Unterminated string")
            text = _ESCAPE.sub(self._unescaped, match[0][1:-1])
        else:
            match = _BARE.match(self._text, self.at)
            if match is None:
                raise self._error("Expecting a value")
            text = match[0]
        self.at = match.end()
        return text

    def _unescaped(self, match: re.Match[str]) -> str:
        if match[1] is None:
            return str(json.loads(f'"{match[0]}"'))
        if match[1] in _ESCAPED:
            return _ESCAPED[match[1]]
        raise self._error("Invalid \\escape")

    def _next(self) -> str:
        """Skip blanks and comments, and return the next character; empty at the end."""
        match = _SKIPPED.match(self._text, self.at)
        if match is not None:
            self.at = match.end()
        return self._text[self.at : self.at + 1]

    def _take(self, character: str) -> bool:
        if self._next() != character:
            return False
        self.at += 1
        return True

    def _error(self, problem: str) -> _LenientError:
        return _LenientError(problem, self._text, self.at)
