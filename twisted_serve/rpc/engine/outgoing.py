# SPDX-License-Identifier: Apache-2.0
"""
Queue what a call sends, and send as much as the client's windows allow.
"""

from __future__ import annotations

from collections import deque

from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.session import Session


class Outgoing:
    """
    The server's side of a stream.

    :ivar window: The bytes that the client takes.
    :ivar size: The bytes that are queued.
    :ivar within_message: Whether a part of a queued message has been sent.
    """

    __slots__ = ("_messages", "_session", "_stream", "size", "window", "within_message")

    def __init__(self, session: Session, stream: int) -> None:
        self._session, self._stream = session, stream
        self.window = session.first_window
        self.size = 0
        self.within_message = False
        self._messages: deque[bytes | memoryview] = deque()

    def put(self, message: bytes) -> None:
        """Queue a message with its prefix, and send what the windows allow."""
        session, size = self._session, len(message)
        if size <= min(self.window, session.send_window, session.frame_size) and not (
            self._messages or session.stalled
        ):
            session.pings.sent()
            self.window -= size
            session.send_window -= size
            session.out.append(wire.frame(wire.DATA, 0, self._stream, message))
            return
        self._messages.append(message)
        self.size += size
        self.pump()

    def pump(self) -> bool:
        """Send what the windows allow; return whether anything was sent."""
        session, sent = self._session, 0
        if session.stalled:
            return False
        session.pings.sent()
        while self._messages:
            room = min(self.window, session.send_window, session.frame_size)
            if room <= 0:
                break
            message = self._messages[0]
            if len(message) <= room:
                self._messages.popleft()
                part = message
                self.within_message = False
            else:
                view = memoryview(message)
                part, self._messages[0] = view[:room], view[room:]
                self.within_message = True
            size = len(part)
            self.window -= size
            session.send_window -= size
            sent += size
            session.out.append(wire.frame_head(size, wire.DATA, 0, self._stream))
            session.out.append(part)
        self.size -= sent
        return sent > 0

    def drop(self) -> None:
        """Forget what is queued."""
        self._messages.clear()
        self.size = 0
