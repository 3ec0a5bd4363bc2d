# SPDX-License-Identifier: Apache-2.0
"""
Encode HTTP/2 frames and header blocks (RFC 9113 §6, RFC 7541).

Header blocks use no dynamic table, so that each can be encoded once and sent on any connection.  The first block of a
connection says so, with `NO_TABLE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Bytes of the head of a frame.
HEAD = 9

#: The largest window, and the largest id of a stream.
MOST = 2**31 - 1

#: The size of frames that each side accepts until its settings say otherwise.
LEAST_FRAME = 16384

#: The window of a connection, and of a stream until settings say otherwise.
FIRST_WINDOW = 65535

# Types of frames.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

# Flags.
END_STREAM = ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08
HAS_PRIORITY = 0x20

#: Bytes of a priority.
PRIORITY_SIZE = 5

# Settings.
HEADER_TABLE_SIZE = 1
ENABLE_PUSH = 2
MAX_CONCURRENT_STREAMS = 3
INITIAL_WINDOW_SIZE = 4
MAX_FRAME_SIZE = 5
MAX_HEADER_LIST_SIZE = 6

#: Shrinks the client's table for our header blocks to nothing (RFC 7541 §6.3).
NO_TABLE = b"\x20"

#: ``:status: 200``, from the static table.
STATUS_200 = b"\x88"

_head = Struct(">HBBBL").pack
_setting = Struct(">HL").pack


class Reason(IntEnum):
    """HTTP/2's error codes (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class Fault(Exception):
    """
    An error of the client that ends the connection (RFC 9113 §5.4.1).

    :ivar text: For the client, in its GOAWAY.
    """

    def __init__(self, reason: Reason, text: bytes) -> None:
        super().__init__(reason, text)
        self.reason, self.text = reason, text


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    size = len(payload)
    return _head(size >> 8, size & 255, kind, flags, stream) + payload


def frame_head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the head of a frame whose payload follows."""
    return _head(size >> 8, size & 255, kind, flags, stream)


def settings(values: Mapping[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_setting(name, value) for name, value in values.items()))


def window_update(stream: int, size: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset(stream: int, reason: Reason) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, reason.to_bytes(4, "big"))


def go_away(last: int, reason: Reason, text: bytes = b"") -> bytes:
    """Return a GOAWAY frame; streams above ``last`` were not looked at."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + reason.to_bytes(4, "big") + text)


def header_frames(stream: int, block: bytes, end: bool) -> bytes:
    """Return a header block as HEADERS, with CONTINUATION if the block is larger than any client's frame."""
    flags = END_STREAM if end else 0
    if len(block) <= LEAST_FRAME:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    pieces = [block[at : at + LEAST_FRAME] for at in range(0, len(block), LEAST_FRAME)]
    frames = [frame(HEADERS, flags, stream, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    return b"".join([*frames, frame(CONTINUATION, END_HEADERS, stream, pieces[-1])])


def field(name: bytes, value: bytes) -> bytes:
    """Return a header field that enters no table (RFC 7541 §6.2.2)."""
    return b"\0" + _string(name) + _string(value)


def fields(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return header fields that enter no table."""
    return b"".join(field(name, value) for name, value in headers)


def status_field(status: int) -> bytes:
    """Return ``:status``."""
    # Its name is at index 8 of the static table.
    return STATUS_200 if status == 200 else b"\x08" + _string(b"%d" % status)


def _string(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    encoded, size = bytearray((127,)), size - 127
    while size >= 128:
        encoded.append(size & 127 | 128)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + value
