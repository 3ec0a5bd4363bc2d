# SPDX-License-Identifier: Apache-2.0
"""
Define what connections, services and the door share: calls, methods, the decision about a call, its end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.python.failure import Failure

from twisted_serve.errors import ServeError
from twisted_serve.metrics.timing import Timing
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.planes.senders import Sender
from twisted_serve.rpc.statuses import Code, Status, status_of

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message


class Kind(Enum):
    """How many messages each side of a call sends."""

    UNARY = auto()
    SERVER_STREAMING = auto()
    BIDIRECTIONAL = auto()


def kind_of(descriptor: MethodDescriptor) -> Kind:
    """
    Return the kind of a method.

    :raise ValueError: Only the client sends a stream.
    """
    if descriptor.server_streaming:
        return Kind.BIDIRECTIONAL if descriptor.client_streaming else Kind.SERVER_STREAMING
    if descriptor.client_streaming:
        raise ValueError(f"{descriptor.full_name} takes a stream and answers with one message: there is no such kind")
    return Kind.UNARY


class Call(Protocol):
    """
    A call in progress, as the method that answers it sees it.

    :ivar metadata: The client's metadata in order, as sent: lower-case names, without those of HTTP/2.
    :ivar peer: The address of the client.
    :ivar began: When the headers of the call arrived, in seconds of the clock.
    :ivar deadline: When the client stops waiting, in seconds of the clock; ``None`` if the client set no timeout.
    :ivar request_id: The id that the response has, as of an HTTP request.
    :ivar job_id: The id for workers, unique even if two clients use the same request id.
    :ivar principal: The name of the sender: as an application's authorizer has named it, or of its named key.
    :ivar sender: The sender, if it has a named key; ``None`` otherwise.
    :ivar timing: The timestamps of the call.
    """

    metadata: Sequence[tuple[bytes, bytes]]
    peer: IAddress
    began: float
    deadline: float | None
    request_id: str
    job_id: str
    principal: str | None
    sender: Sender | None
    timing: Timing

    def send(self, message: Message) -> None:
        """Send one message of a stream; nothing happens if the call is over."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Pause the producer of the messages while the client does not read."""

    def unregisterProducer(self) -> None:
        """Stop pausing the producer."""

    def error_of(self, failure: Failure) -> ServeError:
        """Return the error to show to the client; log a failure that is not in the error tree."""


class ConversationCall(Call, Protocol):
    """A call in which both sides send any number of messages."""

    def finish(self) -> None:
        """End the call with the status OK, after the messages that were sent."""

    def fail(self, failure: Failure) -> None:
        """End the call with the status of a failure."""

    def pause_messages(self) -> None:
        """Deliver no further message, and let flow control hold the client back."""

    def resume_messages(self) -> None:
        """Deliver messages again."""


class Conversation(Protocol):
    """The server's side of a bidirectional call; one for each call."""

    def received(self, message: Any) -> None:
        """Take the client's next message."""

    def half_closed(self) -> None:
        """Learn that the client sends no further message."""

    def cancelled(self) -> None:
        """Stop all work: the call is over, because the client left, its deadline passed or the server stops."""


#: Answer the only message of a unary call with a message.  Cancelled if the call ends before.
AnswerUnary: TypeAlias = "Callable[[Call, Any], Message | Awaitable[Message]]"
#: Send messages in response to the only one of the client; the call ends with the result.
AnswerStream: TypeAlias = "Callable[[Call, Any], Awaitable[None]]"
#: Begin a bidirectional call.
Converse: TypeAlias = "Callable[[ConversationCall], Conversation]"
Answer: TypeAlias = "AnswerUnary | AnswerStream | Converse"


@frozen
class Method:
    """
    A method that a listener serves.

    :ivar path: ``/package.Service/Method``.
    :ivar request: The class of the client's messages.
    :ivar answer: As `kind` requires.
    :ivar status_of: Return the status of an error of this method.
    :ivar most: The bytes that a message may have, uncompressed; ``None`` for ``max_request_size``. A method without a
        key takes no more than it needs.
    :ivar most_fields: The fields that a large message may have, each entry of a map being one; ``None`` for any number.
    """

    path: str
    kind: Kind
    request: type[Message]
    answer: Any
    status_of: Callable[[ServeError], Status] = status_of
    most: int | None = None
    most_fields: int | None = None


#: The methods of a listener by path, as in the pseudo-header.
Methods: TypeAlias = Mapping[bytes, Method]


@frozen
class Admitted:
    """
    A call that may run.

    :ivar principal: The name of the sender: as an application's authorizer has named it, or of its named key.
    :ivar known: Whether the sender has shown that it may call; ``False`` for an open method.
    :ivar sender: The sender, if it has a named key; it leaves when the call ends.
    :ivar go_on: Return the status with which a stream's next message is refused, which is in the audit log then, or
        `None`; of a sender with a named key. Called with whether it is the first message.
    """

    principal: str | None = None
    known: bool = True
    sender: Sender | None = None
    go_on: Callable[[bool], Status | None] | None = None


#: Find the models that the caller of an open method may know now; ``None`` if that is none.
Known: TypeAlias = "Callable[[], InferencePlane | None]"
#: Find what the caller of an open method may know, as long as the call lasts.
KnownTo: TypeAlias = "Callable[[Call], Known]"


class Door(Protocol):
    """Decides about each call when its headers have arrived, before any message is read."""

    def ask(
        self, path: bytes, authorization: Sequence[bytes], peer: IAddress
    ) -> Admitted | Status | Deferred[Admitted | Status]:
        """
        Return `Admitted`, or the status of a refusal, which is in the audit log then.

        A Deferred is cancelled if the call ends before, and does not fail otherwise.
        """


@frozen
class End:
    """
    A call that is over, for the access log, metrics and traces.

    :ivar path: As sent by the client; may be any bytes.
    :ivar method: ``None`` for an unknown path.
    :ivar refused: Whether the door has refused the call.
    :ivar code: The code that was sent, or `CANCELLED` if the client left before.
    :ivar whole: Whether the client stayed until the end.
    :ivar named: Whether the client chose the request id.
    """

    path: bytes
    method: Method | None
    peer: IAddress
    code: Code
    refused: bool
    whole: bool
    began: float
    ended: float
    request_id: str
    named: bool
    principal: str | None
    timing: Timing
    metadata: Sequence[tuple[bytes, bytes]]
