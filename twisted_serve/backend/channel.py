# SPDX-License-Identifier: Apache-2.0
"""
This module implements messages over the worker's socket: a blocking read, a send that any thread may use.

``Cancel`` is taken out on the way: it changes what :meth:`Channel.is_cancelled`
says, at the latest when that is asked.
"""

from __future__ import annotations

import socket
from collections import deque
from threading import Lock

from twisted_serve.wire.codec import encode, worker_reader
from twisted_serve.wire.messages import Cancel, FromWorker, LoadModel, Predict

_READ_SIZE = 1 << 18


class Channel:
    """The worker's end of the conversation."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = worker_reader()
        self._pending: deque[LoadModel | Predict] = deque()
        self._cancelled: set[str] = set()
        self._closed = False
        self._sending = Lock()
        self._receiving = Lock()

    def receive(self) -> LoadModel | Predict | None:
        """
        Wait for the next message.

        :return: ``None`` when the server has closed its end, which it does by dying too.
        :raise WireError: for bytes that are no message.
        """
        with self._receiving:
            while not self._pending and not self._closed:
                self._take(0)
            # What it had not answered when it went does not matter any more.
            return None if self._closed else self._pending.popleft()

    def is_cancelled(self, request_id: str) -> bool:
        """
        Whether nobody waits for this request any more.

        :raise WireError: for bytes that are no message.
        """
        # Where another thread is reading, that one takes the message out.
        if self._receiving.acquire(blocking=False):
            try:
                while not self._closed and self._take(socket.MSG_DONTWAIT):
                    pass
            finally:
                self._receiving.release()
        return self._closed or request_id in self._cancelled

    def forget_cancelled(self) -> None:
        """End a batch: what was cancelled of it has been answered."""
        self._cancelled.clear()

    def send(self, message: FromWorker) -> None:
        """
        Send a whole message.

        :raise OSError: if the server has gone.
        """
        frame = encode(message)
        with self._sending:
            self._connection.sendall(frame)

    def _take(self, flags: int) -> bool:
        """Read once; say whether there was anything."""
        try:
            data = self._connection.recv(_READ_SIZE, flags)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        self._closed = not data
        self._reader.receive(data)
        for message in self._reader.messages():
            if isinstance(message, Cancel):
                self._cancelled.update(message.request_ids)
            else:
                self._pending.append(message)
        return True
