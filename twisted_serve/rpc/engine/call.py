# SPDX-License-Identifier: Apache-2.0
"""
Run one call: ask the door, collect messages, answer, end exactly once.

A call begins with its headers.  Until the door has admitted the call, none of its data is read.  A call is *over* when
its status is decided, which cancels what is still at work for the call, and has *ended* when the status was sent or
cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure

from twisted_serve.errors import ServeError
from twisted_serve.metrics.timing import Timing
from twisted_serve.planes.request_ids import fresh_id, with_suffix
from twisted_serve.rpc.contracts import Admitted, Conversation, End, Kind, Method
from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.heads import Head
from twisted_serve.rpc.engine.interfaces import CallConnection
from twisted_serve.rpc.engine.outgoing import Outgoing
from twisted_serve.rpc.engine.wire import Reason
from twisted_serve.rpc.frames import ACCEPTED, MOST_AT_ONCE, MessageReader, framed, inflated
from twisted_serve.rpc.metadata import encoded_text
from twisted_serve.rpc.statuses import OK, Code, Status, status_of

if TYPE_CHECKING:
    from google.protobuf.message import Message


# The bytes in a call's queue from which on its producer pauses.
_MOST_QUEUED = 1 << 16

# The most messages of a call that are handled before other calls get a turn.
_MOST_MESSAGES_AT_ONCE = 32

_CONTENT_TYPE = wire.field(b"content-type", b"application/grpc")
_HEADERS = wire.STATUS_200 + _CONTENT_TYPE
_OK_TRAILERS = wire.field(b"grpc-status", b"0")
_TEXT = wire.field(b"content-type", b"text/plain; charset=utf-8")

_HTTP_TEXTS = {
    405: b"A call of gRPC is a POST.\n",
    415: b"A call of gRPC has the content-type application/grpc.\n",
}

_NO_MESSAGE: tuple[bool, Any] = (False, None)

_REFUSED = Status(Code.UNAVAILABLE, "The server is going away.")


class RunningCall:
    """
    A call in progress; implements `Call`, `ConversationCall` and the session's `Stream`.

    :param stream: The id of its HTTP/2 stream.
    """

    principal: str | None = None
    _method: Method | None = None
    _refused = False
    # The Deferred at work for the call: the door's, that of the inflating thread, or the answer.
    _work: Deferred[Any] | None = None
    _conversation: Conversation | None = None
    _producer: IPushProducer | None = None
    _producer_paused = False
    _headers_sent = False
    _status: Status | None = None
    _paused = False
    _half_closed_told = False
    _request: bytes | None = None

    def __init__(self, connection: CallConnection, stream: int, head: Head, ended: bool) -> None:
        self._connection = connection
        self._stream = stream
        self._head = head
        self.half_closed = ended
        factory = connection.factory
        self.receive_window = factory.limits.window
        self.metadata: Sequence[tuple[bytes, bytes]] = head.metadata
        self.peer = connection.peer
        self.began = now = factory.reactor.seconds()
        self.deadline = None if head.timeout is None else now + head.timeout
        self.timing = Timing(now)
        if head.client_id is None:
            self.request_id = self.job_id = fresh_id()
        else:
            self.request_id = head.client_id
            self.job_id = with_suffix(head.client_id)
        self._out = Outgoing(connection.session, stream)
        self._most = factory.limits.message
        self._reader = MessageReader(self._most)
        self._admitted = False
        self._over = self._ended = False
        # What has come and is not split into messages yet, and the messages that follow before it.
        self._held = bytearray()
        self._incoming: Iterator[tuple[bool, bytes]] | None = None
        # When the next message must be complete, and when the client must have taken something.
        self._receive_by: float | None = None
        self._send_by: float | None = None

    @property
    def send_window(self) -> int:
        """The bytes that the client takes."""
        return self._out.window

    @send_window.setter
    def send_window(self, size: int) -> None:
        self._out.window = size

    # The door

    def start(self) -> None:
        """Ask the door, and set the alarms."""
        if self.deadline is not None:
            self._connection.watch(self.deadline)
        if not self.half_closed:
            self._expect_message(self.began)
        if self._head.http_status != 200:
            self._end_http(self._head.http_status)
            return
        decision = self._connection.factory.door.ask(self._head.path, self._head.authorization, self.peer)
        if isinstance(decision, Deferred):
            self._work = decision
            decision.addCallbacks(self._decided, self._failed)
        else:
            self._decide(decision)

    def _decided(self, decision: Admitted | Status) -> None:
        if not self._over:
            self._work = None
            self._decide(decision)
            self._connection.flush_soon()

    def _decide(self, decision: Admitted | Status) -> None:
        if isinstance(decision, Status):
            self._refused = True
            self._end(decision)
            return
        self.principal = decision.principal
        method = self._method = self._connection.factory.methods.get(self._head.path)
        flaw = self._head.flaw
        if method is None:
            self._end(Status(Code.UNIMPLEMENTED, f"Method not found: {self._head.path[:200].decode('latin-1')}"))
        elif flaw is not None:
            status = status_of(flaw)
            if status.code is Code.UNIMPLEMENTED:
                status = Status(status.code, status.message, ((b"grpc-accept-encoding", ACCEPTED),))
            self._end(status)
        elif self.deadline is not None and self.deadline <= self._now():
            self._end(self._too_late())
        else:
            self._admit(method)

    def _admit(self, method: Method) -> None:
        self._admitted = True
        if method.most is not None:
            self._most = min(method.most, self._most)
            self._reader = MessageReader(self._most)
        if method.kind is Kind.BIDIRECTIONAL:
            try:
                self._conversation = cast("Conversation", method.answer(self))
            except Exception:
                self._fail(Failure())
                return
            # The client may begin its first message at any time.
            self._receive_by = None
        self._deliver()

    # The client's side

    def data(self, data: bytes | memoryview, ended: bool) -> None:
        """Take data, the last if ``ended``."""
        if ended:
            self.half_closed = True
            self._receive_by = None
        if self._over:
            return
        if self._admitted and self._incoming is None and not (self._held or self._is_busy):
            self._incoming = self._reader.feed(data)
            self._deliver()
        else:
            # One window at most; not split into messages, because many small ones would take more memory.
            self._held += data
            if self._admitted:
                self._deliver()

    @property
    def _is_busy(self) -> bool:
        return self._over or self._paused or self._work is not None

    def _deliver(self) -> None:
        """Hand over the messages that are complete, and then that the client is done."""
        handled = 0
        while not self._is_busy:
            if handled == _MOST_MESSAGES_AT_ONCE:
                self._connection.later(self._deliver_on)
                return
            if self._incoming is None:
                if not self._held:
                    self._caught_up()
                    return
                self._incoming = self._reader.feed(bytes(self._held))
                self._held.clear()
            try:
                compressed, message = next(self._incoming, _NO_MESSAGE)
            except ServeError as error:
                self._end(status_of(error))
                return
            if message is None:
                self._incoming = None
                continue
            handled += 1
            self._connection.grants.give_back(self)
            if self._request is not None:
                self._end(Status(Code.UNIMPLEMENTED, "The method takes one message, and more were sent."))
            elif compressed:
                self._inflate(message)
            else:
                self._parse(message)

    def _deliver_on(self) -> None:
        self._deliver()
        self._connection.flush_soon()

    def _caught_up(self) -> None:
        """Act on having handled all that has come."""
        if not self.half_closed:
            if self._conversation is not None:
                if not self._reader.is_within:
                    self._receive_by = None
                elif self._receive_by is None:
                    self._expect_message(self._now())
            self._grant()
        elif not self._half_closed_told:
            self._half_closed_told = True
            self._client_done()

    def _grant(self) -> None:
        """Let the client send the rest of its message, or the next."""
        lacking = self._reader.expected - self.receive_window
        window = self._connection.factory.limits.window
        if lacking > 0:
            if self._connection.grants.take(self, self._reader.expected):
                self._widen(lacking)
        elif self._conversation is not None and self.receive_window < window // 2:
            self._widen(window - self.receive_window)

    def granted(self) -> None:
        """Let the client send the rest of its message, for which it had to wait."""
        if not self._over:
            self._grant()
            self._connection.flush_soon()

    def _widen(self, size: int) -> None:
        self.receive_window += size
        self._connection.session.out.append(wire.window_update(self._stream, size))

    def _inflate(self, message: bytes) -> None:
        coding, limit = self._head.coding, self._most
        if coding is None:
            self._end(Status(Code.INTERNAL, "A message is compressed, but the call has no grpc-encoding."))
        elif len(message) <= MOST_AT_ONCE:
            try:
                plain = inflated(message, coding, limit)
            except ServeError as error:
                self._end(status_of(error))
            else:
                self._parse(plain)
        else:
            self._work = self._connection.factory.defer_to_thread(inflated, message, coding, limit)
            self._work.addCallbacks(self._inflated, self._not_inflated)

    def _inflated(self, message: bytes) -> None:
        if not self._over:
            self._work = None
            self._parse(message)
            self._deliver_on()

    def _not_inflated(self, failure: Failure) -> None:
        if not self._over:
            self._work = None
            self._end(status_of(self.error_of(failure)))

    def _parse(self, message: bytes) -> None:
        if self._conversation is None:
            self._request = message
            return
        parsed = self._parsed(message)
        if parsed is not None:
            try:
                self._conversation.received(parsed)
            except Exception:
                self._fail(Failure())

    def _parsed(self, message: bytes) -> Message | None:
        """Return a message, or end the call if the bytes are none."""
        method = cast("Method", self._method)
        try:
            return method.request.FromString(message)
        except Exception:
            # protobuf's implementations raise errors of different classes.
            name = method.request.DESCRIPTOR.full_name
            self._end(Status(Code.INTERNAL, f"The {len(message)} bytes of the message are no {name}."))
            return None

    def _client_done(self) -> None:
        if self._reader.is_within:
            self._end(Status(Code.INTERNAL, "The client's data ends within a message."))
        elif self._conversation is not None:
            try:
                self._conversation.half_closed()
            except Exception:
                self._fail(Failure())
        elif self._request is None:
            self._end(Status(Code.UNIMPLEMENTED, "The method takes one message, and none was sent."))
        else:
            message, self._request = self._parsed(self._request), None
            if message is not None:
                self._answer(message)

    # The answer

    def _answer(self, message: Message) -> None:
        method = cast("Method", self._method)
        self.timing.received = self._now()
        try:
            result = method.answer(self, message)
            if hasattr(result, "SerializeToString"):
                self._answered(result)
                return
            work = result if isinstance(result, Deferred) else Deferred.fromCoroutine(result)
        except Exception:
            self._failed(Failure())
            return
        self._work = work
        work.addCallbacks(self._answered, self._failed).addErrback(self._failed)
        self._connection.flush_soon()

    def _answered(self, result: Message | None) -> None:
        if self._over:
            return
        self._work = None
        if result is not None:
            self._send(result.SerializeToString())
        self._end(OK)

    def _failed(self, failure: Failure) -> None:
        # Cancelled, or of no use any longer.
        if not self._over:
            self._work = None
            self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        error = self.error_of(failure)
        self._end(self._method.status_of(error) if self._method is not None else status_of(error))

    def error_of(self, failure: Failure) -> ServeError:
        """Return the error to show to the client; log a failure that is not in the error tree."""
        error: ServeError = self._connection.factory.error_of(failure)
        return error

    def send(self, message: Message) -> None:
        """Send one message of a stream; nothing happens if the call is over."""
        if self._over:
            return
        self._send(message.SerializeToString())
        if self._out.size > self._connection.factory.limits.unsent:
            self._abort(Reason.ENHANCE_YOUR_CALM, Code.RESOURCE_EXHAUSTED)
        self.pace()
        self._connection.flush_soon()

    def finish(self) -> None:
        """End the call with the status OK, after the messages that were sent."""
        self._conversation = None
        self._end(OK)

    def fail(self, failure: Failure) -> None:
        """End the call with the status of a failure."""
        if not self._over:
            self._conversation = None
            self._fail(failure)

    def pause_messages(self) -> None:
        """Deliver no further message, and let flow control hold the client back."""
        self._paused = True

    def resume_messages(self) -> None:
        """Deliver messages again."""
        if self._paused:
            self._paused = False
            self._connection.later(self._deliver_on)

    def _send(self, message: bytes) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            self._connection.send_headers(self._stream, _HEADERS + self._id_field(), False)
        self._out.put(framed(message))
        self._watch_client()

    def _id_field(self) -> bytes:
        return wire.field(b"x-request-id", self.request_id.encode("ascii"))

    # Back-pressure

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Pause the producer of the messages while the client does not read."""
        if self._over:
            producer.stopProducing()
            return
        self._producer, self._producer_paused = producer, False
        self.pace()

    def unregisterProducer(self) -> None:
        """Stop pausing the producer."""
        self._producer = None

    def pace(self) -> None:
        """Pause or resume the producer."""
        if self._producer is None:
            return
        full = self._out.size > _MOST_QUEUED or (self._connection.session.stalled and self._out.size > 0)
        if full and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()
        elif self._producer_paused and not full and self._out.size <= _MOST_QUEUED // 2:
            self._producer_paused = False
            self._producer.resumeProducing()

    def window_opened(self) -> None:
        """Go on sending."""
        if self._out.size == 0 or self._connection.session.stalled:
            return
        if self._out.pump():
            self._send_by = None
            self._watch_client()
        self.pace()
        if self._over:
            self._end_if_sent()
        self._connection.flush_soon()

    def _watch_client(self) -> None:
        if self._out.size and self._send_by is None:
            self._send_by = self._now() + self._connection.factory.limits.body_timeout
            self._connection.watch(self._send_by)

    # Alarms

    def _expect_message(self, now: float) -> None:
        self._receive_by = now + self._connection.factory.limits.body_timeout
        self._connection.watch(self._receive_by)

    def check(self, now: float) -> float | None:
        """Act on the alarms that are due; return the time of the next."""
        if self.deadline is not None and self.deadline <= now:
            if self._over or self._out.within_message:
                self._abort(Reason.CANCEL, Code.DEADLINE_EXCEEDED)
            else:
                self._out.drop()
                self._end(self._too_late())
        elif self._send_by is not None and self._send_by <= now:
            self._abort(Reason.CANCEL, Code.CANCELLED)
        elif self._receive_by is not None and self._receive_by <= now and not self._over:
            self._end(Status(Code.DEADLINE_EXCEEDED, "The request did not arrive in time."))
        alarms = [alarm for alarm in (self.deadline, self._send_by, self._receive_by) if alarm is not None]
        return min(alarms) if alarms and not self._ended else None

    def _too_late(self) -> Status:
        return Status(
            Code.DEADLINE_EXCEEDED,
            f"The call was not answered within the {self._head.timeout:g} s of its grpc-timeout.",
        )

    # The end

    def _end(self, status: Status) -> None:
        """Decide the status; it is sent after the messages."""
        if self._over:
            return
        self._stop_work()
        self._status = status
        self._end_if_sent()
        self._connection.flush_soon()

    def _end_if_sent(self) -> None:
        if self._out.size or self._status is None or self._ended:
            return
        status = self._status
        block = _OK_TRAILERS if status is OK else _trailers(status)
        if not self._headers_sent:
            block = _HEADERS + self._id_field() + block
        self._connection.send_headers(self._stream, block, True)
        self._finish(status.code, True)

    def _end_http(self, status: int) -> None:
        """Answer what is no call of gRPC."""
        self._stop_work()
        text = _HTTP_TEXTS[status]
        self._connection.send_headers(self._stream, wire.status_field(status) + _TEXT, False)
        self._connection.session.out.append(wire.frame(wire.DATA, wire.END_STREAM, self._stream, text))
        self._finish(Code.UNIMPLEMENTED if status == 405 else Code.INTERNAL, True)

    def _abort(self, reason: Reason, code: Code) -> None:
        """Reset the stream, whatever of it is still to be sent."""
        if self._ended:
            return
        self._stop_work()
        self._out.drop()
        self._connection.session.out.append(wire.reset(self._stream, reason))
        # The reset also ends the client's side.
        self.half_closed = True
        self._finish(code, False)
        self._connection.flush_soon()

    def go_away(self) -> None:
        """End the call because the connection has to end."""
        if self._over or self._out.within_message:
            self._abort(Reason.CANCEL, Code.UNAVAILABLE)
        else:
            self._out.drop()
            self._end(_REFUSED)

    def fault(self, reason: Reason) -> None:
        """Reset the stream for an error of the client."""
        self._abort(reason, Code.INTERNAL)

    def was_reset(self) -> None:
        """Stop: the client has reset the stream, or is gone."""
        if not self._ended:
            self._stop_work()
            self._out.drop()
            self.half_closed = True
            self._finish(Code.CANCELLED, False)

    def _stop_work(self) -> None:
        """Make the call be over: cancel what is at work for it."""
        self._over = True
        self._incoming = None
        self._held.clear()
        self._request = None
        self._receive_by = None
        work, self._work = self._work, None
        conversation, self._conversation = self._conversation, None
        self._producer = None
        if work is not None:
            work.cancel()
        if conversation is not None:
            conversation.cancelled()

    def _finish(self, code: Code, whole: bool) -> None:
        self._ended = True
        self._connection.ended(self._stream, self)
        self._connection.factory.on_end(
            End(
                path=self._head.path,
                method=self._method,
                peer=self.peer,
                code=code,
                refused=self._refused,
                whole=whole,
                began=self.began,
                ended=self._now(),
                request_id=self.request_id,
                named=self._head.client_id is not None,
                principal=self.principal,
                timing=self.timing,
                metadata=self.metadata,
            )
        )

    def _now(self) -> float:
        now: float = self._connection.factory.reactor.seconds()
        return now


def _trailers(status: Status) -> bytes:
    block = wire.field(b"grpc-status", b"%d" % status.code)
    if status.message:
        block += wire.field(b"grpc-message", encoded_text(status.message))
    return block + wire.fields(status.metadata)
