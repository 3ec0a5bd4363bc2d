# SPDX-License-Identifier: Apache-2.0
"""
Apply the rules of HTTP/2 to the bytes of a client (RFC 9113), for any number of streams.

Nothing here knows a socket or a timer: bytes come in by `Session.receive`, and those to be sent are in `Session.out`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.guards import Bucket, PingGuard
from twisted_serve.rpc.engine.heads import Head, HeadDecoder, Malformed, Undecodable
from twisted_serve.rpc.engine.limits import RpcLimits
from twisted_serve.rpc.engine.reading import FrameReader
from twisted_serve.rpc.engine.wire import MOST, Fault, Reason

# What the client may send on the connection; streams have windows of their own.
_WINDOW = 1 << 22

# How many windows are changed for the price of one cheap frame.
_STREAMS_PER_TOKEN = 8


class Stream(Protocol):
    """
    A stream, as the session sees it.

    :ivar send_window: The bytes that the client takes.
    :ivar receive_window: The bytes that the client may send.
    """

    send_window: int
    receive_window: int

    @property
    def half_closed(self) -> bool:
        """Whether the client has ended its side."""

    def data(self, data: bytes | memoryview, ended: bool) -> None:
        """Take data, the last if ``ended``."""

    def window_opened(self) -> None:
        """Go on sending."""

    def was_reset(self) -> None:
        """Stop: the client has reset the stream, which is forgotten."""

    def fault(self, reason: Reason) -> None:
        """Reset the stream for an error of the client."""


class Owner(Protocol):
    """A connection, as its session sees it."""

    def begin(self, stream: int, head: Head, ended: bool) -> None:
        """Begin a call."""

    def window_opened(self) -> None:
        """Go on sending on all streams."""

    def acknowledged(self, ping: bytes) -> None:
        """Learn that the client has answered a ping."""

    def client_leaves(self) -> None:
        """Learn that the client begins no further call."""


class Session:
    """
    The server's side of an HTTP/2 connection.

    :ivar streams: Those that are open, by id.
    :ivar early: Those whose answer has ended before the client's side did.
    :ivar last: The id of the last stream that was begun.
    :ivar stalled: Whether no data is sent, because the client does not read what was sent.
    :ivar refusing: Whether new streams are refused, because the client knows that the server leaves.
    :ivar out: What is to be sent.
    :ivar send_window: The bytes that the client takes on the connection.
    :ivar first_window: The bytes that the client takes on a new stream.
    :ivar frame_size: The size of the largest frame that the client takes.
    :ivar reader: The frames of the client.
    :ivar pings: The rule for pings.
    """

    def __init__(self, owner: Owner, limits: RpcLimits, seconds: Callable[[], float]) -> None:
        self._owner, self._limits, self._seconds = owner, limits, seconds
        self.streams: dict[int, Stream] = {}
        self.early: dict[int, None] = {}
        self.last = 0
        self.stalled = self.refusing = False
        self.send_window = self.first_window = wire.FIRST_WINDOW
        self.frame_size = wire.LEAST_FRAME
        self.pings = PingGuard(limits.ping_interval, limits.idle_ping_interval)
        self._decoder = HeadDecoder(limits.headers)
        self._cheap = Bucket(limits.resets, limits.resets_per_second, seconds())
        self._receive_window = _WINDOW
        self._received = 0
        self.reader = FrameReader(self, limits.frame, self._decoder.most)
        # The stream of the data that is arriving, and whether that data is its last.
        self._target: Stream | None = None
        self._ends = False
        self.out: list[bytes | memoryview] = [
            wire.settings(
                {
                    wire.MAX_CONCURRENT_STREAMS: limits.streams,
                    wire.INITIAL_WINDOW_SIZE: limits.window,
                    wire.MAX_FRAME_SIZE: limits.frame,
                    wire.MAX_HEADER_LIST_SIZE: limits.headers,
                }
            )
            + wire.window_update(0, _WINDOW - wire.FIRST_WINDOW)
        ]
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            wire.PRIORITY: self._priority,
            wire.RST_STREAM: self._reset,
            wire.SETTINGS: self._settings,
            wire.PUSH_PROMISE: self._push_promise,
            wire.PING: self._ping,
            wire.GOAWAY: self._go_away,
            wire.WINDOW_UPDATE: self._window_update,
        }

    def receive(self, data: bytes) -> bool:
        """
        Handle bytes that follow the preface.

        :return: Whether a part was put off, so that `read_on` must be called in the next turn.
        :raise Fault: for an error that ends the connection.
        """
        return self._read(self.reader.receive(data))

    def read_on(self) -> bool:
        """
        Handle what was put off in an earlier turn, and return as `receive`.

        :raise Fault: for an error that ends the connection.
        """
        return self._read(self.reader.read_on())

    def _read(self, more: bool) -> bool:
        if self._received >= _WINDOW // 2:
            self.out.append(wire.window_update(0, self._received))
            self._receive_window += self._received
            self._received = 0
        return more

    def spend(self, tokens: int = 1) -> None:
        """Count a frame that costs the client next to nothing; those are limited."""
        if not self._cheap.take(self._seconds(), tokens):
            raise Fault(Reason.ENHANCE_YOUR_CALM, b"too many frames that only make work")

    # Data

    def data_begins(self, stream: int, size: int, ended: bool) -> None:
        """Count the data against the windows; only what a call may send reaches the call."""
        if not stream & 1 or stream > self.last:
            raise Fault(Reason.PROTOCOL_ERROR, b"data without a stream")
        self._receive_window -= size
        self._received += size
        if self._receive_window < 0:
            raise Fault(Reason.FLOW_CONTROL_ERROR, b"more data than the window of the connection")
        self._ends = ended
        target = self._target = self.streams.get(stream)
        if target is None:
            if ended:
                self.early.pop(stream, None)
            elif not size:
                self.spend()
            return
        target.receive_window -= size
        if target.half_closed:
            self._refuse(target, Reason.STREAM_CLOSED)
        elif target.receive_window < 0:
            self._refuse(target, Reason.FLOW_CONTROL_ERROR)

    def data(self, data: bytes | memoryview, last: bool) -> None:
        """Hand data over to its call."""
        target = self._target
        if target is None:
            return
        ended = last and self._ends
        if data or ended:
            target.data(data, ended)
        else:
            self.spend()

    def _refuse(self, target: Stream, reason: Reason) -> None:
        self._target = None
        self.spend()
        target.fault(reason)

    # Header blocks

    def block(self, stream: int, block: bytes, ended: bool) -> None:
        """Begin a call, or take the trailers of one."""
        if not stream & 1:
            raise Fault(Reason.PROTOCOL_ERROR, b"headers on a stream that no client begins")
        try:
            if stream <= self.last:
                self._decoder.skip(block)
                self._trailers(stream, ended)
                return
            self.last = stream
            head = self._decoder.head(block)
        except Undecodable as e:
            raise Fault(Reason.COMPRESSION_ERROR, b"a header block cannot be decoded, or is too large") from e
        except Malformed:
            self.reject(stream, Reason.PROTOCOL_ERROR)
            return
        if self.refusing or len(self.streams) >= self._limits.streams:
            self.reject(stream, Reason.REFUSED_STREAM)
            return
        self._owner.begin(stream, head, ended)

    def _trailers(self, stream: int, ended: bool) -> None:
        target = self.streams.get(stream)
        if target is None:
            self.spend()
            self.early.pop(stream, None)
        elif not ended:
            self._refuse(target, Reason.PROTOCOL_ERROR)
        elif target.half_closed:
            self._refuse(target, Reason.STREAM_CLOSED)
        else:
            target.data(b"", True)

    def reject(self, stream: int, reason: Reason) -> None:
        """Reset a stream that becomes no call."""
        self.spend()
        self.out.append(wire.reset(stream, reason))

    # Other frames

    def control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Handle a frame that is neither data nor headers; those of unknown types are ignored."""
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(flags, stream, payload)
        else:
            self.spend()

    def _priority(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            raise Fault(Reason.PROTOCOL_ERROR, b"a priority without a stream")
        if len(payload) != wire.PRIORITY_SIZE:
            raise Fault(Reason.FRAME_SIZE_ERROR, b"a priority has five bytes")
        self.spend()

    def _reset(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream or stream > self.last:
            raise Fault(Reason.PROTOCOL_ERROR, b"a reset without a stream")
        if len(payload) != 4:
            raise Fault(Reason.FRAME_SIZE_ERROR, b"a reset has four bytes")
        self.spend()
        self.early.pop(stream, None)
        target = self.streams.pop(stream, None)
        if target is not None:
            target.was_reset()

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Fault(Reason.PROTOCOL_ERROR, b"settings of a stream")
        if len(payload) % 6 or (flags & wire.ACK and payload):
            raise Fault(Reason.FRAME_SIZE_ERROR, b"settings have six bytes each")
        self.spend()
        if flags & wire.ACK:
            return
        # The last of each name counts, so that many of them are not more work.
        values = {payload[at : at + 2]: payload[at + 2 : at + 6] for at in range(0, len(payload), 6)}
        for name, value in values.items():
            self._set(int.from_bytes(name, "big"), int.from_bytes(value, "big"))
        self.out.append(wire.frame(wire.SETTINGS, wire.ACK, 0))

    def _set(self, name: int, value: int) -> None:
        if name == wire.INITIAL_WINDOW_SIZE:
            if value > MOST:
                raise Fault(Reason.FLOW_CONTROL_ERROR, b"INITIAL_WINDOW_SIZE is too large")
            self.spend(len(self.streams) // _STREAMS_PER_TOKEN)
            change, self.first_window = value - self.first_window, value
            for stream in list(self.streams.values()):
                stream.send_window += change
                if stream.send_window > MOST:
                    raise Fault(Reason.FLOW_CONTROL_ERROR, b"INITIAL_WINDOW_SIZE makes a window too large")
                stream.window_opened()
        elif name == wire.MAX_FRAME_SIZE:
            if not wire.LEAST_FRAME <= value < 1 << 24:
                raise Fault(Reason.PROTOCOL_ERROR, b"MAX_FRAME_SIZE is invalid")
            self.frame_size = value
        elif name == wire.ENABLE_PUSH and value > 1:
            raise Fault(Reason.PROTOCOL_ERROR, b"ENABLE_PUSH is invalid")

    def _push_promise(self, flags: int, stream: int, payload: bytes) -> None:
        raise Fault(Reason.PROTOCOL_ERROR, b"a client cannot push")

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Fault(Reason.PROTOCOL_ERROR, b"a ping of a stream")
        if len(payload) != 8:
            raise Fault(Reason.FRAME_SIZE_ERROR, b"a ping has eight bytes")
        if flags & wire.ACK:
            self.spend()
            self._owner.acknowledged(payload)
        elif self.pings.allows(self._seconds(), bool(self.streams)):
            self.out.append(wire.frame(wire.PING, wire.ACK, 0, payload))
        else:
            raise Fault(Reason.ENHANCE_YOUR_CALM, b"too_many_pings")

    def _go_away(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Fault(Reason.PROTOCOL_ERROR, b"GOAWAY of a stream")
        if len(payload) < 8:
            raise Fault(Reason.FRAME_SIZE_ERROR, b"GOAWAY is too short")
        self.spend()
        self._owner.client_leaves()

    def _window_update(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Fault(Reason.FRAME_SIZE_ERROR, b"WINDOW_UPDATE has four bytes")
        size = int.from_bytes(payload, "big") & MOST
        if not stream:
            self.send_window += size
            if not size or self.send_window > MOST:
                raise Fault(
                    Reason.FLOW_CONTROL_ERROR if size else Reason.PROTOCOL_ERROR, b"WINDOW_UPDATE is out of range"
                )
            self._owner.window_opened()
            return
        if stream > self.last:
            raise Fault(Reason.PROTOCOL_ERROR, b"WINDOW_UPDATE without a stream")
        target = self.streams.get(stream)
        if target is None:
            return
        target.send_window += size
        if not size or target.send_window > MOST:
            self._refuse(target, Reason.FLOW_CONTROL_ERROR if size else Reason.PROTOCOL_ERROR)
        else:
            target.window_opened()
