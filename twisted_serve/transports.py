# SPDX-License-Identifier: Apache-2.0
"""
This module implements writing at once.

Twisted's transports leave what is written to the next turn of the reactor.  On the
way of every request, where a socket nearly always takes everything, that turn costs
more than the writing, and the other side does nothing meanwhile.
"""

from __future__ import annotations

from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection


def write_now(transport: ITransport, data: bytes) -> None:
    """
    Write, and have the socket take now what it can.

    What it does not take goes the usual way, as everything does under TLS, towards
    a client that is slow, or on a connection that is about to be closed.  An error is seen by
    the reactor when it tries again.
    """
    if not isinstance(transport, Connection) or (
        transport.TLS or transport.producerPaused or transport.disconnecting or not transport.connected
    ):
        transport.write(data)
    elif _is_idle(transport) and len(data) <= transport.SEND_LIMIT:
        # Asking the reactor for a turn, and that it be not, are two system calls.
        sent = transport.writeSomeData(data)
        if isinstance(sent, Exception):
            transport.write(data)
        elif sent < len(data):
            transport.write(data[sent:])
    else:
        transport.write(data)
        transport.doWrite()


def _is_idle(transport: Connection) -> bool:
    """Say whether nothing waits to be written, and nobody is to be asked for more afterwards."""
    return not (transport.dataBuffer or transport._tempDataBuffer) and (
        transport.producer is None or transport.streamingProducer
    )
