# SPDX-License-Identifier: Apache-2.0
"""The server's end of a socket in memory, whose other end is the test."""

from __future__ import annotations

import os

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure


class Wire(StringTransport):
    """
    The transport of a protocol of the server's.

    :ivar descriptors: Those that were sent beside the bytes; the test closes them.
    """

    def __init__(self, clock: Clock, protocol: IProtocol) -> None:
        super().__init__()
        self._clock = clock
        self.protocol = protocol
        self.closed = False
        self.descriptors: list[int] = []

    def sendFileDescriptor(self, descriptor: int) -> None:
        """See `IUNIXTransport`."""
        # As the kernel does when it sends one.
        self.descriptors.append(os.dup(descriptor))

    def loseConnection(self) -> None:
        """Close."""
        self._clock.callLater(0, self.end)

    def abortConnection(self) -> None:
        """Close."""
        self.loseConnection()

    def end(self) -> None:
        """Tell the protocol once that the connection is lost."""
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(Failure(ConnectionDone()))
