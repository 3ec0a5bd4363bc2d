# SPDX-License-Identifier: Apache-2.0
"""
Send the messages of a call, no faster than the client takes them.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.interfaces import IPushProducer

from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.interfaces import CallConnection
from twisted_serve.rpc.frames import framed

# The bytes in a call's queue from which on its producer pauses.
_MOST_QUEUED = 1 << 16


class Outgoing:
    """
    The server's side of a call.

    :ivar window: The bytes that the client takes.
    :ivar size: The bytes that are queued.
    :ivar within_message: Whether a part of a queued message has been sent.
    :ivar due: When the client must have taken something, in seconds of the clock; ``None`` if nothing is queued.
    :param headers: The block that is sent before the first message.
    """

    __slots__ = (
        "_connection",
        "_headers",
        "_is_paused",
        "_producer",
        "_queue",
        "_stream",
        "due",
        "size",
        "window",
        "within_message",
    )

    def __init__(self, connection: CallConnection, stream: int, headers: bytes) -> None:
        self._connection, self._stream = connection, stream
        self._headers: bytes | None = headers
        self.window = connection.session.first_window
        self.size = 0
        self.within_message = False
        self.due: float | None = None
        self._queue: deque[bytes | memoryview] = deque()
        self._producer: IPushProducer | None = None
        self._is_paused = False

    def send(self, message: bytes) -> None:
        """Send a message as far as the windows allow, and queue the rest."""
        connection, stream, session = self._connection, self._stream, self._connection.session
        if self._headers is not None:
            connection.send_headers(stream, self._headers, False)
            self._headers = None
        data = framed(message)
        size = len(data)
        room = min(self.window, session.send_window, session.frame_size)
        if size <= room and not (self._queue or session.stalled):
            self.window -= size
            session.send_window -= size
            session.out.append(wire.frame(wire.DATA, 0, stream, data))
            session.pings.sent()
            return
        self._queue.append(data)
        self.size += size
        self.pump()
        self.pace()

    def pump(self) -> None:
        """Send as much of the queue as the windows allow."""
        session, sent = self._connection.session, 0
        while self._queue and not session.stalled:
            room = min(self.window, session.send_window, session.frame_size)
            if room <= 0:
                break
            part = self._queue[0]
            if len(part) <= room:
                self._queue.popleft()
                self.within_message = False
            else:
                view = memoryview(part)
                part, self._queue[0] = view[:room], view[room:]
                self.within_message = True
            size = len(part)
            self.window -= size
            session.send_window -= size
            sent += size
            session.out += (wire.frame_head(size, wire.DATA, 0, self._stream), part)
        self.size -= sent
        if sent:
            session.pings.sent()
            self.due = None
        if self.size and self.due is None:
            limits = self._connection.factory.limits
            self.due = self._connection.factory.reactor.seconds() + limits.body_timeout
            self._connection.watch(self.due)

    def end(self, trailers: bytes) -> None:
        """End the server's side; nothing is queued."""
        block = trailers if self._headers is None else self._headers + trailers
        self._connection.send_headers(self._stream, block, True)

    def drop(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
        self.size = 0
        self.due = None

    def register(self, producer: IPushProducer | None) -> None:
        """Pause and resume a producer of messages from now on, or none."""
        self._producer, self._is_paused = producer, False
        self.pace()

    def pace(self) -> None:
        """Pause or resume the producer."""
        if self._producer is None:
            return
        full = self.size > _MOST_QUEUED or (self._connection.session.stalled and self.size > 0)
        if full and not self._is_paused:
            self._is_paused = True
            self._producer.pauseProducing()
        elif self._is_paused and not full and self.size <= _MOST_QUEUED // 2:
            self._is_paused = False
            self._producer.resumeProducing()
