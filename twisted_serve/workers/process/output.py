# SPDX-License-Identifier: Apache-2.0
"""
This module implements the cutting of a worker's output into lines, of which none is longer than a log line should be.
"""

from __future__ import annotations

from collections.abc import Iterator

# A handler that prints and never ends the line must not fill our memory, nor the log.
LONGEST_LINE = 16 * 1024

_CUT = " [cut]"


class LineSplitter:
    """
    Bytes in, lines out.

    :param longest: How many bytes of a line are kept; the rest of it is dropped, and the line says so.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._begun = bytearray()
        self._cut = False

    def receive(self, data: bytes) -> Iterator[str]:
        """Take output as it came, however it was divided, and yield the lines that have ended."""
        *ended, begun = data.split(b"\n")
        for part in ended:
            self._add(part)
            yield self._line()
        self._add(begun)

    def end(self) -> Iterator[str]:
        """Yield what there is of a last line that nobody ended."""
        if self._begun or self._cut:
            yield self._line()

    def _add(self, part: bytes) -> None:
        room = self._longest - len(self._begun)
        self._begun += part[:room]
        self._cut = self._cut or len(part) > room

    def _line(self) -> str:
        line = self._begun.decode("utf-8", "replace").rstrip("\r") + (_CUT if self._cut else "")
        self._begun.clear()
        self._cut = False
        return line
