# SPDX-License-Identifier: Apache-2.0
"""
Encode and decode messages as frames: a four-byte length, then MessagePack.

Sans-IO: the parent feeds data from a transport, the child from a blocking read.  ``docs/designs/worker-wire.md``
describes the format and has the measurements by which the MessagePack library was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Layout
from typing import Generic, TypeVar

import msgspec

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


def encode_apart(message: msgspec.Struct) -> tuple[bytes, bytes]:
    """
    Return the length of a frame, as its bytes, and the rest: to write them together would copy a large one once more.

    :raise UnsendableError: if a value cannot be represented in MessagePack, such as an integer beyond 64 bits in a
        manifest, or if the frame exceeds `MAX_FRAME`.
    """
    try:
        payload = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        raise UnsendableError(f"{type(message).__name__} cannot be sent: {e}") from e
    if len(payload) > MAX_FRAME:
        raise UnsendableError(f"a frame of {len(payload)} bytes; the limit is {MAX_FRAME}")
    return _LENGTH.pack(len(payload)), payload


class FrameReader(Generic[_M]):
    """
    Decodes a stream of bytes into messages.

    :ivar max_frame: Maximum length of a payload in bytes.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[_M], max_frame: int = MAX_FRAME) -> None:
        self._decoder = decoder
        self._buffer = bytearray()
        self.max_frame = max_frame

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer data from the transport, in chunks of any size."""
        self._buffer += data

    def messages(self) -> Iterator[_M]:
        """
        Yield the messages that are complete.

        :raise WireError: for a frame that is too long or not a valid message.
        """
        buffer, start = self._buffer, 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > self.max_frame:
                    raise WireError(f"a frame of {length} bytes; the limit is {self.max_frame}")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    return
                with memoryview(buffer)[start + _LENGTH.size : end] as payload:
                    try:
                        message = self._decoder.decode(payload)
                    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
                        raise WireError(f"not a message: {e}") from e
                start = end
                yield message
        finally:
            if start:
                del buffer[:start]


def server_reader(max_frame: int = MAX_FRAME) -> FrameReader[FromWorker]:
    """Return a reader for the server's end."""
    return FrameReader(msgspec.msgpack.Decoder(FromWorker), max_frame)


def worker_reader() -> FrameReader[ToWorker]:
    """Return a reader for the worker's end."""
    return FrameReader(msgspec.msgpack.Decoder(ToWorker))
