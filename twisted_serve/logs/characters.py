# SPDX-License-Identifier: Apache-2.0
"""
Escape characters that could forge a line.
"""

from __future__ import annotations

import re

# Control characters except TAB, Unicode's line separators, directional formatting characters, lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape all characters that could end a line, forge one, or control a terminal."""
    # `str.isprintable` is faster than the search, and False for each of these characters.
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
