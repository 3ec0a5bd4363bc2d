# SPDX-License-Identifier: Apache-2.0
"""
Exchange messages with a worker process over its socket; no policy.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger

from twisted_serve.eventloop.vectors import VectorWriter
from twisted_serve.wire.codec import UnsendableError, encode_apart, server_reader
from twisted_serve.wire.messages import FromWorker, ToWorker
from twisted_serve.workers.process.framing import FrameProtocol

_log = Logger("twisted_serve.workers")

# A longer message (in bytes) is written immediately, and not joined with others, which would copy it.
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
        self._writer: VectorWriter | None = None
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
        frame = _frame_of(message)
        self._buffer += frame
        self._flush(_is_large(frame))

    def send_soon(self, message: ToWorker) -> None:
        """
        Buffer a message that the worker is not waiting for; all messages of one reactor turn share one write.

        :raise UnsendableError: as `send`.
        """
        if not self.is_open:
            return
        frame = _frame_of(message)
        self._buffer += frame
        if _is_large(frame):
            self._flush(large=True)
        elif self._delayed_flush is None:
            self._delayed_flush = self._clock.callLater(0, self._flush_late)

    def close(self) -> None:
        """Flush, then close the connection; the worker exits when it sees the end of the stream."""
        self._flush()
        super().close()

    def _flush_late(self) -> None:
        self._delayed_flush = None
        self._flush()

    def _flush(self, large: bool = False) -> None:
        waiting, self._buffer = self._buffer, []
        if waiting and self.is_open:
            try:
                if self._writer is None:
                    self._writer = VectorWriter(self.transport)
                if large:
                    self._writer.write_large(waiting)
                else:
                    self._writer.write(waiting)
            except Exception as e:
                self._write_failed(e)

    def _write_failed(self, error: Exception) -> None:
        # A partial frame may have been written, so the worker cannot find the next one. The worker is replaced, and
        # its batches are answered like those of any lost worker.
        _log.failure("A message could not be written to a worker.")
        self.abort(f"it could not be written to: {type(error).__name__}")


def _frame_of(message: ToWorker) -> list[bytes]:
    """
    Encode a message as a frame, in pieces if it is large.

    :raise UnsendableError: if the message has no MessagePack form, or memory runs out.
    """
    try:
        return encode_apart(message)
    except MemoryError as e:
        raise UnsendableError(f"there is no memory to send {type(message).__name__}") from e


def _is_large(frame: list[bytes]) -> bool:
    """Return whether a frame is written in pieces: it has a large body, or is long without one."""
    return len(frame) > 2 or len(frame[-1]) > _LARGE


class AdoptedFactory(ServerFactory):
    """A factory that returns one existing protocol, for ``adoptStreamConnection``."""

    noisy = False

    def __init__(self, connection: Protocol) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return the adopted protocol."""
        return self._connection
