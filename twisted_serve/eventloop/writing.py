# SPDX-License-Identifier: Apache-2.0
"""
Write to a transport immediately.

Twisted's transports send written data in the next iteration of the reactor.  On the path
of every request, where the socket nearly always accepts all data, that iteration costs
more than the write itself, and the peer is idle meanwhile.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection

# In bytes. What is longer is not joined with its head.
_JOINED: Final = 1 << 16


def write_now(transport: ITransport, data: bytes) -> None:
    """
    Write data, and send immediately as much as the socket accepts.

    The rest is buffered as usual, and so is all data under TLS, to a slow client, or on
    a connection that is being closed.  The reactor sees an error when it retries the write.
    """
    if not isinstance(transport, Connection) or (
        transport.TLS or transport.producerPaused or transport.disconnecting or not transport.connected
    ):
        transport.write(data)
    elif is_idle(transport) and len(data) <= transport.SEND_LIMIT:
        # This avoids two system calls: those that add the socket to the reactor's writers and remove it again.
        sent = transport.writeSomeData(data)
        if isinstance(sent, Exception):
            transport.write(data)
        elif sent < len(data):
            transport.write(data[sent:])
    else:
        transport.write(data)
        transport.doWrite()


def write_joined(transport: Any, head: bytes, data: bytes) -> None:
    """Write a head and what follows, as one; long data by itself, since joining it with its head would copy it."""
    if len(data) > _JOINED:
        transport.write(head)
        write_now(transport, data)
    else:
        write_now(transport, head + data)


def is_idle(transport: Connection) -> bool:
    """Return whether the write buffer is empty and no pull producer is registered."""
    return not (transport.dataBuffer or transport._tempDataBuffer) and (
        transport.producer is None or transport.streamingProducer
    )
