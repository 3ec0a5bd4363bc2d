# SPDX-License-Identifier: Apache-2.0
"""
Render the heads of responses: sans-IO, for the server and for its fronts.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from time import time
from typing import Final

# In every response (``docs/torchserve/rest_api.md`` §2.4); the single semicolon is TorchServe's.
NO_CACHE: Final = (
    (b"Pragma", b"no-cache"),
    (b"Cache-Control", b"no-cache; no-store, must-revalidate, private"),
    (b"Expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
)

_HEAD: Final = b"".join(
    (
        b"%s %s %s\r\nDate: %s\r\nX-Request-Id: %s\r\n",
        *(b"%s: %s\r\n" % header for header in NO_CACHE),
        b"%s\r\n",
    )
)
_WHOLE: Final = _HEAD % (b"HTTP/1.1", b"200", b"OK", b"%s", b"%s", b"%sContent-Length: %d\r\n")


class HttpDate:
    """
    The value of the ``Date`` header, rendered once per second.

    :param seconds: Returns the seconds of a steady clock.
    :param now: Returns the seconds since the epoch.
    """

    def __init__(self, seconds: Callable[[], float], now: Callable[[], float] = time) -> None:
        self._seconds = seconds
        self._now = now
        self._second = -1
        self._text = b""

    def __call__(self) -> bytes:
        """Return the value."""
        second = int(self._seconds())
        if second != self._second:
            self._second, self._text = second, formatdate(self._now(), usegmt=True).encode("ascii")
        return self._text


def head_of(version: bytes, code: bytes, reason: bytes, date: bytes, answer_id: str, lines: bytes) -> bytes:
    """
    Return the head of a response, which includes the headers of every response (``docs/torchserve/rest_api.md`` §2.4).

    :param lines: The other headers, each with its line end.
    """
    return _HEAD % (version, code, reason, date, answer_id.encode("ascii"), lines)


def whole_head(date: bytes, answer_id: str, lines: bytes, length: int) -> bytes:
    """Return the head of a complete response with status 200 and a body of ``length`` bytes; see `head_of`."""
    return _WHOLE % (date, answer_id.encode("ascii"), lines, length)
