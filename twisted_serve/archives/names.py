# SPDX-License-Identifier: Apache-2.0
"""
Validate the names of models, workflows and versions.

A name becomes a path segment, a metric label and part of log lines. TorchServe accepts any text; this server accepts
text that reads the same in all of these places, so that a registered model can be requested and removed.
"""

from __future__ import annotations

import unicodedata

#: Maximum number of characters of a name or version: ample for real names, short enough for a log line.
MAX_LENGTH = 255

# Characters that separate the parts of a URL, or that some parsers treat as a separator; a proxy may decode a percent
# escape once more.
_SEPARATORS = frozenset("/\\?#%")

# A colon separates in ``/v1/models/m:predict`` and between the labels in metric lines.
_NAME_SEPARATORS = _SEPARATORS | {":"}

# Path segments with a fixed meaning in the place of a version, as in ``/models/m/all``.
_ROUTES = frozenset({"all", "invoke", "predict", "set-default"})


def name_flaw(name: str) -> str | None:
    """Return why ``name`` is not a valid model or workflow name, or None if it is valid."""
    return _problem(name, _NAME_SEPARATORS)


def version_flaw(version: str) -> str | None:
    """Return why ``version`` is not a valid version, or None if it is valid."""
    if version in _ROUTES:
        return f"{version!r} is a part of the management API's paths"
    return _problem(version, _SEPARATORS)


def _problem(text: str, separators: frozenset[str]) -> str | None:
    if not 1 <= len(text) <= MAX_LENGTH:
        return f"it has {len(text)} characters, expected 1 to {MAX_LENGTH}"
    if text in (".", ".."):
        return "clients take it for a direction in a path"
    for character in text:
        # Control, format and private-use characters, lone surrogates, and all blanks except the plain space.
        if not character.isprintable():
            return f"it contains U+{ord(character):04X}, which is not printable"
        if character in separators:
            return f"it contains {character!r}"
    if text.strip() != text:
        return "it begins or ends with a blank"
    if not unicodedata.is_normalized("NFC", text):
        return "it is not in Unicode's normal form C, so that another name looks the same"
    return None
