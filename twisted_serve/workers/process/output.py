# SPDX-License-Identifier: Apache-2.0
"""
Split worker output into lines of bounded length.
"""

from __future__ import annotations

from collections.abc import Iterator

# In bytes. A handler that prints without a newline must not fill the server's memory or the log.
LONGEST_LINE = 16 * 1024

_CUT = " [cut]"


class LineSplitter:
    """
    An incremental splitter of bytes into lines.

    :param longest: How many bytes of a line are kept; the rest is dropped, and the line is marked as cut.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._partial = bytearray()
        self._cut = False

    def receive(self, data: bytes) -> Iterator[str]:
        """Buffer a chunk of output, divided anywhere, and yield the complete lines."""
        *ended, partial = data.split(b"\n")
        for part in ended:
            self._add(part)
            yield self._line()
        self._add(partial)

    def end(self) -> Iterator[str]:
        """Yield the last line if it has no newline."""
        if self._partial or self._cut:
            yield self._line()

    def _add(self, part: bytes) -> None:
        room = self._longest - len(self._partial)
        self._partial += part[:room]
        self._cut = self._cut or len(part) > room

    def _line(self) -> str:
        line = self._partial.decode("utf-8", "replace").rstrip("\r") + (_CUT if self._cut else "")
        self._partial.clear()
        self._cut = False
        return line
