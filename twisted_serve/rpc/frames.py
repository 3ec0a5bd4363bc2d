# SPDX-License-Identifier: Apache-2.0
"""
Split the data of a call into messages and back: the five-byte prefix, and gRPC's compression.

Each message is a flag byte (0: as it is, 1: compressed), the length in four bytes, and as many bytes.  The status of
each error is that of gRPC's list of status codes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from twisted_serve.errors import CodingNotImplemented, InternalError, RequestTooLarge

#: Bytes before each message.
PREFIX = 5

#: In bytes. A larger compressed message is inflated in a thread: deflate expands a byte to about a thousand at most.
MOST_AT_ONCE = 4096

#: The value of ``grpc-accept-encoding``.
ACCEPTED = b"identity,deflate,gzip"

# zlib's numbers for a gzip member, and for the format of RFC 1950, which "deflate" means.
_WINDOWS = {b"gzip": 31, b"deflate": 15}

# A piece of data that is a smaller part of what was read from the socket is copied, so that it does not keep the rest.
_LEAST_PART = 8


def framed(message: bytes) -> bytes:
    """Return a message with its prefix, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def coding_of(value: bytes) -> bytes | None:
    """
    Return the coding that a ``grpc-encoding`` names, ``None`` for identity.

    :raise CodingNotImplemented: for any other than gzip and deflate.
    """
    if value == b"identity":
        return None
    if value not in _WINDOWS:
        raise CodingNotImplemented(
            f"grpc-encoding {value[:40].decode('latin-1')!a} is not supported: identity, deflate and gzip are."
        )
    return value


def inflated(message: bytes, coding: bytes, limit: int) -> bytes:
    """
    Return a compressed message as it was, after at most ``limit`` + 1 bytes of output.

    :raise InternalError: for a message that does not match its coding, is truncated, or has trailing data.
    :raise RequestTooLarge: if the inflated message exceeds the limit.
    """
    inflater = zlib.decompressobj(_WINDOWS[coding])
    try:
        whole = inflater.decompress(message, limit + 1)
    except zlib.error as e:
        raise _wrong(coding, str(e)) from None
    if len(whole) > limit:
        raise RequestTooLarge(f"The message is, inflated, larger than {limit} bytes (max_request_size).")
    if not inflater.eof:
        raise _wrong(coding, "it breaks off")
    if inflater.unused_data:
        raise _wrong(coding, "something follows its end")
    return whole


def _wrong(coding: bytes, why: str) -> InternalError:
    return InternalError(f"The message is not {coding.decode()}, as its grpc-encoding says: {why}.")


class MessageReader:
    """
    Collect the messages of one side of a call.

    :ivar expected: Bytes of the current message that are still to come; 0 between messages, or within a prefix.
    :param limit: The most bytes of a message, as sent.
    """

    __slots__ = ("_compressed", "_limit", "_pieces", "_prefix", "expected")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prefix = b""
        self._compressed = False
        self._pieces: list[bytes | memoryview] = []
        self.expected = 0

    @property
    def is_within(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._prefix or self.expected)

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[bool, bytes]]:
        """
        Yield the messages that end in ``data``, each with whether it is compressed.

        The iterator raises at the prefix of a message that is refused; no byte of that message is kept.

        :param data: Any part of the data; a view is kept until its message is complete.
        :raise InternalError: for an invalid flag.
        :raise RequestTooLarge: for a length above the limit.
        """
        while len(data):
            if not self.expected:
                lacking = PREFIX - len(self._prefix)
                self._prefix += bytes(data[:lacking])
                data = data[lacking:]
                if len(self._prefix) < PREFIX:
                    return
                self._begin()
            if len(data) < self.expected:
                self._keep(data)
                return
            last, data = data[: self.expected], data[self.expected :]
            yield self._compressed, self._end(last)

    def _begin(self) -> None:
        flag, size = self._prefix[0], int.from_bytes(self._prefix[1:], "big")
        if flag > 1:
            raise InternalError(f"The first byte of a message must be 0 or 1, not {flag}.")
        if size > self._limit:
            raise RequestTooLarge(f"The message has {size} bytes, more than {self._limit} (max_request_size).")
        self._compressed = bool(flag)
        self._prefix = b""
        self.expected = size

    def _keep(self, data: bytes | memoryview) -> None:
        if not data:
            return
        if isinstance(data, memoryview) and len(data) * _LEAST_PART < len(data.obj):  # type: ignore[arg-type]
            data = bytes(data)
        self._pieces.append(data)
        self.expected -= len(data)

    def _end(self, last: bytes | memoryview) -> bytes:
        self.expected = 0
        if not self._pieces:
            return bytes(last)
        self._pieces.append(last)
        message = b"".join(self._pieces)
        self._pieces = []
        return message
