# SPDX-License-Identifier: Apache-2.0
"""
Define the limits of gRPC connections.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class RpcLimits:
    """
    The limits of a connection and its calls; times in seconds, sizes in bytes.

    :ivar message: Size of one message, as sent and inflated (``max_request_size``).
    :ivar headers: Size of a header list as RFC 9113 §6.5.2 counts it; a larger one ends its call.
    :ivar header_timeout: From the connection to the end of the client's first frame, and from the first byte of a
        header block to its last.
    :ivar body_timeout: From the headers, or the first byte of a message, to the end of the message; also the time that
        a client has to take a byte of what is sent.
    :ivar unsent: Size of messages that are buffered for a client that does not read; more than arrive before their
        producer learns of that.
    :ivar streams: Calls at a time.
    :ivar age: From the connection to its graceful end, plus or minus a tenth; ``None`` for no limit.
    :ivar grace: From that end to the end of the calls that are left; ``None`` for no limit.
    :ivar resets: Frames that cost the server more than the client (resets, settings, empty data) at once.
    :ivar resets_per_second: Such frames in each second.
    :ivar stranger_timeout: A connection ends that is idle for so long and has had no call of a known sender, because
        connections are limited (``keepalive_timeout``).
    :ivar keepalive_time: From the last byte of the client to the server's ping, as in servers on gRPC's own libraries;
        a connection may otherwise be idle for any time, because channels are.
    :ivar keepalive_timeout: From that ping to the end of the connection.
    :ivar ping_interval: Between the client's pings if nothing is sent; a third ping that is earlier ends the
        connection, as in gRPC's own libraries.
    :ivar idle_ping_interval: The same without calls.
    :ivar window: What the client may send of a call before it is admitted.
    :ivar granted: What the client may send of all calls of a connection beyond that.
    :ivar frame: Size of the largest frame of data from the client.
    """

    message: int = 6553500
    headers: int = 16384
    header_timeout: float = 30.0
    body_timeout: float = 300.0
    unsent: int = 1 << 24
    streams: int = 1000
    age: float | None = None
    grace: float | None = None
    resets: int = 1000
    resets_per_second: float = 33.0
    stranger_timeout: float = 75.0
    keepalive_time: float = 7200.0
    keepalive_timeout: float = 20.0
    ping_interval: float = 300.0
    idle_ping_interval: float = 7200.0
    window: int = 65535
    granted: int = 1 << 24
    frame: int = 1 << 20
