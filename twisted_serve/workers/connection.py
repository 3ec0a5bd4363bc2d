# SPDX-License-Identifier: Apache-2.0
"""
This module implements the server's end of the socket to a worker process: messages instead of bytes, no policy.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory

from twisted_serve.transports import write_now
from twisted_serve.wire.codec import encode, server_reader
from twisted_serve.wire.messages import FromWorker, ToWorker
from twisted_serve.workers.frames import FrameProtocol


class WorkerConnection(FrameProtocol[FromWorker]):
    """
    The connection to one worker.

    :param max_frame: The longest message that is believed, in bytes.
    """

    def __init__(self, on_message: Callable[[FromWorker], None], on_end: Callable[[str], None], max_frame: int) -> None:
        super().__init__(on_message, on_end, server_reader(max_frame))

    def send(self, message: ToWorker) -> None:
        """Send a message; does nothing after the end."""
        if self.is_open:
            write_now(self.transport, bytes(encode(message)))


class Adopted(ServerFactory):
    """Gives a connection, that exists already, its protocol."""

    noisy = False

    def __init__(self, connection: Protocol) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See `IProtocolFactory`."""
        return self._connection
