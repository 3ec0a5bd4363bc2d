# SPDX-License-Identifier: Apache-2.0
"""
This module implements the server's end of a socket on which frames come: messages instead of bytes, no policy.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.wire.codec import FrameReader, WireError

_M = TypeVar("_M")


class FrameProtocol(Protocol, Generic[_M]):
    """
    The connection to one process of ours.

    :ivar is_open: Whether messages can come and go.
    """

    transport: ITCPTransport
    _log = Logger("twisted_serve.workers")

    def __init__(self, reader: FrameReader[_M]) -> None:
        self.is_open = True
        self._reader = reader

    def messageReceived(self, message: _M) -> None:
        """Take a message; none comes after the end."""
        raise NotImplementedError

    def connectionEnded(self, why: str) -> None:
        """Be told, once, that the connection has ended, or is of no use because the other side broke the protocol."""
        raise NotImplementedError

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        try:
            self._reader.receive(data)
            for message in self._reader.messages():
                if not self.is_open:
                    return
                self.messageReceived(message)
        except WireError as e:
            self.abort(f"it broke the protocol: {e}")
        except Exception as e:
            # What could not be dealt with is not said again: nothing that follows can be relied on.
            self._log.failure("A message from a process could not be dealt with.")
            self.abort(f"its message could not be dealt with: {type(e).__name__}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        self._end("it closed its connection")

    def close(self) -> None:
        """Close the connection when everything is sent; the other side ends itself when it sees that."""
        self.transport.loseConnection()

    def abort(self, why: str) -> None:
        """End the connection at once."""
        self._end(why)
        self.transport.abortConnection()

    def _end(self, why: str) -> None:
        if self.is_open:
            self.is_open = False
            self.connectionEnded(why)
