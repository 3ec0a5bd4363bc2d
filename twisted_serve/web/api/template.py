# SPDX-License-Identifier: Apache-2.0
"""
Match the segments of paths with templates such as ``/models/{model_name}/invoke``.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

_PARAMETER: Final = re.compile(r"\{(\w+)\}(.*)")

#: The parameter that takes the rest of a path, one segment or more; all others take one segment.
REST: Final = "url_path"


@frozen
class Piece:
    """
    One segment of a template.

    :ivar parameter: The name of its parameter; ``None`` for a literal segment.
    :ivar text: The literal segment, or the text that follows the parameter within the segment (``:predict``).
    """

    parameter: str | None
    text: str

    @property
    def rank(self) -> int:
        """The order in which pieces are tried: what matches fewer segments comes first."""
        if self.parameter is None:
            return 0
        return 1 if self.text else 3 if self.parameter == REST else 2

    def matches(self, segment: str) -> bool:
        """Return whether a segment matches; a parameter may be empty, as on the way to an unknown path."""
        return segment == self.text if self.parameter is None else segment.endswith(self.text)


def parse_template(path: str) -> tuple[Piece, ...]:
    """Parse a template into its segments, none for the root."""
    pieces = []
    for segment in path.split("/")[1:]:
        parameter = _PARAMETER.fullmatch(segment)
        pieces.append(Piece(*parameter.groups()) if parameter else Piece(None, segment))
    return tuple(pieces) if path != "/" else ()
