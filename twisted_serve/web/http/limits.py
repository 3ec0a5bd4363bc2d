# SPDX-License-Identifier: Apache-2.0
"""
Define the limits of a connection.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Limits:
    """
    What a client may ask of a connection.

    :ivar request_line: Bytes of one line of the head.
    :ivar headers: Bytes of the whole head.
    :ivar body: Bytes of a body (``max_request_size``).
    :ivar header_timeout: Seconds from a head's first byte to its last.
    :ivar body_timeout: Seconds from a head's end to the body's end, for taking the last of the answers, and that a
        stream waits for its client to take what it was sent.
    :ivar keepalive_timeout: Seconds that a connection may be silent between requests.
    :ivar unsent: Bytes of a stream that are kept for a client which has stopped reading, beyond what it takes for
        its handler to hear of that.
    """

    request_line: int = 8192
    headers: int = 16384
    body: int = 6553500
    header_timeout: float = 30.0
    body_timeout: float = 300.0
    keepalive_timeout: float = 75.0
    unsent: int = 1 << 24
