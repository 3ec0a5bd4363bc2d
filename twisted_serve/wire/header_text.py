# SPDX-License-Identifier: Apache-2.0
"""
Convert header values to latin-1, the only encoding of HTTP headers.

A file name is preserved by RFC 8187; every other character outside latin-1 becomes a question mark, as in TorchServe.
"""

from __future__ import annotations

import re
from urllib.parse import quote

#: Characters that are not allowed in a field value or reason phrase (RFC 9110 §5.5) and would terminate it.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# RFC 8187 §3.2.1: characters that an extended value does not escape, besides letters and digits.
_UNESCAPED = "!#$&+-.^_`|~"

_FILENAME = re.compile(r'(?i)\bfilename[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]*)')
_EXTENDED = re.compile(r'(?i)\b(filename\*)[ \t]*=[ \t]*("[^"]*"|[^;"]*)')
_PREFIX = re.compile(r"(?i)utf-8'[a-z0-9-]*'")


def sendable(name: str, value: str) -> str:
    """
    Return the value of a header with all its characters in latin-1.

    :param name: The header; in ``Content-Disposition`` a file name is repeated in its extended form (RFC 6266 §5).
    """
    if is_latin1(value):
        return value
    value = _EXTENDED.sub(_extend, value)
    if name.lower() == "content-disposition" and _EXTENDED.search(value) is None:
        given = _FILENAME.search(value)
        if given is not None and not is_latin1(given[1]):
            value = f"{value}; filename*={_extended(given[1])}"
    return latin(value)


def is_latin1(text: str) -> bool:
    """Return whether all characters of a text are in latin-1."""
    return text.isascii() or all(character <= "\xff" for character in text)


def latin(text: str) -> str:
    """Replace characters outside latin-1 with question marks."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _extend(found: re.Match[str]) -> str:
    return found[0] if is_latin1(found[2]) else f"{found[1]}={_extended(found[2])}"


def _extended(text: str) -> str:
    """Encode a parameter's value, quoted or not, as an extended value."""
    text = text.strip(" \t")
    if text.startswith('"'):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    escaped = quote(_PREFIX.sub("", text, count=1).encode("utf-8", "replace"), safe=_UNESCAPED)
    return f"UTF-8''{escaped}"
