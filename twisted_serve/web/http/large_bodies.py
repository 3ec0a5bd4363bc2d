# SPDX-License-Identifier: Apache-2.0
"""
Read large bodies from the socket into one buffer, which becomes the body without a copy.

Twisted's connections read 64 KB at a time, and pass each piece through the parser.  While a large body of known length
arrives on a plain connection, `LargeBodyReader` reads from the socket instead, and hands all of it to the parser at
once, at its end.  It reads nothing beyond the body, and whenever the channel is not simply waiting for more of the body
it leaves the connection as if it had never been there.
"""

from __future__ import annotations

import struct
from errno import EAGAIN
from fcntl import ioctl
from io import BytesIO
from termios import FIONREAD
from typing import Any

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection

from twisted_serve.web.http.asking import AskingChannel

# In bytes. Shorter bodies come with few reads.
LARGE_BODY = 1 << 17

# The most bytes of one read, so that other connections get their turns.
_MOST_AT_ONCE = 1 << 19

_COUNT = struct.Struct("i")


class BodyBuffer:
    """
    A body that grows as it arrives, to at most twice what has arrived: an announced length takes no memory.

    :param first: What has come.
    :param length: The length of the whole body.
    :param waiting: How many bytes have arrived and are not read.
    """

    def __init__(self, first: bytes, length: int, waiting: int) -> None:
        self.length = length
        self.filled = len(first)
        self._size = min(length, 2 * (len(first) + waiting))
        # A file made of bytes has them for its buffer while no one else has them.
        self._file = BytesIO(bytes(self._size))
        with self._file.getbuffer() as view:
            view[: self.filled] = first

    @property
    def is_full(self) -> bool:
        """Whether `grow` must come before the next `read`."""
        return self.filled == self._size

    def grow(self, waiting: int) -> None:
        """Make room for more."""
        self._size = min(self.length, 2 * (self.filled + waiting))
        self._file.seek(self._size - 1)
        self._file.write(b"\0")

    def read(self, connection: Any) -> int:
        """Read from a socket once, and return the number of bytes."""
        end = min(self._size, self.filled + _MOST_AT_ONCE)
        with self._file.getbuffer() as view, view[self.filled : end] as room:
            count: int = connection.recv_into(room)
        self.filled += count
        return count

    def value(self) -> bytes:
        """Return what has come; all of a complete body is not copied."""
        return self._file.getvalue() if self.filled == self._size else self._file.getvalue()[: self.filled]


class LargeBodyReader:
    """
    Reads one body.

    :param channel: Gets the body.
    :param length: The length of the body.
    :param transport: The connection, which reads by this object until `stop`.
    """

    def __init__(self, channel: LargeBodyChannel, length: int, transport: Any) -> None:
        self._channel = channel
        self._length = length
        self._transport = transport
        self._body: BodyBuffer | None = None
        self._read = self._do_read
        self._transport.doRead = self._read

    def stop(self) -> None:
        """Have the connection read as ever; what has come of a body that is not complete is dropped."""
        # A connection that is being aborted has a method of its own.
        if vars(self._transport).get("doRead") is self._read:
            del self._transport.doRead
        self._body = None

    def _do_read(self) -> Any:
        channel, transport = self._channel, self._transport
        if not channel.awaits_body:
            body = self._body
            self.stop()
            if body is not None and body.filled:
                channel.body_came(body.value())
            return transport.doRead()
        try:
            if self._body is None:
                self._body = BodyBuffer(channel.take_body(), self._length, self._waiting())
            elif self._body.is_full:
                self._body.grow(self._waiting())
            count = self._body.read(transport.socket)
        except OSError as error:
            return None if error.errno == EAGAIN else CONNECTION_LOST
        if not count:
            return CONNECTION_DONE
        channel.resetTimeout()
        if self._body.filled == self._body.length:
            data = self._body.value()
            self.stop()
            channel.body_came(data)
        return None

    def _waiting(self) -> int:
        """Return how many bytes the socket has received; at least 1, as a wait for it has ended."""
        count: int = _COUNT.unpack(ioctl(self._transport.socket, FIONREAD, bytes(_COUNT.size)))[0]
        return max(1, count)


class LargeBodyChannel(AskingChannel):
    """The part of a connection that reads large bodies."""

    _reader: LargeBodyReader | None = None

    def read_large_body(self, length: int) -> None:
        """Read in place the body of the request whose head has been read, unless the connection is no plain socket."""
        transport = self.transport
        if isinstance(transport, Connection) and not transport.TLS:
            self._reader = LargeBodyReader(self, length, transport)

    def stop_reading_body(self) -> None:
        """Read as ever again."""
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    @property
    def awaits_body(self) -> bool:
        """Whether nothing but more of the body can come next, and all that was read has been handled."""
        return not (
            self.line_mode
            or self.paused
            or self._buffer
            or self._lingering
            or self._held
            or self._handlingRequest
            or self._busyReceiving
            or self.has_postponed_read
        )

    def take_body(self) -> bytes:
        """Return what has come of the body, which is forgotten here until `body_came` has it again."""
        body: bytes = self.requests[-1].take_body()
        return body

    def body_came(self, body: bytes) -> None:
        """Handle the body from its beginning, as far as it has come."""
        decoder: Any = self._transferDecoder
        if not self._lingering:
            decoder.contentLength = self.length
        self.rawDataReceived(body)
