# SPDX-License-Identifier: Apache-2.0
"""
Run one call: ask the door, answer, end exactly once.

A call begins with its headers.  It is *over* when its status is decided, which cancels what is still at work for the
call, and has *ended* when the status was sent or cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure

from twisted_serve.errors import ServeError
from twisted_serve.metrics.timing import Timing
from twisted_serve.planes.request_ids import fresh_id, with_suffix
from twisted_serve.planes.senders import Sender
from twisted_serve.rpc.contracts import Admitted, Conversation, End, Kind, Method
from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.fields import has_more_fields
from twisted_serve.rpc.engine.heads import Head
from twisted_serve.rpc.engine.incoming import Incoming
from twisted_serve.rpc.engine.interfaces import CallConnection
from twisted_serve.rpc.engine.outgoing import Outgoing
from twisted_serve.rpc.engine.trailers import HTTP_TEXTS, headers, http_headers, trailers
from twisted_serve.rpc.engine.wire import Reason
from twisted_serve.rpc.frames import ACCEPTED
from twisted_serve.rpc.statuses import OK, Code, Status, status_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

_GOING_AWAY = Status(Code.UNAVAILABLE, "The server closes the connection.")
_NO_MESSAGE = Status(Code.UNIMPLEMENTED, "The method takes one message, and none was sent.")
_MORE_MESSAGES = Status(Code.UNIMPLEMENTED, "The method takes one message, and more were sent.")
_TOO_SLOW = Status(Code.DEADLINE_EXCEEDED, "The request did not arrive in time.")


class RunningCall:
    """
    A call in progress; implements `Call`, `ConversationCall` and the session's `Stream`.

    :param stream: The id of its HTTP/2 stream.
    :param ended: Whether the client sends no data.
    """

    principal: str | None = None
    sender: Sender | None = None
    _go_on: Callable[[bool], Status | None] | None = None
    _method: Method | None = None
    _refused = _over = _ended = False
    # Whether a stream has had no message yet.
    _first = True
    # The Deferred at work for the call: the door's, then the answer.
    _work: Deferred[Any] | None = None
    _conversation: Conversation | None = None
    _request: bytes | None = None
    _status: Status | None = None

    def __init__(self, connection: CallConnection, stream: int, head: Head, ended: bool) -> None:
        self._connection, self._stream, self._head = connection, stream, head
        self.metadata: Sequence[tuple[bytes, bytes]] = head.metadata
        self.peer = connection.peer
        self.began = now = self._now()
        self.deadline = None if head.timeout is None else now + head.timeout
        self.timing = Timing(now)
        if head.client_id is None:
            self.request_id = self.job_id = fresh_id()
        else:
            self.request_id, self.job_id = head.client_id, with_suffix(head.client_id)
        self._in = Incoming(self, connection, stream, head.coding, ended)
        self._out = Outgoing(connection, stream, headers(self.request_id))

    # The door

    def start(self) -> None:
        """Ask the door."""
        if self.deadline is not None:
            self._connection.watch(self.deadline)
        if not self._in.ended:
            self._in.expect(self.began)
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
        if decision.sender is not None:
            self.sender, self._go_on = decision.sender, decision.go_on
        if decision.known:
            self._connection.known = True
        method = self._method = self._connection.factory.methods.get(self._head.path)
        if method is None:
            self._end(Status(Code.UNIMPLEMENTED, f"Method not found: {self._head.path[:200].decode('latin-1')}"))
        elif self._head.flaw is not None:
            self.flawed(self._head.flaw)
        elif self.deadline is not None and self.deadline <= self._now():
            self._end(self._too_late())
        else:
            if method.kind is Kind.BIDIRECTIONAL:
                try:
                    self._conversation = cast("Conversation", method.answer(self))
                except Exception:
                    self._fail(Failure())
                    return
            self._in.open(self._conversation is not None, method.most)

    # The client's side

    @property
    def half_closed(self) -> bool:
        """Whether the client has ended its side."""
        return self._in.ended

    @property
    def receive_window(self) -> int:
        """The bytes that the client may send."""
        return self._in.window

    @receive_window.setter
    def receive_window(self, size: int) -> None:
        self._in.window = size

    def data(self, data: bytes | memoryview, ended: bool) -> None:
        """Take data, the last if ``ended``."""
        self._in.data(data, ended)

    def message(self, message: bytes) -> None:
        """Take a message."""
        if self._conversation is not None:
            parsed = self._parsed(message) if self._sender_goes_on() else None
            if parsed is not None:
                try:
                    self._conversation.received(parsed)
                except Exception:
                    self._fail(Failure())
        elif self._request is None:
            self._request = message
        else:
            self._end(_MORE_MESSAGES)

    def _sender_goes_on(self) -> bool:
        """Return whether the sender may send another message; end the call if not."""
        if self._go_on is None:
            return True
        refusal = self._go_on(self._first)
        self._first = False
        if refusal is not None:
            self._end(refusal)
        return refusal is None

    def complete(self) -> None:
        """Answer: no message follows."""
        if self._conversation is not None:
            try:
                self._conversation.half_closed()
            except Exception:
                self._fail(Failure())
        elif self._request is None:
            self._end(_NO_MESSAGE)
        else:
            message, self._request = self._parsed(self._request), None
            if message is not None:
                self._answer(message)

    def flawed(self, error: ServeError) -> None:
        """End the call for what the client has sent."""
        status = status_of(error)
        if status.code is Code.UNIMPLEMENTED:
            status = Status(status.code, status.message, ((b"grpc-accept-encoding", ACCEPTED),))
        self._end(status)

    def _parsed(self, message: bytes) -> Message | None:
        """Return a message, or end the call if the bytes are none."""
        method = cast("Method", self._method)
        if method.most_fields is not None and has_more_fields(message, method.most_fields):
            self._end(Status(Code.INVALID_ARGUMENT, f"The message has more than {method.most_fields} fields."))
            return None
        try:
            return method.request.FromString(message)
        except Exception:
            # protobuf's implementations raise errors of different classes.
            name = method.request.DESCRIPTOR.full_name
            self._end(Status(Code.INTERNAL, f"The {len(message)} bytes of the message are no {name}."))
            return None

    def pause_messages(self) -> None:
        """Deliver no further message, and let flow control hold the client back."""
        self._in.pause()

    def resume_messages(self) -> None:
        """Deliver messages again."""
        self._in.resume()

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
        work.addCallback(self._answered).addErrback(self._failed)

    def _answered(self, result: Message | None) -> None:
        if not self._over:
            self._work = None
            if result is not None:
                self._out.send(result.SerializeToString())
            self._end(OK)

    def _failed(self, failure: Failure) -> None:
        # Nothing follows from the failure of what was cancelled.
        if not self._over:
            self._work = None
            self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        error = self.error_of(failure)
        self._end(status_of(error) if self._method is None else self._method.status_of(error))

    def error_of(self, failure: Failure) -> ServeError:
        """Return the error to show to the client; log a failure that is not in the error tree."""
        return self._connection.factory.error_of(failure)

    def send(self, message: Message) -> None:
        """Send one message of a stream; nothing happens if the call is over."""
        if self._over:
            return
        self._out.send(message.SerializeToString())
        if self._out.size > self._connection.factory.limits.unsent:
            self._abort(Reason.ENHANCE_YOUR_CALM, Code.RESOURCE_EXHAUSTED)
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

    # Back-pressure

    @property
    def send_window(self) -> int:
        """The bytes that the client takes."""
        return self._out.window

    @send_window.setter
    def send_window(self, size: int) -> None:
        self._out.window = size

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Pause the producer of the messages while the client does not read."""
        if self._over:
            producer.stopProducing()
        else:
            self._out.register(producer)

    def unregisterProducer(self) -> None:
        """Stop pausing the producer."""
        self._out.register(None)

    def window_opened(self) -> None:
        """Go on sending."""
        if self._out.size:
            self._out.pump()
            if self._over:
                self._end_if_sent()
            self._out.pace()
            self._connection.flush_soon()

    def pace(self) -> None:
        """Pause or resume the producer."""
        self._out.pace()

    # Alarms

    def check(self, now: float) -> float | None:
        """Act on the alarms that are due; return the time of the next."""
        if self.deadline is not None and self.deadline <= now:
            self._end_early(self._too_late())
        elif self._out.due is not None and self._out.due <= now:
            self._abort(Reason.CANCEL, Code.CANCELLED)
        elif self._in.due is not None and self._in.due <= now:
            self._end(_TOO_SLOW)
        if self._ended:
            return None
        return min((due for due in (self.deadline, self._out.due, self._in.due) if due is not None), default=None)

    def _too_late(self) -> Status:
        text = f"The call was not answered within the {self._head.timeout:g} s of its grpc-timeout."
        return Status(Code.DEADLINE_EXCEEDED, text)

    # The end

    def _end(self, status: Status) -> None:
        """Decide the status; it is sent after the messages."""
        if not self._over:
            self._stop_work()
            self._status = status
            self._end_if_sent()
            self._connection.flush_soon()

    def _end_if_sent(self) -> None:
        if self._status is not None and not self._out.size:
            self._out.end(trailers(self._status))
            self._finish(self._status.code, True)

    def _end_http(self, status: int) -> None:
        """Answer what is no call of gRPC."""
        self._stop_work()
        text, session = HTTP_TEXTS[status], self._connection.session
        has_room = len(text) <= min(self._out.window, session.send_window)
        self._connection.send_headers(self._stream, http_headers(status), not has_room)
        if has_room:
            session.send_window -= len(text)
            session.out.append(wire.frame(wire.DATA, wire.END_STREAM, self._stream, text))
        # As gRPC's clients read these statuses.
        self._finish(Code.UNKNOWN, True)

    def _end_early(self, status: Status) -> None:
        """End the call without the messages that are queued."""
        if self._over or self._out.within_message:
            self._abort(Reason.CANCEL, status.code)
        else:
            self._out.drop()
            self._end(status)

    def go_away(self) -> None:
        """End the call because the connection has to end."""
        self._end_early(_GOING_AWAY)

    def fault(self, reason: Reason) -> None:
        """Reset the stream for an error of the client."""
        self._abort(reason, Code.INTERNAL)

    def _abort(self, reason: Reason, code: Code) -> None:
        """Reset the stream, whatever of it is still to be sent."""
        if not self._ended:
            self._connection.session.out.append(wire.reset(self._stream, reason))
            self._cut(code)
            self._connection.flush_soon()

    def was_reset(self) -> None:
        """Stop: the client has reset the stream, or is gone."""
        if not self._ended:
            self._cut(Code.CANCELLED)

    def _cut(self, code: Code) -> None:
        # The stream has ended on both sides.
        self._in.ended = True
        self._stop_work()
        self._out.drop()
        self._finish(code, False)

    def _stop_work(self) -> None:
        """Make the call be over: cancel what is at work for it."""
        self._over = True
        self._in.stop()
        self._request = None
        work, self._work = self._work, None
        conversation, self._conversation = self._conversation, None
        self._out.register(None)
        if work is not None:
            work.cancel()
        if conversation is not None:
            try:
                conversation.cancelled()
            except Exception:
                # Logged; the call ends anyway.
                self.error_of(Failure())

    def _finish(self, code: Code, whole: bool) -> None:
        self._ended = True
        if self.sender is not None:
            self.sender.leave()
        self._connection.ended(self._stream, self._in)
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
