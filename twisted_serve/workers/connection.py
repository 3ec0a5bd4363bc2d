# SPDX-License-Identifier: Apache-2.0
"""
This module implements the server's end of the socket to a worker process: messages instead of bytes, no policy.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from twisted_serve.transports import write_now
from twisted_serve.wire.codec import WireError, encode, server_reader
from twisted_serve.wire.messages import FromWorker, ToWorker


class WorkerConnection(Protocol):
    """
    The connection to one worker.

    :ivar is_open: Whether messages can come and go.
    :param on_message: Gets each message; none comes after the end.
    :param on_end: Told once, and why, when the connection has ended, or is of no use because the worker broke the
        protocol.
    :param max_frame: The longest message that is believed, in bytes.
    """

    transport: ITCPTransport

    def __init__(self, on_message: Callable[[FromWorker], None], on_end: Callable[[str], None], max_frame: int) -> None:
        self.is_open = True
        self._on_message = on_message
        self._on_end = on_end
        self._reader = server_reader(max_frame)

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        self._reader.receive(data)
        try:
            for message in self._reader.messages():
                if not self.is_open:
                    return
                self._on_message(message)
        except WireError as e:
            self.abort(f"it broke the protocol: {e}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        self._end("it closed its connection")

    def send(self, message: ToWorker) -> None:
        """Send a message; does nothing after the end."""
        if self.is_open:
            write_now(self.transport, bytes(encode(message)))

    def close(self) -> None:
        """Close the connection when everything is sent; the worker ends itself when it sees that."""
        self.transport.loseConnection()

    def abort(self, why: str) -> None:
        """End the connection at once."""
        self._end(why)
        self.transport.abortConnection()

    def _end(self, why: str) -> None:
        if self.is_open:
            self.is_open = False
            self._on_end(why)


class Adopted(ServerFactory):
    """Gives a connection, that exists already, its protocol."""

    noisy = False

    def __init__(self, connection: Protocol) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See `IProtocolFactory`."""
        return self._connection
