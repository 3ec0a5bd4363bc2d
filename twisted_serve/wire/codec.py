# SPDX-License-Identifier: Apache-2.0
"""
Encode and decode messages as frames: a four-byte length, then MessagePack.

Sans-IO: the parent feeds data from a transport, the child from a blocking read.  ``docs/designs/worker-wire.md``
describes the format and has the measurements by which the MessagePack library was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct as Layout
from typing import Generic, TypeVar

import msgspec

from twisted_serve.wire.large_frames import LargePayload
from twisted_serve.wire.large_values import large_pieces
from twisted_serve.wire.messages import FromWorker, ToWorker

_M = TypeVar("_M")

_LENGTH = Layout(">I")

# The length field allows 4 GiB; a peer must not be able to claim that much.
MAX_FRAME = 1 << 31

_encoder = msgspec.msgpack.Encoder()


class WireError(Exception):
    """The peer violated the protocol; the connection must be closed."""


class UnsendableError(WireError):
    """A message cannot be sent; none of it has been written, and the connection remains usable."""


def encode(message: msgspec.Struct) -> bytes:
    """
    Return the frame of ``message``.

    :raise UnsendableError: as `encode_apart`.
    """
    return b"".join(encode_apart(message))


def encode_apart(message: msgspec.Struct) -> list[bytes]:
    """
    Return a frame in pieces: its length, and the rest; large bodies are pieces of their own, which were not copied.

    :raise UnsendableError: if a value cannot be represented in MessagePack, such as an integer beyond 64 bits in a
        manifest, or if the frame exceeds `MAX_FRAME`.
    """
    try:
        pieces = large_pieces(message)
        if pieces is None:
            payload = _encoder.encode(message)
            pieces, size = [payload], len(payload)
        else:
            size = sum(map(len, pieces))
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        raise UnsendableError(f"{type(message).__name__} cannot be sent: {e}") from e
    if size > MAX_FRAME:
        raise UnsendableError(f"a frame of {size} bytes; the limit is {MAX_FRAME}")
    return [_LENGTH.pack(size), *pieces]


class FrameReader(Generic[_M]):
    """
    Decodes a stream of bytes into messages.

    :ivar max_frame: Maximum length of a payload in bytes.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[_M], max_frame: int = MAX_FRAME) -> None:
        self._decoder = decoder
        self._buffer = bytearray()
        self._large = LargePayload()
        self.max_frame = max_frame

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer data from the transport, in chunks of any size."""
        large = self._large
        if large.size:
            rest = large.missing
            with memoryview(data) as view, view[:rest] as first:
                large.add(first)
            data = data[rest:]
        self._buffer += data

    @property
    def has_part(self) -> bool:
        """Whether a part of a frame has come."""
        return bool(self._buffer or self._large.size)

    def receive_in_place(self, read: Callable[[memoryview], int], larger: int) -> int | None:
        """
        Have the rest of a large payload read into the buffer from which it is decoded, so that it is not copied there.

        To be called when `messages` has yielded all messages.

        :param read: Writes to the buffer that it is given, and returns the number of bytes.
        :param larger: A rest of at most this many bytes is not large.
        :return: The number of bytes; ``None`` if no large payload has begun, and data is for `receive`.
        :raise WireError: for a frame that is too long.
        """
        large, buffer = self._large, self._buffer
        if not large.size:
            if len(buffer) <= _LENGTH.size:
                return None
            length = self._length_at(0)
            if length - len(buffer) <= larger:
                return None
            with memoryview(buffer) as view, view[_LENGTH.size :] as first:
                large.begin(length, first)
            buffer.clear()
        return large.receive(read)

    def messages(self) -> Iterator[_M]:
        """
        Yield the messages that are complete.

        :raise WireError: for a frame that is too long or not a valid message.
        """
        large = self._large
        if large.size:
            if not large.is_complete:
                return
            with large.payload() as payload:
                message = self._decoded(payload)
            large.end()
            yield message
        buffer, start = self._buffer, 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                end = start + _LENGTH.size + self._length_at(start)
                if len(buffer) < end:
                    return
                with memoryview(buffer)[start + _LENGTH.size : end] as payload:
                    message = self._decoded(payload)
                start = end
                yield message
        finally:
            if start:
                del buffer[:start]

    def _length_at(self, start: int) -> int:
        """
        Return the length of the payload of the frame that begins at ``start``.

        :raise WireError: if it is too long.
        """
        length: int = _LENGTH.unpack_from(self._buffer, start)[0]
        if length > self.max_frame:
            raise WireError(f"a frame of {length} bytes; the limit is {self.max_frame}")
        return length

    def _decoded(self, payload: memoryview) -> _M:
        """
        Return the message of a payload.

        :raise WireError: if it is none.
        """
        try:
            return self._decoder.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as e:
            raise WireError(f"not a message: {e}") from e


def server_reader(max_frame: int = MAX_FRAME) -> FrameReader[FromWorker]:
    """Return a reader for the server's end."""
    return FrameReader(msgspec.msgpack.Decoder(FromWorker), max_frame)


def worker_reader() -> FrameReader[ToWorker]:
    """Return a reader for the worker's end."""
    return FrameReader(msgspec.msgpack.Decoder(ToWorker))
