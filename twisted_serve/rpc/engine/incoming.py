# SPDX-License-Identifier: Apache-2.0
"""
Receive the messages of a call, no faster than they are handled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_serve.errors import InternalError, ServeError
from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.interfaces import CallConnection
from twisted_serve.rpc.frames import MOST_AT_ONCE, MessageReader, inflated

# The most messages of a call that are handled before other calls get a turn.
_MOST_MESSAGES_AT_ONCE = 32

_NO_MESSAGE: tuple[bool, Any] = (False, None)


class MessageSink(Protocol):
    """A call, as what it receives sees it; each method may end the call."""

    def message(self, message: bytes) -> None:
        """Take a message."""

    def complete(self) -> None:
        """Learn that no message follows."""

    def flawed(self, error: ServeError) -> None:
        """End the call for what the client has sent."""


class Incoming:
    """
    The client's side of a call.

    Until `open`, and while the call is paused, data is kept as it came: what the client may send then is one window,
    and many small messages would take more memory than their bytes.

    :ivar window: The bytes that the client may send.
    :ivar ended: Whether the client has ended its side.
    :ivar due: When the current message must be complete, in seconds of the clock; ``None`` between messages.
    :param coding: The coding of compressed messages.
    """

    __slots__ = (
        "_coding",
        "_complete",
        "_connection",
        "_held",
        "_inflating",
        "_messages",
        "_most",
        "_open",
        "_paused",
        "_reader",
        "_resting",
        "_sink",
        "_stopped",
        "_stream",
        "_streams",
        "due",
        "ended",
        "window",
    )

    def __init__(
        self, sink: MessageSink, connection: CallConnection, stream: int, coding: bytes | None, ended: bool
    ) -> None:
        self._sink, self._connection, self._stream, self._coding = sink, connection, stream, coding
        limits = connection.factory.limits
        self.window = limits.window
        self.ended = ended
        self.due: float | None = None
        self._most = limits.message
        self._reader = MessageReader(self._most)
        self._held = bytearray()
        # The messages of what is split at the moment.
        self._messages: Iterator[tuple[bool, bytes]] | None = None
        self._inflating: Deferred[Any] | None = None
        self._open = self._paused = self._resting = self._complete = self._stopped = self._streams = False

    def expect(self, now: float) -> None:
        """Give the client the time for one message."""
        self.due = now + self._connection.factory.limits.body_timeout
        self._connection.watch(self.due)

    def open(self, streams: bool, most: int | None) -> None:
        """
        Hand messages over from now on.

        :param streams: Whether the client sends any number of messages, and begins each at any time.
        :param most: The most bytes of a message, if the method has a limit of its own.
        """
        self._open, self._streams = True, streams
        if most is not None:
            self._most = min(most, self._most)
        self._reader = MessageReader(self._most)
        if streams:
            self.due = None
        self._deliver()

    def data(self, data: bytes | memoryview, ended: bool) -> None:
        """Take data, the last if ``ended``."""
        if ended:
            self.ended = True
            self.due = None
        if self._stopped:
            return
        if self._is_held or self._messages is not None or self._held:
            self._held += data
        else:
            self._messages = self._reader.feed(data)
        self._deliver()

    def pause(self) -> None:
        """Hand no message over."""
        self._paused = True

    def resume(self) -> None:
        """Hand messages over again, from the next turn on."""
        if self._paused:
            self._paused = False
            self._connection.later(self._go_on)

    def stop(self) -> None:
        """Drop what has come, and what comes."""
        self._stopped = True
        self._messages = self.due = None
        self._held.clear()
        inflating, self._inflating = self._inflating, None
        if inflating is not None:
            inflating.cancel()

    def granted(self) -> None:
        """Let the client send the rest of its message, for which it had to wait."""
        if not self._stopped:
            self._widen()
            self._connection.flush_soon()

    @property
    def _is_held(self) -> bool:
        return not self._open or self._paused or self._resting or self._stopped or self._inflating is not None

    def _go_on(self) -> None:
        self._resting = False
        self._deliver()
        self._connection.flush_soon()

    def _deliver(self) -> None:
        """Hand over the messages that are complete, and then that the client is done."""
        handled = 0
        while not self._is_held:
            if handled == _MOST_MESSAGES_AT_ONCE:
                self._resting = True
                self._connection.later(self._go_on)
                return
            if self._messages is None:
                if not self._held:
                    self._caught_up()
                    return
                data = bytes(self._held)
                self._held.clear()
                self._messages = self._reader.feed(data)
            try:
                compressed, message = next(self._messages, _NO_MESSAGE)
            except ServeError as error:
                self._sink.flawed(error)
                return
            if message is None:
                self._messages = None
                continue
            handled += 1
            self._connection.grants.give_back(self)
            if compressed:
                self._inflate(message)
            else:
                self._sink.message(message)

    def _caught_up(self) -> None:
        """Act on having handled all that has come."""
        if self.ended:
            if self._reader.is_within:
                self._sink.flawed(InternalError("The client's data ends within a message."))
            elif not self._complete:
                self._complete = True
                self._sink.complete()
            return
        if self._streams:
            if not self._reader.is_within:
                self.due = None
            elif self.due is None:
                self.expect(self._connection.factory.reactor.seconds())
        self._widen()

    def _widen(self) -> None:
        """Let the client send the rest of its message, or the next."""
        full = self._connection.factory.limits.window
        expected = self._reader.expected
        if expected > self.window:
            size = expected - self.window if self._connection.grants.take(self, expected) else 0
        else:
            size = full - self.window if self._streams and self.window < full // 2 else 0
        if size:
            self.window += size
            self._connection.session.out.append(wire.window_update(self._stream, size))

    def _inflate(self, message: bytes) -> None:
        coding, limit = self._coding, self._most
        if coding is None:
            self._sink.flawed(InternalError("A message is compressed, but the call has no grpc-encoding."))
        elif len(message) <= MOST_AT_ONCE:
            try:
                plain = inflated(message, coding, limit)
            except ServeError as error:
                self._sink.flawed(error)
            else:
                self._sink.message(plain)
        else:
            work = self._inflating = self._connection.factory.defer_to_thread(inflated, message, coding, limit)
            work.addCallbacks(self._inflated, self._not_inflated)

    def _inflated(self, message: bytes) -> None:
        self._inflating = None
        if not self._stopped:
            self._sink.message(message)
            self._go_on()

    def _not_inflated(self, failure: Failure) -> None:
        self._inflating = None
        if not self._stopped:
            self._sink.flawed(self._connection.factory.error_of(failure))
