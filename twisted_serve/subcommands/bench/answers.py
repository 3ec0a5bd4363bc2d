# SPDX-License-Identifier: Apache-2.0
"""
Find the answers in what an HTTP/1.1 connection receives: their status and their end, not their content.
"""

from __future__ import annotations

from attrs import frozen

# Bytes of a head, or of a line with the size of a chunk.
_MAX_LINE = 1 << 16

# The largest body that is counted; more is a mistake of the server.
_MAX_SIZE = 1 << 50

_NO_BODY = frozenset((204, 304))


class BadAnswerError(Exception):
    """The server sends what is no answer in HTTP/1.1."""


@frozen
class Ended:
    """
    A whole answer.

    :ivar keeps: Whether the connection takes another request.
    """

    status: int
    keeps: bool


class Answers:
    """
    The answers on one connection, in order.

    Bodies are skipped as they come: nothing but a head or a line is buffered.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._head: Ended | None = None
        # Bytes of the body, or of a chunk with its line end, that are still to come; None: up to the end.
        self._left: int | None = 0
        self._chunked = False
        self._in_trailer = False

    @property
    def begun(self) -> bool:
        """Whether a part of an answer has come."""
        return self._head is not None or bool(self._buffer)

    def feed(self, data: bytes) -> list[Ended]:
        """
        Take what was received, and return the answers that are whole now.

        :raise BadAnswerError: for anything but HTTP/1.1.
        """
        data, self._buffer = self._buffer + data, b""
        ended: list[Ended] = []
        while data:
            rest = self._take(data, ended)
            if rest is None:
                if len(data) > _MAX_LINE:
                    raise BadAnswerError("a line or a head is too long")
                self._buffer = data
                break
            data = rest
        return ended

    def end(self) -> Ended | None:
        """Return the answer that ends with the connection, if one does."""
        head, self._head = self._head, None
        return head if head is not None and self._left is None else None

    def _take(self, data: bytes, ended: list[Ended]) -> bytes | None:
        """Take a part, and return the rest; ``None`` if more must come first."""
        if self._head is None:
            return self._take_head(data, ended)
        if self._left is None:
            return b""
        if self._left:
            skipped = min(self._left, len(data))
            self._left -= skipped
            if not (self._left or self._chunked):
                self._finish(ended)
            return data[skipped:]
        line, found, rest = data.partition(b"\r\n")
        if not found:
            return None
        if self._in_trailer:
            if not line:
                self._finish(ended)
        else:
            size = _number(line.partition(b";")[0].strip(), 16)
            self._in_trailer = not size
            # With the line end behind it.
            self._left = size + 2 if size else 0
        return rest

    def _take_head(self, data: bytes, ended: list[Ended]) -> bytes | None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        start, *lines = data[:end].split(b"\r\n")
        words = start.split(b" ", 2)
        if len(words) < 2 or words[0] not in (b"HTTP/1.1", b"HTTP/1.0") or len(words[1]) != 3:
            raise BadAnswerError("it does not begin with HTTP/1.1")
        status = _number(words[1], 10)
        headers = {
            name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(b":") for line in lines)
        }
        rest = data[end + 4 :]
        if status < 200:
            return rest
        keeps = words[0] == b"HTTP/1.1" and headers.get(b"connection") != b"close"
        self._chunked = headers.get(b"transfer-encoding") == b"chunked"
        self._in_trailer = False
        if self._chunked or status in _NO_BODY:
            self._left = 0
        else:
            length = headers.get(b"content-length")
            self._left = None if length is None else _number(length, 10)
        self._head = Ended(status, keeps and self._left is not None)
        if self._left == 0 and not self._chunked:
            self._finish(ended)
        return rest

    def _finish(self, ended: list[Ended]) -> None:
        if self._head is not None:
            ended.append(self._head)
        self._head, self._left, self._in_trailer = None, 0, False


def _number(text: bytes, base: int) -> int:
    digits = b"0123456789" if base == 10 else b"0123456789abcdefABCDEF"
    if not text or text.strip(digits) or len(text) > 20:
        raise BadAnswerError(f"{text[:40]!r} is no number")
    number = int(text, base)
    if number > _MAX_SIZE:
        raise BadAnswerError(f"{text[:40]!r} bytes are too many")
    return number
