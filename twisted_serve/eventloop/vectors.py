# SPDX-License-Identifier: Apache-2.0
"""
Write data in several pieces to a transport immediately, without joining them.

Twisted's transports join what they are given, and send at most 128 KB at a time.  A frame with a body of a megabyte is
sent by fewer calls of the system here, and nothing of it is copied in this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EAGAIN, ENOBUFS
from typing import Any

from twisted.internet.interfaces import IPullProducer, ITransport
from twisted.internet.tcp import Connection
from zope.interface import implementer

from twisted_serve.eventloop.writing import is_idle, write_now

# The most pieces in one call; Linux takes 1024.
_MOST_PIECES = 256


@implementer(IPullProducer)
class VectorWriter:
    """
    Writes to one transport, in order.

    The transport must be written to by this object alone.  While a rest of large data waits for the socket, this is
    the transport's producer: so the transport closes only after it.

    :param transport: Where the data goes.
    """

    def __init__(self, transport: ITransport) -> None:
        self._transport: Any = transport
        self._rest: list[bytes | memoryview] = []

    def write(self, pieces: Sequence[bytes]) -> None:
        """Write small data, in pieces that are joined, as `write_now` does."""
        if self._rest:
            self._rest += pieces
        else:
            write_now(self._transport, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def write_large(self, pieces: Sequence[bytes]) -> None:
        """Write pieces of which some are large; they must not change."""
        transport = self._transport
        if self._rest:
            self._rest += pieces
        elif (
            not isinstance(transport, Connection)
            or transport.TLS
            or transport.disconnecting
            or not transport.connected
            or transport.producer is not None
            or not is_idle(transport)
        ):
            write_now(transport, b"".join(pieces))
        else:
            self._rest = list(pieces)
            if not self._send():
                transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """Send more, as the socket accepts more; the transport calls this."""
        if self._send():
            self._transport.unregisterProducer()
        else:
            self._transport.startWriting()

    def stopProducing(self) -> None:
        """Drop the rest, as the connection is lost."""
        self._rest = []

    def _send(self) -> bool:
        """Send what the socket accepts; return whether nothing is left."""
        rest = self._rest
        try:
            sent = self._transport.socket.sendmsg(rest[:_MOST_PIECES])
        except OSError as error:
            if error.errno in (EAGAIN, ENOBUFS):
                return False
            # The reactor sees the error when it tries again, and ends the connection.
            self._rest = []
            self._transport.write(b"".join(rest))
            return True
        done = 0
        for piece in rest:
            if sent < len(piece):
                break
            sent -= len(piece)
            done += 1
        del rest[:done]
        if sent:
            rest[0] = memoryview(rest[0])[sent:]
        return not rest
