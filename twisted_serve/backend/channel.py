# SPDX-License-Identifier: Apache-2.0
"""
This module implements messages over the worker's socket: a blocking read, a send that any thread may use.

``Cancel``, ``Pause`` and ``Resume`` are taken out on the way: they change what
:meth:`Channel.is_cancelled` and :meth:`Channel.is_paused` say, at the latest when that is asked.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable
from threading import Condition, Lock
from time import monotonic

from twisted_serve.wire.codec import UnsendableError, encode, worker_reader
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
# Seconds after which there may be news: quick handlers need not look for any.
_STALE = 0.002


class Channel:
    """The worker's end of the conversation."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = worker_reader()
        # To make room for each read anew would cost more than to read.
        self._room = memoryview(bytearray(_READ_SIZE))
        self._pending: deque[LoadModel | Predict] = deque()
        # What was asked and is not answered yet, and what is to be known of it.
        self._asked: set[str] = set()
        self._cancelled: set[str] = set()
        self._paused: set[str] = set()
        self._closed = False
        self._read_at = 0.0
        self._sending = Lock()
        # Guards all that was received.  One thread at a time waits at the socket, without holding this; others
        # wait here for what that one finds.
        self._received = Condition()
        self._waiting = False

    def fileno(self) -> int:
        """Return the socket's descriptor, to see with `select` whether there is something to receive."""
        return self._connection.fileno()

    def receive(self) -> LoadModel | Predict | None:
        """
        Wait for the next message.

        For one that has lain there for a while it is looked first who has gone meanwhile; see `has_gone`.

        :return: ``None`` when the server has closed its end, which it does by dying too.
        :raise WireError: for bytes that are no message.
        """
        with self._received:
            if not self._pending:
                self._wait(lambda: bool(self._pending))
            elif monotonic() - self._read_at > _STALE:
                self._look()
            # What it had not answered when it went does not matter any more.
            return None if self._closed else self._pending.popleft()

    def receive_now(self) -> list[LoadModel | Predict] | None:
        """
        Receive the messages which are there, without waiting.

        :return: ``None`` as `receive`.
        :raise WireError: for bytes that are no message.
        """
        with self._received:
            self._look()
            messages = list(self._pending)
            self._pending.clear()
            return None if self._closed else messages

    def is_cancelled(self, request_id: str) -> bool:
        """
        Whether nobody waits for this request any more.

        :raise WireError: for bytes that are no message.
        """
        with self._received:
            self._look()
            return self.has_gone(request_id)

    def has_gone(self, request_id: str) -> bool:
        """Whether, as far as is known, nobody waits for this request any more."""
        return self._closed or request_id in self._cancelled

    def is_paused(self, request_id: str) -> bool:
        """Whether, as far as is known, this request's client takes nothing at the moment."""
        return request_id in self._paused and not self.has_gone(request_id)

    def may_send(self, request_id: str) -> bool:
        """
        Wait until the client of this request can take a chunk; say whether it is still there.

        :raise WireError: for bytes that are no message.
        """
        with self._received:
            self._look()
            self._wait(lambda: not self.is_paused(request_id))
            return not self.has_gone(request_id)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Know nothing more of these requests: they have been answered."""
        answered = set(request_ids)
        with self._received:
            self._asked -= answered
            self._cancelled -= answered
            self._paused -= answered
            self._received.notify_all()

    def answer(self, answer: Predicted | PredictFailed) -> None:
        """
        Send the answer to a batch; one that cannot be sent is replaced by an error.

        :raise OSError: if the server has gone.
        """
        try:
            self.send(answer)
        except UnsendableError as e:
            error = f"The answers of this batch cannot be sent: {e}"
            self.send(PredictFailed(answer.batch_id, 500, error, answer.metrics))

    def send(self, message: FromWorker) -> None:
        """
        Send a whole message.

        :raise OSError: if the server has gone.
        :raise UnsendableError: if it cannot be sent; nothing of it has been.
        """
        frame = encode(message)
        with self._sending:
            self._connection.sendall(frame)

    def _look(self) -> None:
        """Take what is there; where another thread waits at the socket, that one does."""
        while not self._closed and not self._waiting and self._take(socket.MSG_DONTWAIT):
            pass

    def _wait(self, enough: Callable[[], bool]) -> None:
        """Receive until there is enough, or the server has gone."""
        while not self._closed and not enough():
            if self._waiting:
                self._received.wait()
                continue
            self._waiting = True
            self._received.release()
            try:
                data = self._read(0)
            finally:
                self._received.acquire()
                self._waiting = False
                self._received.notify_all()
            self._feed(data)

    def _take(self, flags: int) -> bool:
        """Read once; say whether there was anything."""
        try:
            data = self._read(flags)
        except BlockingIOError:
            return False
        self._feed(data)
        return True

    def _read(self, flags: int) -> memoryview:
        """Read once; who does so next must have fed what this returns."""
        try:
            return self._room[: self._connection.recv_into(self._room, 0, flags)]
        except ConnectionResetError:
            return self._room[:0]

    def _feed(self, data: memoryview) -> None:
        self._closed = not data
        self._read_at = monotonic()
        self._reader.receive(data)
        for message in self._reader.messages():
            # What comes too late, for a request that has been answered, must not be kept.
            if isinstance(message, Cancel):
                self._cancelled.update(self._asked.intersection(message.request_ids))
            elif isinstance(message, Pause):
                self._paused.update(self._asked.intersection(message.request_ids))
            elif isinstance(message, Resume):
                self._paused.difference_update(message.request_ids)
            else:
                if isinstance(message, Predict):
                    self._asked.update(job.request_id for job in message.jobs)
                self._pending.append(message)
