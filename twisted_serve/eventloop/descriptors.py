# SPDX-License-Identifier: Apache-2.0
"""
Pass descriptors to another process, and receive some, each with a number.

Twisted's UNIX transports send a descriptor some time later, so that the sender does not learn when it may close it, and
receive one that may be inherited by child processes.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Callable
from struct import Struct as Layout
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

_NUMBER = Layout(">Q")

# In bytes.
_ANCILLARY = socket.CMSG_SPACE(array("i").itemsize)

# The most descriptors that are received before other events get a turn.
_MOST_AT_ONCE = 64

# macOS has no such flag; a child process there is started without the descriptors above those it is given.
_CLOSED_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

_DONE = Failure(ConnectionDone())


@implementer(IReadDescriptor)
class DescriptorSocket:
    """
    One end of a pair of UNIX stream sockets over which descriptors are passed.

    :param connection: The socket, which this object owns from now on.
    :param received: Called with the number and the descriptor of each, which belongs to the called function; ``None``
        in place of a descriptor that was lost, because this process may not open more.
    """

    def __init__(
        self, reactor: IReactorFDSet, connection: socket.socket, received: Callable[[int, int | None], object]
    ) -> None:
        connection.setblocking(False)
        self._reactor = reactor
        self._connection = connection
        self._received = received
        reactor.addReader(self)

    def send(self, number: int, descriptor: int) -> bool:
        """
        Pass a descriptor, which remains the caller's to close.

        :return: Whether it was passed; not if the other process takes none at the moment.
        """
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
        try:
            # Eight bytes are sent whole or not at all.
            self._connection.sendmsg([_NUMBER.pack(number)], rights)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket; what was passed and not received is closed with it."""
        if self._connection.fileno() >= 0:
            self._reactor.removeReader(self)
            self._connection.close()

    def fileno(self) -> int:
        """Return the socket's descriptor; see `IReadDescriptor`."""
        return self._connection.fileno()

    def logPrefix(self) -> str:
        """Return a name for logs; see `IReadDescriptor`."""
        return "descriptors"

    def doRead(self) -> Any:
        """Receive what has been passed; see `IReadDescriptor`."""
        for _ in range(_MOST_AT_ONCE):
            try:
                data, ancillary, _flags, _address = self._connection.recvmsg(_NUMBER.size, _ANCILLARY, _CLOSED_ON_EXEC)
            except BlockingIOError:
                return None
            except OSError:
                return CONNECTION_LOST
            if len(data) < _NUMBER.size:
                return CONNECTION_DONE
            descriptors = array("i")
            for _level, _kind, rights in ancillary:
                descriptors.frombytes(rights)
            self._received(_NUMBER.unpack(data)[0], descriptors[0] if descriptors else None)
            if self._connection.fileno() < 0:
                return None
        return None

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """Close the socket, as the other end is closed; see `IReadDescriptor`."""
        self.close()
