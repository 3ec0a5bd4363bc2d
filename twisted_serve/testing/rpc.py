# SPDX-License-Identifier: Apache-2.0
"""
Call a gRPC listener in memory and in virtual time.

The client speaks HTTP/2 by ``h2``, whose implementation is another than the server's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransportWithDisconnection

from twisted_serve.rpc.frames import MessageReader, framed, inflated
from twisted_serve.rpc.metadata import decoded_text

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["MemoryRpcCall", "MemoryRpcConnection"]

# The largest message that the client takes.
_LIMIT = 1 << 30

# Bytes of the head of a frame, and the type of one.
_HEAD = 9
_GOAWAY = 7

Fields = Iterable[tuple[str, str]]


def _timeout_value(seconds: float) -> str:
    """Return the value of ``grpc-timeout``, rounded to microseconds, or to milliseconds if there are too many."""
    micros = round(seconds * 1e6)
    return f"{micros}u" if micros < 10**8 else f"{min(round(seconds * 1e3), 10**8 - 1)}m"


class MemoryRpcCall:
    """
    A call, as its client sees it.

    :ivar stream: The id of its HTTP/2 stream.
    :ivar messages: The bytes of the messages so far.
    :ivar http_status: The HTTP status, ``None`` before the headers.
    :ivar code: The status code as a number, ``None`` while there is none.
    :ivar text: The text of the status.
    :ivar headers: The metadata before the messages, by name.
    :ivar trailers: The metadata after the messages, by name; that of the headers if there are no messages.
    :ivar reset: The code with which the server has reset the stream, if it has.
    :ivar ended: Whether the server has ended its side.
    :ivar unread: Received bytes for which the server may not send others yet.
    :ivar unsent: Bytes for which the server's windows have no room yet.
    """

    def __init__(self, connection: MemoryRpcConnection, stream: int) -> None:
        self._connection = connection
        self.stream = stream
        self.messages: list[bytes] = []
        self.http_status: int | None = None
        self.code: int | None = None
        self.text = ""
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.reset: int | None = None
        self.ended = False
        self.unread = 0
        self.unsent = b""
        self._ends = False
        self._reader = MessageReader(_LIMIT)

    @property
    def over(self) -> bool:
        """Whether nothing more comes from the server."""
        return self.ended or self.reset is not None

    def parsed(self, kind: type[Message]) -> list[Any]:
        """Return the messages as instances of a class."""
        return [kind.FromString(message) for message in self.messages]

    def send(self, message: Message | bytes, end: bool = False) -> None:
        """Send a message, and the end of the client's side if ``end``; the windows must allow it."""
        plain = message if isinstance(message, bytes) else message.SerializeToString()
        self.send_data(framed(plain), end)

    def send_data(self, data: bytes, end: bool = False) -> None:
        """Send bytes as they are, as far as the windows allow; the rest is ``unsent`` until they do."""
        self.unsent += data
        self._ends = self._ends or end
        self.push()

    def half_close(self) -> None:
        """End the client's side, after what is unsent."""
        self.send_data(b"", end=True)

    def push(self) -> None:
        """Send what the windows allow now, in frames as large as the server takes."""
        http2 = self._connection.http2
        while self.unsent and not self.over:
            room = min(http2.local_flow_control_window(self.stream), http2.max_outbound_frame_size)
            if not room:
                return
            part, self.unsent = self.unsent[:room], self.unsent[room:]
            http2.send_data(self.stream, part)
            self._connection.flush()
        if self._ends and not self.over:
            self._ends = False
            http2.end_stream(self.stream)
            self._connection.flush()

    def cancel(self, reason: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Reset the stream."""
        self._connection.http2.reset_stream(self.stream, reason)
        self._connection.flush()

    def read(self) -> None:
        """Let the server send as many bytes as have been received; needed only without ``reading``."""
        unread, self.unread = self.unread, 0
        if unread:
            self._connection.http2.acknowledge_received_data(unread, self.stream)
            self._connection.flush()

    def take(self, event: Event) -> None:
        """Take an event of the stream."""
        if isinstance(event, ResponseReceived):
            self.headers = _texts(event.headers)
            self.http_status = int(self.headers.pop(":status"))
            if "grpc-status" in self.headers:
                self._end(self.headers)
        elif isinstance(event, TrailersReceived):
            self._end(_texts(event.headers))
        elif isinstance(event, DataReceived):
            self.unread += event.flow_controlled_length or 0
            if self.http_status == 200:
                for compressed, message in self._reader.feed(event.data or b""):
                    self.messages.append(inflated(message, b"gzip", _LIMIT) if compressed else message)
            if self._connection.reading:
                self.read()
        elif isinstance(event, StreamEnded):
            self.ended = True
        elif isinstance(event, StreamReset):
            self.reset = int(event.error_code)

    def _end(self, trailers: dict[str, str]) -> None:
        self.trailers = trailers
        self.code = int(trailers["grpc-status"])
        self.text = decoded_text(trailers.get("grpc-message", "").encode("ascii"))


def _texts(headers: Any) -> dict[str, str]:
    return {name.decode("ascii"): value.decode("latin-1") for name, value in headers}


class MemoryRpcConnection:
    """
    A client's connection to a gRPC listener.

    :ivar http2: The client's side of HTTP/2; `flush` sends what it has prepared.
    :ivar calls: The calls by the ids of their streams.
    :ivar going: The pairs of last stream and code of each GOAWAY of the server.
    :ivar reading: Whether the client lets the server send more as soon as it has received anything.
    :ivar received: All bytes from the server.
    :param factory: The listener's; see `twisted_serve.rpc.engine.GrpcFactory`.
    :param turn: Called after bytes were sent to the server, to run what it does in the next turn of its reactor.
    :param settings: The client's settings, by number.
    :param split: Deliver each byte alone.
    :param greet: Whether the client begins as HTTP/2 demands.
    """

    def __init__(
        self,
        factory: Any,
        turn: Callable[[], object] = lambda: None,
        settings: dict[int, int] | None = None,
        peer: IAddress | None = None,
        split: bool = False,
        greet: bool = True,
    ) -> None:
        self.http2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        if settings:
            self.http2.local_settings.update(settings)
            self.http2.local_settings.acknowledge()
        self.calls: dict[int, MemoryRpcCall] = {}
        self.going: list[tuple[int, int]] = []
        self.reading = True
        self.received = b""
        self._turn = turn
        self._split = split
        self._waiting = self._buffer = b""
        self._greeted = greet
        peer = peer or IPv4Address("TCP", "127.0.0.1", 31337)
        self.transport = StringTransportWithDisconnection(peerAddress=peer)
        self.protocol = factory.buildProtocol(peer)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        if greet:
            self.http2.initiate_connection()
            self.flush()

    @property
    def open(self) -> bool:
        """Whether the server has kept the connection open."""
        return bool(self.transport.connected and not self.transport.disconnecting)

    def call(
        self,
        path: str,
        message: Message | bytes,
        key: str | None = None,
        timeout: float | None = None,
        metadata: Fields = (),
    ) -> MemoryRpcCall:
        """Send the only message of a call, and return the call with what has come back already."""
        call = self.begin(path, key, timeout, metadata)
        if not call.over:
            call.send(message, end=True)
        return call

    def begin(
        self,
        path: str,
        key: str | None = None,
        timeout: float | None = None,
        metadata: Fields = (),
        end: bool = False,
        **pseudo: str,
    ) -> MemoryRpcCall:
        """
        Send the headers of a call.

        :param key: For the ``authorization``.
        :param timeout: Seconds for the answer.
        :param end: Whether no message follows.
        :param pseudo: Other values of the fields whose names begin with a colon.
        """
        fields = [
            (":method", pseudo.get("method", "POST")),
            (":scheme", pseudo.get("scheme", "http")),
            (":path", path),
            (":authority", pseudo.get("authority", "localhost")),
            ("te", "trailers"),
            ("content-type", pseudo.get("content_type", "application/grpc")),
        ]
        if key is not None:
            fields.append(("authorization", f"Bearer {key}"))
        if timeout is not None:
            fields.append(("grpc-timeout", _timeout_value(timeout)))
        stream = self.http2.get_next_available_stream_id()
        call = self.calls[stream] = MemoryRpcCall(self, stream)
        self.http2.send_headers(stream, [*fields, *metadata], end_stream=end)
        self.flush()
        return call

    def flush(self) -> None:
        """Send what ``http2`` has prepared, and take what comes back."""
        self.send_raw(self.http2.data_to_send())

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, buffered while the server does not read, and take what comes back."""
        self._waiting += data
        while self._waiting and self.open and self.transport.producerState == "producing":
            size = 1 if self._split else len(self._waiting)
            data, self._waiting = self._waiting[:size], self._waiting[size:]
            self.protocol.dataReceived(data)
            self._turn()
        self.pump()

    def pump(self) -> None:
        """Take what has come from the server, and answer to settings, pings and data."""
        while True:
            data = self.transport.value()
            self.transport.clear()
            if not data:
                return
            self.received += data
            self._buffer += data
            while len(self._buffer) >= _HEAD:
                size = _HEAD + int.from_bytes(self._buffer[:3], "big")
                if len(self._buffer) < size:
                    break
                frame, self._buffer = self._buffer[:size], self._buffer[size:]
                self._take_frame(frame)
            if self._greeted:
                self.flush()
            for call in list(self.calls.values()):
                call.push()

    def _take_frame(self, frame: bytes) -> None:
        if frame[3] == _GOAWAY:
            # After this frame h2 would read no other, but calls go on.
            self.going.append((int.from_bytes(frame[9:13], "big"), int.from_bytes(frame[13:17], "big")))
            return
        for event in self.http2.receive_data(frame):
            self._take(event)

    def _take(self, event: Event) -> None:
        call = self.calls.get(getattr(event, "stream_id", None) or 0)
        if call is not None:
            call.take(event)

    def stop_reading(self) -> None:
        """Stop reading, as if all buffers between server and client were full."""
        self.protocol.pauseProducing()

    def read_on(self) -> None:
        """Resume reading."""
        self.protocol.resumeProducing()
        self.send_raw(b"")

    def leave(self) -> None:
        """Close the connection from the client's side."""
        if self.transport.connected:
            self.transport.loseConnection()
