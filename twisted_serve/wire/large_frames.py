# SPDX-License-Identifier: Apache-2.0
"""
Receive the payload of a large frame in place, in a buffer that is used again.
"""

from __future__ import annotations

from collections.abc import Callable

# In bytes. The buffer has at least this size, and grows as data arrives to at most twice what has arrived: an announced
# length takes no memory. A longer one is not kept for the next frame.
_FIRST = 1 << 20
_KEPT = 1 << 22


class LargePayload:
    """
    A payload that has come in part.

    :ivar size: The length of the payload; 0 if none is being received.
    """

    def __init__(self) -> None:
        self.size = 0
        self._filled = 0
        self._buffer = bytearray()

    @property
    def is_complete(self) -> bool:
        """Whether a payload is being received, and has come."""
        return 0 < self.size == self._filled

    @property
    def missing(self) -> int:
        """The number of bytes that have not come."""
        return self.size - self._filled

    def begin(self, size: int, first: bytes | bytearray | memoryview) -> None:
        """Begin to receive a payload of ``size`` bytes, of which the first have come."""
        self.size, self._filled = size, 0
        self.add(first)

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Add data to the payload."""
        end = self._filled + len(data)
        self._grow(end)
        self._buffer[self._filled : end] = data
        self._filled = end

    def receive(self, read: Callable[[memoryview], int]) -> int:
        """
        Have more of the payload read into the buffer.

        :param read: Writes to the buffer that it is given, and returns the number of bytes.
        """
        self._grow(self._filled + 1)
        with memoryview(self._buffer) as whole, whole[self._filled : self.size] as room:
            count = read(room)
        self._filled += count
        return count

    def payload(self) -> memoryview:
        """Return the complete payload, to be released before `end`."""
        return memoryview(self._buffer)[: self.size]

    def end(self) -> None:
        """Forget the payload."""
        self.size = self._filled = 0
        if len(self._buffer) > _KEPT:
            self._buffer = bytearray()

    def _grow(self, needed: int) -> None:
        """Make room for at least ``needed`` bytes."""
        have = len(self._buffer)
        if have < needed:
            wanted = max(needed, min(self.size, max(_FIRST, 2 * self._filled)))
            self._buffer += bytes(wanted - have)
