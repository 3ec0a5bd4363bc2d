# SPDX-License-Identifier: Apache-2.0
"""
Split the bytes of a client into HTTP/2 frames (RFC 9113 §4).

Data is handed over as it arrives, also a part of a frame; other frames are handed over when they are complete, and are
small.  A header block is handed over as one, whatever the number of its frames.
"""

from __future__ import annotations

from struct import Struct
from typing import Protocol

from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.wire import MOST, Fault, Reason

#: The most frames that are handled before other connections get a turn: each may begin a call or complete its message,
#: which is work that the size of the frame does not tell.  They are counted through several reads, because TLS delivers
#: each of its records by itself.
MOST_FRAMES_AT_ONCE = 32

# The most frames of a header block; those without data would be free of charge.
_MOST_CONTINUATIONS = 64

# A view of the data that was read costs less than a copy from this size on.
_LEAST_VIEW = 1024

_unpack = Struct(">HBBBL").unpack_from


class FrameSink(Protocol):
    """Handles frames; each method may raise `Fault`."""

    def data_begins(self, stream: int, size: int, ended: bool) -> None:
        """Learn that a frame of data begins; ``size`` counts its padding."""

    def data(self, data: bytes | memoryview, last: bool) -> None:
        """Take a part of the frame of data that has begun; the last part may be empty."""

    def block(self, stream: int, block: bytes, ended: bool) -> None:
        """Take a header block."""

    def control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Take a frame of any other type."""


class FrameReader:
    """
    The frames of a client, after the preface.

    :ivar closed: Whether nothing more is read.
    :ivar settled: Whether the client's first frame has come, which must be its settings.
    :ivar within_block: Whether a header block has begun and not ended.
    :param most: The size of the largest frame of data.
    :param most_block: The size of the largest header block.
    """

    __slots__ = (
        "_buffer",
        "_frames",
        "_left",
        "_most",
        "_most_block",
        "_pieces",
        "_sink",
        "_starting",
        "closed",
        "settled",
        "within_block",
    )

    def __init__(self, sink: FrameSink, most: int, most_block: int) -> None:
        self._sink = sink
        self._most, self._most_block = most, most_block
        self.closed = self.settled = self.within_block = False
        self._buffer = b""
        # Frames handled since the last rest.
        self._frames = 0
        # Bytes of the current frame of data that are still to come.
        self._left = 0
        # The header block that is arriving: its stream and flags, and its frames.
        self._starting = (0, 0)
        self._pieces: list[bytes] = []

    def receive(self, data: bytes) -> bool:
        """
        Handle bytes of the client.

        :return: Whether a part was put off, so that `read_on` must be called in the next turn.
        :raise Fault: for an error that ends the connection.
        """
        buffer = self._buffer + data if self._buffer else data
        at, size = 0, len(buffer)
        while not self.closed:
            if self._left:
                if at == size:
                    break
                end = min(size, at + self._left)
                piece = memoryview(buffer)[at:end] if end - at >= _LEAST_VIEW else buffer[at:end]
                self._left -= end - at
                at = end
                self._sink.data(piece, not self._left)
                continue
            if size - at < wire.HEAD:
                break
            if self._frames == MOST_FRAMES_AT_ONCE:
                self._buffer = buffer[at:]
                return True
            high, low, kind, flags, stream = _unpack(buffer, at)
            length, stream = high << 8 | low, stream & MOST
            self._check(kind, flags, stream, length)
            body = at + wire.HEAD
            if kind == wire.DATA and not flags & wire.PADDED:
                self._frames += 1
                self._sink.data_begins(stream, length, bool(flags & wire.END_STREAM))
                if not length:
                    self._sink.data(b"", True)
                self._left, at = length, body
                continue
            if body + length > size:
                break
            at = body + length
            self._frames += 1
            self._handle(kind, flags, stream, buffer[body:at])
        self._buffer = buffer[at:]
        return False

    def read_on(self) -> bool:
        """
        Handle what was put off in an earlier turn, and return as `receive`.

        :raise Fault: for an error that ends the connection.
        """
        self._frames = 0
        return self.receive(b"")

    def _check(self, kind: int, flags: int, stream: int, length: int) -> None:
        """Refuse a frame out of order, and one that would be buffered and is larger than any that is needed."""
        if length > self._most:
            raise Fault(Reason.FRAME_SIZE_ERROR, b"a frame is larger than MAX_FRAME_SIZE")
        if length > wire.LEAST_FRAME and (kind != wire.DATA or flags & wire.PADDED):
            most = self._most_block if kind in (wire.HEADERS, wire.CONTINUATION) else 0
            if length > most:
                raise Fault(Reason.ENHANCE_YOUR_CALM, b"a frame is too large")
        if not self.settled:
            if kind != wire.SETTINGS or flags & wire.ACK:
                raise Fault(Reason.PROTOCOL_ERROR, b"the first frame is not SETTINGS")
        elif self.within_block and (kind != wire.CONTINUATION or stream != self._starting[0]):
            raise Fault(Reason.PROTOCOL_ERROR, b"a frame interrupts a header block")

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == wire.HEADERS:
            self._headers(flags, stream, payload)
        elif kind == wire.CONTINUATION:
            self._continuation(flags, payload)
        elif kind == wire.DATA:
            self._sink.data_begins(stream, len(payload), bool(flags & wire.END_STREAM))
            self._sink.data(_unpadded(payload), True)
        else:
            self.settled = True
            self._sink.control(kind, flags, stream, payload)

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & wire.PADDED:
            payload = _unpadded(payload)
        if flags & wire.HAS_PRIORITY:
            if len(payload) < wire.PRIORITY_SIZE:
                raise Fault(Reason.FRAME_SIZE_ERROR, b"headers are too short")
            payload = payload[wire.PRIORITY_SIZE :]
        if flags & wire.END_HEADERS:
            self._end_block(flags, stream, payload)
        else:
            self.within_block = True
            self._starting, self._pieces = (stream, flags), [payload]

    def _continuation(self, flags: int, payload: bytes) -> None:
        if not self.within_block:
            raise Fault(Reason.PROTOCOL_ERROR, b"a header block begins with CONTINUATION")
        self._pieces.append(payload)
        if len(self._pieces) > _MOST_CONTINUATIONS or sum(map(len, self._pieces)) > self._most_block:
            raise Fault(Reason.ENHANCE_YOUR_CALM, b"a header block is too large")
        if flags & wire.END_HEADERS:
            block, self._pieces, self.within_block = b"".join(self._pieces), [], False
            stream, flags = self._starting
            self._end_block(flags, stream, block)

    def _end_block(self, flags: int, stream: int, block: bytes) -> None:
        self._sink.block(stream, block, bool(flags & wire.END_STREAM))


def _unpadded(payload: bytes) -> bytes:
    """Return a payload without its padding (RFC 9113 §6.1)."""
    if not payload or payload[0] >= len(payload):
        raise Fault(Reason.PROTOCOL_ERROR, b"padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
