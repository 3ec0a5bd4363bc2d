# SPDX-License-Identifier: Apache-2.0
"""
Recognize the head of a usual request: sans-IO, and only what is understood to the last byte.

A head that is not recognized is not wrong: Twisted's parser and this server's checks decide about it. So each rule
here is at least as strict as theirs.
"""

from __future__ import annotations

import re
from typing import Final

from twisted_serve.web.http.head_checks import is_host

# In bytes, and in lines. Heads of real clients are shorter; longer ones are left to the other parser, with its limits.
_LONGEST_HEAD: Final = 8192
_MOST_HEADERS: Final = 64

# The digits of a length. A body that has come with its head is short.
_LONGEST_LENGTH: Final = 5

_HEAD: Final = re.compile(rb"(GET|POST|PUT) (/[A-Za-z0-9_.~/-]*) HTTP/1\.1((?:\r\n[A-Za-z0-9_-]+:[\t -~]*)+)").fullmatch

# Headers that say how a message is to be read, or what else is wanted than an answer to it.
_UNUSUAL: Final = frozenset(
    {b"content-encoding", b"expect", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"x-request-timeout-ms"}
)


class UsualHead:
    """
    The head of a request in HTTP/1.1 that has at most one header of each name and needs no more than a whole answer.

    It is the same for each request of a client but for the length of the body. So a head is compared with the one
    before: with what comes before and after the digits of the length.

    :ivar method: ``GET``, ``POST`` or ``PUT``.
    :ivar target: A path of plain characters, without a query.
    :ivar spelled: The headers in order, with their names as spelled.
    :ivar length_at: The index of ``Content-Length`` in ``spelled``; ``None`` without it.
    :ivar values: The values of the headers by their names in lower case.
    """

    __slots__ = ("_after", "_before", "length_at", "method", "spelled", "target", "values")

    def __init__(
        self, head: bytes, method: bytes, target: bytes, spelled: list[tuple[bytes, bytes]], length_at: int | None
    ) -> None:
        self.method = method
        self.target = target
        self.spelled = spelled
        self.length_at = length_at
        self.values = {name.lower(): value for name, value in spelled}
        self._before, self._after = head, b""
        if length_at is not None:
            # Each name is there once, so the first match is the header itself, not a part of another one's value.
            name, value = spelled[length_at]
            digits = head.index(b":", head.index(b"\r\n%s:" % name)) + 1
            digits = head.index(value, digits)
            self._before, self._after = head[:digits], head[digits + len(value) :]

    @property
    def size(self) -> int:
        """The bytes of the head, but for the digits of its length."""
        return len(self._before) + len(self._after)

    @property
    def key(self) -> tuple[bytes, bytes]:
        """All of the head but the length."""
        return self._before, self._after

    def spelled_with(self, digits: bytes) -> bytes:
        """Return the head with a length as `digits_of` returns it, and without the empty line at its end."""
        return self._before if self.length_at is None else self._before + digits + self._after

    def digits_of(self, head: bytes) -> bytes | None:
        """
        Return the length of the body, as spelled, if a head differs from this one in nothing else.

        :return: ``b"0"`` without a length; ``None`` for another head.
        """
        if self.length_at is None:
            return b"0" if head == self._before else None
        if not (head.startswith(self._before) and head.endswith(self._after)):
            return None
        digits = head[len(self._before) : len(head) - len(self._after)]
        return digits if digits.isdigit() and len(digits) <= _LONGEST_LENGTH else None

    def headers(self, digits: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers, with a length as `digits_of` returns it."""
        spelled = list(self.spelled)
        if self.length_at is not None:
            spelled[self.length_at] = (spelled[self.length_at][0], digits)
        return spelled


def usual_head(head: bytes) -> UsualHead | None:
    """
    Recognize a head, given without the empty line at its end; ``None`` if it is not a usual one.
    """
    match = _HEAD(head) if len(head) <= _LONGEST_HEAD else None
    if match is None:
        return None
    lines = match[3].split(b"\r\n")[1:]
    if len(lines) > _MOST_HEADERS:
        return None
    spelled, names, length_at = [], set(), None
    for number, line in enumerate(lines):
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        lowered = name.lower()
        if lowered in names or lowered in _UNUSUAL:
            return None
        if lowered == b"content-length":
            if not (value.isdigit() and len(value) <= _LONGEST_LENGTH):
                return None
            length_at = number
        elif (lowered == b"connection" and value.lower() != b"keep-alive") or (
            lowered == b"host" and not is_host(value)
        ):
            return None
        names.add(lowered)
        spelled.append((name, value))
    if b"host" not in names:
        return None
    return UsualHead(head, match[1], match[2], spelled, length_at)
