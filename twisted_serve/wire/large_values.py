# SPDX-License-Identifier: Apache-2.0
"""
Encode messages with large bodies in pieces, so that the bodies are not copied.

The pieces, joined, are what msgspec makes of the message; between them are the bodies themselves.  A message is encoded
with empty bodies, and cut where they are: what follows an empty one has a known length.
"""

from __future__ import annotations

from struct import Struct as Layout

import msgspec

from twisted_serve.wire.messages import Item, Job, Part, Predict, Predicted, StreamChunk

# In bytes. To copy a shorter body costs less than to send one more piece.
LARGE = 1 << 16

_encoder = msgspec.msgpack.Encoder()
_encode = _encoder.encode

# The empty array, and the empty string of bytes, in MessagePack; then the beginnings of longer ones.
_EMPTY_ARRAY = 1
_EMPTY_BYTES = 2
_BYTES_32 = Layout(">BI")
_ARRAY_16 = Layout(">BH")
_ARRAY_32 = Layout(">BI")
_LONGEST_BYTES = (1 << 32) - 1


def large_pieces(message: msgspec.Struct) -> list[bytes] | None:
    """Return the pieces of a message, or ``None`` if it has no large body."""
    # Written out, because this runs for each message.
    if isinstance(message, Predict):
        for job in message.jobs:
            for part in job.parts:
                if len(part.value) > LARGE:
                    return _of_predict(message)
    elif isinstance(message, Predicted):
        for item in message.items:
            if len(item.body) > LARGE:
                return _of_predicted(message)
    elif isinstance(message, StreamChunk) and len(message.item.body) > LARGE:
        return _of_chunk(message)
    return None


def _is_large(body: bytes) -> bool:
    # What is not `bytes` may change before it is sent.
    return LARGE < len(body) <= _LONGEST_BYTES and type(body) is bytes


def _of_predict(message: Predict) -> list[bytes]:
    pieces = _Pieces()
    pieces.add(_encode(Predict(message.batch_id, []))[:-_EMPTY_ARRAY])
    pieces.add(_array_of(len(message.jobs)))
    for job in message.jobs:
        pieces.add(_encode(Job(job.request_id, job.headers, []))[:-_EMPTY_ARRAY])
        pieces.add(_array_of(len(job.parts)))
        for part in job.parts:
            if _is_large(part.value):
                empty = _encode(Part(part.name, part.content_type, b"", part.decode))
                pieces.add_with_body(empty, len(_encode(part.decode)), part.value)
            else:
                pieces.add(_encode(part))
    return pieces.all()


def _of_predicted(message: Predicted) -> list[bytes]:
    pieces = _Pieces()
    begin = len(_encode(Predicted(message.batch_id, [])))
    empty = _encode(Predicted(message.batch_id, [], message.seconds, message.metrics))
    pieces.add(empty[: begin - _EMPTY_ARRAY])
    pieces.add(_array_of(len(message.items)))
    for item in message.items:
        pieces.add_item(item)
    pieces.add(empty[begin:])
    return pieces.all()


def _of_chunk(message: StreamChunk) -> list[bytes]:
    pieces = _Pieces()
    item = Item("", 0, "", {}, b"")
    pieces.add(_encode(StreamChunk(message.batch_id, item))[: -len(_encode(item))])
    pieces.add_item(message.item)
    return pieces.all()


def _array_of(length: int) -> bytes:
    """Return the beginning of an array."""
    if length < 16:
        return bytes((0x90 | length,))
    return _ARRAY_16.pack(0xDC, length) if length < 1 << 16 else _ARRAY_32.pack(0xDD, length)


class _Pieces:
    """The pieces of a message: bodies, and what is between them."""

    def __init__(self) -> None:
        self._between: list[bytes] = []
        self._pieces: list[bytes] = []

    def add(self, encoded: bytes) -> None:
        """Add what is not a large body."""
        self._between.append(encoded)

    def add_item(self, item: Item) -> None:
        """Add an item of an answer."""
        if _is_large(item.body):
            empty = _encode(Item(item.request_id, item.status, item.phrase, item.headers, b"", item.more, item.flaw))
            self.add_with_body(empty, len(_encode(item.more)) + len(_encode(item.flaw)), item.body)
        else:
            self.add(_encode(item))

    def add_with_body(self, empty: bytes, after: int, body: bytes) -> None:
        """Add a value that was encoded with an empty body, which ``after`` bytes follow."""
        end = len(empty) - after
        self._between += [empty[: end - _EMPTY_BYTES], _BYTES_32.pack(0xC6, len(body))]
        self._pieces += [b"".join(self._between), body]
        self._between = [empty[end:]]

    def all(self) -> list[bytes]:
        """Return the pieces, each of which the caller may send by itself."""
        self._pieces.append(b"".join(self._between))
        return self._pieces
