# SPDX-License-Identifier: Apache-2.0
"""
Stand in for the transport of a connection that was lost in a front.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, ITransport
from zope.interface import implementer


@implementer(ITransport, IConsumer, IPushProducer)
class LostTransport:
    """
    A transport whose client has disconnected: what is written is dropped.

    :param host: The address of the server's end.
    :param peer: The address of the client.
    """

    disconnecting = False

    def __init__(self, host: IAddress, peer: IAddress) -> None:
        self._host = host
        self._peer = peer

    def getHost(self) -> IAddress:
        """Return the address of the server's end; see `ITransport`."""
        return self._host

    def getPeer(self) -> IAddress:
        """Return the address of the client; see `ITransport`."""
        return self._peer

    def write(self, data: bytes) -> None:
        """Drop the data; see `ITransport`."""

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Drop the data; see `ITransport`."""

    def loseConnection(self) -> None:
        """Do nothing: the connection is lost; see `ITransport`."""

    def abortConnection(self) -> None:
        """Do nothing: the connection is lost."""

    def loseWriteConnection(self) -> None:
        """Do nothing: the connection is lost."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Do nothing: nothing is waited for; see `IConsumer`."""

    def unregisterProducer(self) -> None:
        """Do nothing; see `IConsumer`."""

    def pauseProducing(self) -> None:
        """Do nothing: nothing comes; see `IPushProducer`."""

    def resumeProducing(self) -> None:
        """Do nothing: nothing comes; see `IPushProducer`."""

    def stopProducing(self) -> None:
        """Do nothing: nothing comes; see `IProducer`."""
