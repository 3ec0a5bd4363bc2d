# SPDX-License-Identifier: Apache-2.0
"""
Define the limits of a connection.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Limits:
    """
    The limits of a connection.

    :ivar request_line: Bytes of one line of the head.
    :ivar headers: Bytes of the whole head.
    :ivar body: Bytes of a body (``max_request_size``).
    :ivar header_timeout: Seconds from the first byte of a head to its last.
    :ivar body_timeout: Seconds from the end of a head to the end of the body; also the time that a client has to
        read the last responses, and to resume reading a stream.
    :ivar keepalive_timeout: Seconds that a connection may be idle between requests.
    :ivar unsent: Bytes of a stream that are buffered for a client that has stopped reading; more than arrive
        before its handler learns of that.
    """

    request_line: int = 8192
    headers: int = 16384
    body: int = 6553500
    header_timeout: float = 30.0
    body_timeout: float = 300.0
    keepalive_timeout: float = 75.0
    unsent: int = 1 << 24
