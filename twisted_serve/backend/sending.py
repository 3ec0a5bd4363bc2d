# SPDX-License-Identifier: Apache-2.0
"""
Send data in several pieces over a blocking socket, without joining them.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

# The most pieces in one call; Linux takes 1024.
_MOST_PIECES = 256


def send_pieces(connection: socket.socket, pieces: Sequence[bytes]) -> None:
    """
    Send all pieces, in order.

    :raise OSError: if the other end has closed the connection.
    """
    for start in range(0, len(pieces), _MOST_PIECES):
        some = pieces[start : start + _MOST_PIECES]
        sent = connection.sendmsg(some)
        for piece in some:
            if sent >= len(piece):
                sent -= len(piece)
            else:
                connection.sendall(memoryview(piece)[sent:])
                sent = 0
