# SPDX-License-Identifier: Apache-2.0
"""
This module implements the server's end of the socket to a worker process: messages instead of bytes, no policy.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger

from twisted_serve.eventloop.writing import write_now
from twisted_serve.wire.codec import UnsendableError, encode, server_reader
from twisted_serve.wire.messages import FromWorker, ToWorker
from twisted_serve.workers.process.framing import FrameProtocol

# A longer message waits for no others: they would have to be copied.
_LARGE = 1 << 16


class WorkerConnection(FrameProtocol[FromWorker]):
    """
    The connection to one worker.

    :param clock: Says when the present turn of the reactor is over.
    :param on_message: Gets each message; none comes after the end.
    :param on_end: Told once, and why, when the connection has ended, or is of no use because the worker broke the
        protocol.
    :param max_frame: The longest message that is believed, in bytes.
    """

    _log = Logger("twisted_serve.workers")

    def __init__(
        self,
        clock: IReactorTime,
        on_message: Callable[[FromWorker], None],
        on_end: Callable[[str], None],
        max_frame: int,
    ) -> None:
        super().__init__(server_reader(max_frame))
        self._clock = clock
        self._on_message = on_message
        self._on_end = on_end
        self._waiting: list[bytes] = []
        self._due: IDelayedCall | None = None

    def messageReceived(self, message: FromWorker) -> None:
        """Pass a message on."""
        self._on_message(message)

    def connectionEnded(self, why: str) -> None:
        """Pass the end on."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._on_end(why)

    def send(self, message: ToWorker) -> None:
        """
        Send a message; does nothing after the end.

        :raise UnsendableError: if it cannot be sent; nothing of it has been.
        """
        if not self.is_open:
            return
        frame = _frame_of(message)
        if self._waiting:
            self._waiting.append(frame)
            self._send_waiting()
        else:
            try:
                write_now(self.transport, frame)
            except Exception as e:
                self._unwritable(e)

    def send_soon(self, message: ToWorker) -> None:
        """
        Send a message for which the worker is not waiting: with others of its kind, in one write for all of them.

        :raise UnsendableError: as `send`.
        """
        if not self.is_open:
            return
        frame = _frame_of(message)
        self._waiting.append(frame)
        if len(frame) > _LARGE:
            self._send_waiting()
        elif self._due is None:
            self._due = self._clock.callLater(0, self._come)

    def close(self) -> None:
        """Close the connection when everything is sent; the worker ends itself when it sees that."""
        self._send_waiting()
        super().close()

    def _come(self) -> None:
        self._due = None
        self._send_waiting()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and self.is_open:
            try:
                write_now(self.transport, b"".join(waiting))
            except Exception as e:
                self._unwritable(e)

    def _unwritable(self, error: Exception) -> None:
        # Half a frame may have been written, and the worker cannot find the next one: it is replaced, and its batches
        # are answered as those of any worker that is lost.
        self._log.failure("A message could not be written to a worker.")
        self.abort(f"it could not be written to: {type(error).__name__}")


def _frame_of(message: ToWorker) -> bytes:
    """
    Write a message as a frame.

    :raise UnsendableError: if it has no form in MessagePack, or there is no memory for it.
    """
    try:
        return bytes(encode(message))
    except MemoryError as e:
        raise UnsendableError(f"there is no memory to send {type(message).__name__}") from e


class Adopted(ServerFactory):
    """Gives a connection, that exists already, its protocol."""

    noisy = False

    def __init__(self, connection: Protocol) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See `IProtocolFactory`."""
        return self._connection
