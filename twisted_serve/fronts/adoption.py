# SPDX-License-Identifier: Apache-2.0
"""
Adopt a connection that another process has passed on, and give one up.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.interfaces import IReactorSocket
from twisted.internet.protocol import Protocol

from twisted_serve.workers.process.connection import AdoptedFactory


def adopt(reactor: IReactorSocket, descriptor: int, protocol: Protocol) -> None:
    """
    Connect a protocol to the connection of a descriptor, which is closed here.

    :raise OSError: if the client has disconnected, or this process may open no more descriptors.
    """
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            family = connection.family
        reactor.adoptStreamConnection(descriptor, family, AdoptedFactory(protocol))
    finally:
        os.close(descriptor)


def give_up(transport: Any) -> None:
    """Close the descriptor of a connection that another process has; the connection is not shut down."""
    # First out of the poll: the connection stays open, and would go on causing events there.
    transport.stopReading()
    transport.stopWriting()
    transport.getHandle().close()
