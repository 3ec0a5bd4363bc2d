# SPDX-License-Identifier: Apache-2.0
"""
Receive and send messages over the worker's socket: blocking reads, and writes from any thread.

``Cancel``, ``Pause`` and ``Resume`` are handled here and not returned: they change the result of
:meth:`Channel.is_cancelled` and :meth:`Channel.is_paused`, at the latest when these are called.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable
from threading import Condition, Lock, RLock
from time import monotonic

from twisted_serve.backend.sending import send_pieces
from twisted_serve.wire.codec import UnsendableError, encode_apart, worker_reader
from twisted_serve.wire.messages import (
    Cancel,
    FromWorker,
    LoadModel,
    Pause,
    Predict,
    Predicted,
    PredictFailed,
    Resume,
)

# Bytes.
_READ_SIZE = 1 << 16
# A longer message is not joined, which would copy it.
_LARGE = 1 << 16
# Seconds after which the socket is checked again for cancellations; fast handlers need no check.
_STALE = 0.002


class Channel:
    """
    The worker's end of the connection to the server.

    :param connection: A connected stream socket.
    :param now: Returns a steady time in seconds.
    """

    def __init__(self, connection: socket.socket, now: Callable[[], float] = monotonic) -> None:
        self._connection = connection
        self._now = now
        self._reader = worker_reader()
        # Reused: allocating a buffer for each read would cost more than the read.
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._pending: deque[LoadModel | Predict] = deque()
        # The ids of the requests in flight, and which of them are cancelled or paused.
        self._asked: set[str] = set()
        self._cancelled: set[str] = set()
        self._paused: set[str] = set()
        self._closed = False
        self._read_at = 0.0
        self._sending = Lock()
        # Guards the state of received messages. One thread at a time blocks on the socket, without holding this
        # lock; other threads wait on the condition for the messages that it receives.
        self._lock = RLock()
        self._received = Condition(self._lock)
        self._waiting = False
        # The number of threads that wait on the condition: to notify none would cost as much as to notify one.
        self._others = 0

    def fileno(self) -> int:
        """Return the socket's descriptor, for `select`."""
        return self._connection.fileno()

    def receive(self) -> LoadModel | Predict | None:
        """
        Wait for the next message.

        If a message has been pending for some time, cancellations that have arrived meanwhile are read first; see
        `has_gone`.

        :return: The message, or ``None`` when the server has closed its end or died.
        :raise WireError: for bytes that are not a valid message.
        """
        with self._lock:
            if not self._pending:
                self._wait(self._has_pending)
            elif self._now() - self._read_at > _STALE:
                self._poll()
            # Pending requests of a server that has closed the socket are dropped.
            return None if self._closed else self._pending.popleft()

    def receive_now(self) -> list[LoadModel | Predict] | None:
        """
        Receive the available messages, without blocking.

        :return: The messages, or ``None`` as in `receive`.
        :raise WireError: for bytes that are not a valid message.
        """
        with self._lock:
            self._poll()
            messages = list(self._pending)
            self._pending.clear()
            return None if self._closed else messages

    def is_cancelled(self, request_id: str) -> bool:
        """
        Return whether this request was cancelled, after reading the available messages.

        :raise WireError: for bytes that are not a valid message.
        """
        with self._lock:
            self._poll()
            return self.has_gone(request_id)

    def has_gone(self, request_id: str) -> bool:
        """Return whether this request is known to be cancelled, by the messages read so far."""
        return self._closed or request_id in self._cancelled

    def have_gone(self, request_ids: Iterable[str]) -> bool:
        """Return whether all these requests are known to be cancelled, by the messages read so far."""
        return self._closed or (bool(self._cancelled) and self._cancelled.issuperset(request_ids))

    def is_paused(self, request_id: str) -> bool:
        """Return whether this request is known to be paused, by the messages read so far."""
        return request_id in self._paused and not self.has_gone(request_id)

    def may_send(self, request_id: str) -> bool:
        """
        Wait until the client of this request can take a chunk; return whether it is still connected.

        :raise WireError: for bytes that are not a valid message.
        """
        with self._lock:
            self._poll()
            self._wait(lambda: not self.is_paused(request_id))
            return not self.has_gone(request_id)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop the state of these requests: they have been answered."""
        answered = set(request_ids)
        with self._lock:
            self._asked -= answered
            self._cancelled -= answered
            self._paused -= answered
            self._notify()

    def answer(self, answer: Predicted | PredictFailed) -> None:
        """
        Send the response to a batch; send an error instead if it cannot be encoded.

        :raise OSError: if the server has closed the connection.
        """
        try:
            self.send(answer)
        except UnsendableError as e:
            error = f"The answers of this batch cannot be sent: {e}"
            self.send(PredictFailed(answer.batch_id, 500, error, answer.metrics))

    def send(self, message: FromWorker) -> None:
        """
        Send a message.

        :raise OSError: if the server has closed the connection.
        :raise UnsendableError: if the message cannot be encoded; no byte has been sent then.
        """
        pieces = encode_apart(message)
        with self._sending:
            if len(pieces) > 2 or len(pieces[-1]) > _LARGE:
                send_pieces(self._connection, pieces)
            else:
                self._connection.sendall(b"".join(pieces))

    def _has_pending(self) -> bool:
        return bool(self._pending)

    def _notify(self) -> None:
        """Wake the threads that wait on the condition."""
        if self._others:
            self._received.notify_all()

    def _poll(self) -> None:
        """Read the available messages, unless another thread is blocked on the socket and will."""
        while not self._closed and not self._waiting and self._receive_once(socket.MSG_DONTWAIT):
            pass

    def _wait(self, done: Callable[[], bool]) -> None:
        """Receive until ``done()`` is true, or the server closes the connection."""
        while not self._closed and not done():
            if self._waiting:
                self._others += 1
                try:
                    self._received.wait()
                finally:
                    self._others -= 1
                continue
            self._waiting = True
            self._lock.release()
            try:
                data = self._read(0)
            finally:
                self._lock.acquire()
                self._waiting = False
                self._notify()
            self._feed(data)

    def _receive_once(self, flags: int) -> bool:
        """Read once; return whether data was available."""
        try:
            data = self._read(flags)
        except BlockingIOError:
            return False
        self._feed(data)
        return True

    def _read(self, flags: int) -> memoryview | int:
        """
        Read once; the result must be given to `_feed` before the next read.

        :return: The data, in the shared buffer; or the length of what is in the reader's buffer already.
        """
        try:
            if self._reader.has_part:
                # Without `MSG_DONTWAIT` all of the rest is waited for: no other message can come before its end.
                count = self._reader.receive_in_place(
                    lambda room: self._connection.recv_into(room, 0, flags or socket.MSG_WAITALL), _READ_SIZE
                )
                if count is not None:
                    return count
            return self._buffer[: self._connection.recv_into(self._buffer, 0, flags)]
        except ConnectionResetError:
            return 0

    def _feed(self, data: memoryview | int) -> None:
        self._closed = not data
        self._read_at = self._now()
        if isinstance(data, memoryview):
            self._reader.receive(data)
        for message in self._reader.messages():
            # Messages for requests that have been answered meanwhile are dropped, or they would never be removed.
            if isinstance(message, Predict):
                self._asked.update([job.request_id for job in message.jobs])
                self._pending.append(message)
            elif isinstance(message, Cancel):
                self._cancelled.update(self._asked.intersection(message.request_ids))
            elif isinstance(message, Pause):
                self._paused.update(self._asked.intersection(message.request_ids))
            elif isinstance(message, Resume):
                self._paused.difference_update(message.request_ids)
            else:
                self._pending.append(message)
