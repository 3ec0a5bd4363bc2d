# SPDX-License-Identifier: Apache-2.0
"""
Decode the frames that arrive on a socket and deliver them as messages; no policy.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.wire.codec import FrameReader, WireError

_log = Logger("twisted_serve.workers")

_M = TypeVar("_M")


class FrameProtocol(Protocol, Generic[_M]):
    """
    The connection to one process of the server.

    :ivar is_open: Whether messages can be sent and received.
    """

    transport: ITCPTransport

    def __init__(self, reader: FrameReader[_M]) -> None:
        self.is_open = True
        self._reader = reader

    def messageReceived(self, message: _M) -> None:
        """Handle a message; not called after the end."""
        raise NotImplementedError

    def connectionEnded(self, why: str) -> None:
        """Handle the end of the connection or a protocol violation by the peer; called once."""
        raise NotImplementedError

    def dataReceived(self, data: bytes) -> None:
        """Decode the data and handle each complete message; abort on an error."""
        try:
            self._reader.receive(data)
            for message in self._reader.messages():
                if not self.is_open:
                    return
                self.messageReceived(message)
        except WireError as e:
            self.abort(f"it broke the protocol: {e}")
        except Exception as e:
            # A message that could not be handled is lost, so the state of the connection is unknown from here on.
            _log.failure("A message from a process could not be dealt with.")
            self.abort(f"its message could not be dealt with: {type(e).__name__}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the connection: the peer has closed it."""
        self._end("it closed its connection")

    def close(self) -> None:
        """Close the connection after the write buffer is flushed; the peer exits when it sees the end."""
        self.transport.loseConnection()

    def abort(self, why: str) -> None:
        """Abort the connection immediately."""
        self._end(why)
        self.transport.abortConnection()

    def _end(self, why: str) -> None:
        if self.is_open:
            self.is_open = False
            self.connectionEnded(why)
