# SPDX-License-Identifier: Apache-2.0
"""
This module implements the frames in which messages travel: four bytes of length, then MessagePack.

It knows no socket.  The parent feeds it from a transport, the child from a
blocking read (``docs/designs/worker-wire.md`` has the format and the figures
for which MessagePack library was chosen).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Layout
from typing import Generic, TypeVar

import msgspec

from twisted_serve.wire.messages import FromWorker, ToWorker

_M = TypeVar("_M")

_LENGTH = Layout(">I")

# The length field allows 4 GiB; nobody should make us believe in it.
MAX_FRAME = 1 << 31

_encoder = msgspec.msgpack.Encoder()


class WireError(Exception):
    """The other side broke the protocol; the connection is of no use any more."""


class UnsendableError(WireError):
    """This message cannot be sent, but another one can: nothing of it has left."""


def encode(message: msgspec.Struct) -> bytearray:
    """
    Make the frame of ``message``.

    :raise UnsendableError: if a value in it has no form in MessagePack, such as an integer beyond 64 bits in a
        manifest, or if no reader would believe its length.
    """
    frame = bytearray(_LENGTH.size)
    try:
        _encoder.encode_into(message, frame, _LENGTH.size)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        raise UnsendableError(f"{type(message).__name__} cannot be sent: {e}") from e
    length = len(frame) - _LENGTH.size
    if length > MAX_FRAME:
        raise UnsendableError(f"a frame of {length} bytes; the limit is {MAX_FRAME}")
    _LENGTH.pack_into(frame, 0, length)
    return frame


class FrameReader(Generic[_M]):
    """
    Bytes in, messages out.

    :ivar max_frame: The longest payload that is believed, in bytes.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[_M], max_frame: int = MAX_FRAME) -> None:
        self._decoder = decoder
        self._buffer = bytearray()
        self.max_frame = max_frame

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes as they came from the transport, however they were cut."""
        self._buffer += data

    def messages(self) -> Iterator[_M]:
        """
        Yield the messages which are complete by now.

        :raise WireError: for a frame that is too long or is no message of ours.
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
    """Make the reader for the server's end."""
    return FrameReader(msgspec.msgpack.Decoder(FromWorker), max_frame)


def worker_reader() -> FrameReader[ToWorker]:
    """Make the reader for the worker's end."""
    return FrameReader(msgspec.msgpack.Decoder(ToWorker))
