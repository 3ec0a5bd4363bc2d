# SPDX-License-Identifier: Apache-2.0
"""
Define the messages between the server and a front, a process that reads and writes the connections of clients.

The number of a connection comes with its descriptor, over a socket beside that of the messages; see
``docs/designs/several-fronts.md``.  A connection has at most one request at the server: an :class:`Ask` or
:class:`AskAnew`, which an :class:`Answer` or a :class:`Back` follows.
"""

from __future__ import annotations

from typing import Union

import msgspec
from msgspec import Struct

from twisted_serve.wire.codec import FrameReader

__all__ = [
    "Alive",
    "Answer",
    "Ask",
    "AskAnew",
    "Back",
    "Closed",
    "Delayed",
    "Finish",
    "Forget",
    "FromFront",
    "Returned",
    "Started",
    "Terms",
    "ToFront",
    "front_reader",
    "server_front_reader",
]


class Terms(Struct, frozen=True, array_like=True, tag=1):
    """
    Serve connections, with these limits; the first message to a front.

    :ivar body: The most bytes of a body that is passed on.
    :ivar body_timeout: Seconds that a client has to read a response.
    :ivar keepalive_timeout: Seconds that a connection may be idle.
    """

    body: int
    body_timeout: float
    keepalive_timeout: float


class Answer(Struct, frozen=True, array_like=True, tag=2):
    """
    Send a response with status 200.

    :ivar answer_id: The id of the response.
    :ivar lines: Its headers, each with its line end.
    """

    connection: int
    answer_id: str
    lines: bytes
    body: bytes


class Back(Struct, frozen=True, array_like=True, tag=3):
    """Return a connection: its request needs more than the response that a front can send."""

    connection: int


class Finish(Struct, frozen=True, array_like=True, tag=4):
    """Return all connections, those with a request at the server included: the server is stopping."""


class Started(Struct, frozen=True, array_like=True, tag=1):
    """The front can take connections."""


class Ask(Struct, frozen=True, array_like=True, tag=2):
    """
    Answer a request whose head the server has kept.

    :ivar head: The number of the head.
    :ivar digits: The length of the body as the client has spelled it; ``b"0"`` if the head has none.
    :ivar waited: Seconds from the first byte of the request to the last.
    """

    connection: int
    head: int
    digits: bytes
    body: bytes
    waited: float


class AskAnew(Struct, frozen=True, array_like=True, tag=3):
    """
    Answer a request with another head.

    :ivar number: The number by which the server is to keep the head if the request is allowed; 0 for none.
    :ivar head: The head, without the empty line at its end.
    """

    connection: int
    number: int
    head: bytes
    digits: bytes
    body: bytes
    waited: float


class Forget(Struct, frozen=True, array_like=True, tag=4):
    """Forget all heads with numbers."""


class Closed(Struct, frozen=True, array_like=True, tag=5):
    """A connection is closed, or has been lost with its descriptor."""

    connection: int


class Returned(Struct, frozen=True, array_like=True, tag=6):
    """
    A connection is returned; its descriptor has been sent.

    :ivar data: What the client has sent that is not part of an asked request.
    :ivar waited: Seconds since the first byte of that.
    """

    connection: int
    data: bytes
    waited: float


class Alive(Struct, frozen=True, array_like=True, tag=7):
    """The front runs; said every second."""


class Delayed(Struct, frozen=True, array_like=True, tag=8):
    """A connection is returned as soon as its client has read what it was sent; the client may take its time."""

    connection: int


ToFront = Union[Terms, Answer, Back, Finish]
FromFront = Union[Started, Ask, AskAnew, Forget, Closed, Returned, Alive, Delayed]


def front_reader() -> FrameReader[ToFront]:
    """Return a reader for the front's end."""
    return FrameReader(msgspec.msgpack.Decoder(ToFront))


def server_front_reader() -> FrameReader[FromFront]:
    """Return a reader for the server's end."""
    return FrameReader(msgspec.msgpack.Decoder(FromFront))
