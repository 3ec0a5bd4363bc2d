# SPDX-License-Identifier: Apache-2.0
"""
Decide what a model, a workflow or a version may be called.

A name becomes a segment of a path, a label of metrics and a part of log lines. TorchServe takes any text; here it is
any text with one reading in all of these places, so that what is registered can be asked for, and removed.
"""

from __future__ import annotations

import unicodedata

#: Characters of a name or version: enough for all that is in use, and little enough for a log line.
MAX_LENGTH = 255

# What separates the parts of a URL, or has been a separator for some reader of it: a percent sign begins an escape that
# a proxy may decode once more.
_SEPARATORS = frozenset("/\\?#%")

# ``/v1/models/m:predict``, and the labels in the lines of metrics.
_NAME_SEPARATORS = _SEPARATORS | {":"}

# Segments that mean something else than a version where a path has one: ``/models/m/all`` and so on.
_ROUTES = frozenset({"all", "invoke", "predict", "set-default"})


def name_flaw(name: str) -> str | None:
    """Return why a model or workflow cannot be called ``name``, or None if it can."""
    return _flaw(name, _NAME_SEPARATORS)


def version_flaw(version: str) -> str | None:
    """Return why a version cannot be called ``version``, or None if it can."""
    if version in _ROUTES:
        return f"{version!r} is a part of the management API's paths"
    return _flaw(version, _SEPARATORS)


def _flaw(text: str, separators: frozenset[str]) -> str | None:
    if not 1 <= len(text) <= MAX_LENGTH:
        return f"it has {len(text)} characters, expected 1 to {MAX_LENGTH}"
    if text in (".", ".."):
        return "clients take it for a direction in a path"
    for character in text:
        # Control, format and private characters, halves of surrogate pairs, and all blanks but the plain one.
        if not character.isprintable():
            return f"it contains U+{ord(character):04X}, which is not printable"
        if character in separators:
            return f"it contains {character!r}"
    if text.strip() != text:
        return "it begins or ends with a blank"
    if not unicodedata.is_normalized("NFC", text):
        return "it is not in Unicode's normal form C, so that another name looks the same"
    return None
