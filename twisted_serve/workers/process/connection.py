# SPDX-License-Identifier: Apache-2.0
"""
Exchange messages with a worker process over its socket; no policy.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger

from twisted_serve.eventloop.writing import write_now
from twisted_serve.wire.codec import UnsendableError, encode_apart, server_reader
from twisted_serve.wire.messages import FromWorker, ToWorker
from twisted_serve.workers.process.framing import FrameProtocol

_log = Logger("twisted_serve.workers")

# A longer message (in bytes) is written immediately: joining it with others would copy it.
_LARGE = 1 << 16


class WorkerConnection(FrameProtocol[FromWorker]):
    """
    The server's end of the connection to one worker.

    :param clock: The reactor; a delayed call of 0 seconds marks the end of the current reactor turn.
    :param on_message: Called with each message; not called after the end.
    :param on_end: Called once with the reason when the connection has ended or the worker has violated the protocol.
    :param max_frame: The longest message that is accepted, in bytes.
    """

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
        self._buffer: list[bytes] = []
        self._delayed_flush: IDelayedCall | None = None

    def messageReceived(self, message: FromWorker) -> None:
        """Pass a message to ``on_message``."""
        self._on_message(message)

    def connectionEnded(self, why: str) -> None:
        """Cancel the delayed write and pass the reason to ``on_end``."""
        if self._delayed_flush is not None:
            self._delayed_flush.cancel()
            self._delayed_flush = None
        self._on_end(why)

    def send(self, message: ToWorker) -> None:
        """
        Send a message; do nothing after the end.

        :raise UnsendableError: if the message cannot be encoded; no part of it has been sent.
        """
        if not self.is_open:
            return
        self._buffer += _frame_of(message)
        self._flush()

    def send_soon(self, message: ToWorker) -> None:
        """
        Buffer a message that the worker is not waiting for; all messages of one reactor turn share one write.

        :raise UnsendableError: as `send`.
        """
        if not self.is_open:
            return
        frame = _frame_of(message)
        self._buffer += frame
        if len(frame[-1]) > _LARGE:
            self._flush()
        elif self._delayed_flush is None:
            self._delayed_flush = self._clock.callLater(0, self._flush_late)

    def close(self) -> None:
        """Flush, then close the connection; the worker exits when it sees the end of the stream."""
        self._flush()
        super().close()

    def _flush_late(self) -> None:
        self._delayed_flush = None
        self._flush()

    def _flush(self) -> None:
        waiting, self._buffer = self._buffer, []
        if waiting and self.is_open:
            try:
                if len(waiting[-1]) > _LARGE:
                    write_now(self.transport, b"".join(waiting[:-1]))
                    write_now(self.transport, waiting[-1])
                else:
                    write_now(self.transport, b"".join(waiting))
            except Exception as e:
                self._write_failed(e)

    def _write_failed(self, error: Exception) -> None:
        # A partial frame may have been written, so the worker cannot find the next one. The worker is replaced, and
        # its batches are answered like those of any lost worker.
        _log.failure("A message could not be written to a worker.")
        self.abort(f"it could not be written to: {type(error).__name__}")


def _frame_of(message: ToWorker) -> tuple[bytes, ...]:
    """
    Encode a message as a frame, in two parts if it is large.

    :raise UnsendableError: if the message has no MessagePack form, or memory runs out.
    """
    try:
        length, payload = encode_apart(message)
        return (length, payload) if len(payload) > _LARGE else (length + payload,)
    except MemoryError as e:
        raise UnsendableError(f"there is no memory to send {type(message).__name__}") from e


class AdoptedFactory(ServerFactory):
    """A factory that returns one existing protocol, for ``adoptStreamConnection``."""

    noisy = False

    def __init__(self, connection: Protocol) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return the adopted protocol."""
        return self._connection
