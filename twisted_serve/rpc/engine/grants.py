# SPDX-License-Identifier: Apache-2.0
"""
Bound what all calls of a connection may be sending at a time beyond their first windows.
"""

from __future__ import annotations

from typing import Protocol


class Receiver(Protocol):
    """A call that receives a large message."""

    def granted(self) -> None:
        """Learn that the message may be sent now."""


class Grants:
    """
    The large messages of a connection that may be sent now; others wait in order.

    One message at least may be sent, whatever its size.

    :param most: Bytes of the messages together.
    """

    __slots__ = ("_held", "_most", "_used", "_waiting")

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._held: dict[Receiver, int] = {}
        self._waiting: dict[Receiver, int] = {}

    def take(self, call: Receiver, size: int) -> bool:
        """Return whether a call may send the rest of its message; it is told later if not."""
        if call in self._held:
            return True
        if self._held and (self._waiting or self._used + size > self._most):
            self._waiting.setdefault(call, size)
            return False
        self._hold(call, size)
        return True

    def give_back(self, call: Receiver) -> None:
        """Note that the message of a call is complete, or the call is over."""
        if not self._held:
            return
        self._waiting.pop(call, None)
        if call not in self._held:
            return
        self._used -= self._held.pop(call)
        while self._waiting:
            following, size = next(iter(self._waiting.items()))
            if self._held and self._used + size > self._most:
                return
            del self._waiting[following]
            self._hold(following, size)
            following.granted()

    def _hold(self, call: Receiver, size: int) -> None:
        self._held[call] = size
        self._used += size
