# SPDX-License-Identifier: Apache-2.0
"""
Exchange messages with one front, at the server's end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection
from typing import Any, Protocol

import msgspec
from attrs import define, field
from twisted.internet.interfaces import IAddress
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_serve.eventloop.descriptors import DescriptorSocket
from twisted_serve.eventloop.timeout import Timeout
from twisted_serve.eventloop.turn_end import TurnEnd
from twisted_serve.eventloop.writing import write_now
from twisted_serve.fronts.requests import DistantRequest
from twisted_serve.interfaces import IServeReactor
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.routes.fast_lane import Lane, Prediction, allowed_by
from twisted_serve.wire.codec import encode
from twisted_serve.wire.fronts import (
    Answer,
    Ask,
    AskAnew,
    Back,
    Closed,
    Delayed,
    Finish,
    Forget,
    FromFront,
    Returned,
    Started,
    Terms,
    server_front_reader,
)
from twisted_serve.workers.process.framing import FrameProtocol

_log = Logger("twisted_serve.fronts")

#: Seconds in which a front must return a connection that is called back, or say that its client has to read a response
#: before. A front that does not is replaced.
RETURN_LIMIT = 5.0
# Seconds between two looks at whether a front has said anything, and how many in succession may find that it has not.
_LOOK = 1.0
#: A front that says nothing for longer is replaced. Looks are counted, not seconds: this process may have been stopped.
SILENT_LOOKS = 6

# In place of a descriptor that this process could not receive.
_LOST = -1


@define(eq=False)
class Absent:
    """
    A connection that a front has.

    :ivar number: Identifies the connection; never reused.
    :ivar lane: The fast lane of its site.
    :ivar address: The host and port of the client; ``None`` for a UNIX socket.
    :ivar patience: How many usual requests in succession showed that it is one for a front.
    :ivar request: The request that is not answered, if there is one.
    :ivar unread: A request that is to be read again when the connection is back; ``b""`` for none.
    :ivar called_back: Whether the front has been told to return it.
    :ivar moving: Whether it was called back for another front.
    :ivar delayed: Whether its return takes as long as its client, which has to read a response.
    :ivar head_number: The number by which the head of the request is to be kept; 0 for none.
    :ivar descriptor: Its descriptor, as soon as that is back.
    :ivar returned: What else the client has sent, as soon as the front has said so.
    :ivar waited: Seconds since the first byte of what is to be read.
    """

    number: int
    link: FrontLink
    site: ServeSite
    lane: Lane
    host: IAddress
    peer: IAddress
    address: tuple[str, int] | None
    peer_host: str
    patience: int
    request: DistantRequest | None = None
    head_number: int = 0
    unread: bytes = field(default=b"", repr=False)
    called_back: bool = False
    moving: bool = False
    delayed: bool = False
    descriptor: int | None = None
    returned: bytes | None = field(default=None, repr=False)
    waited: float = 0.0

    def answer(self, answer_id: str, lines: bytes, body: bytes) -> bool:
        """Send the response to the front; return ``False`` if the front is returning the connection."""
        if self.called_back or not self.link.is_open:
            return False
        request, self.request = self.request, None
        if self.head_number and request is not None:
            self.link.keep(self.head_number, request.prediction)
        self.link.say(Answer(self.number, answer_id, lines, body))
        return True

    def call_back(self) -> None:
        """Have the front return the connection, unless it is doing so."""
        if not self.called_back:
            self.called_back = True
            self.link.say(Back(self.number))
            self.link.expect_returns((self,))


class LinkOwner(Protocol):
    """The receiver of a front's events."""

    def front_started(self, link: FrontLink) -> None:
        """Handle that the front can take connections now."""

    def connection_back(self, absent: Absent, descriptor: int, data: bytes) -> None:
        """Handle a connection that the front has returned, and what its client has sent."""

    def connection_lost(self, absent: Absent) -> None:
        """Handle a connection that is closed."""

    def front_lost(self, link: FrontLink, why: str) -> None:
        """Handle the end of the front, which has closed its connections; they have been told."""


class FrontLink(FrameProtocol[FromFront]):
    """
    The server's end of the messages with one front. Closing it ends the front.

    :ivar connections: The connections that the front has, by their numbers.
    :param descriptors: The socket over which connections go and come.
    :param kill: Ends the process of the front.
    :param works: Called when the front has started.
    """

    def __init__(
        self,
        owner: LinkOwner,
        reactor: IServeReactor,
        descriptors: socket.socket,
        terms: Terms,
        kill: Callable[[], object],
        works: Callable[[], object],
    ) -> None:
        super().__init__(server_front_reader())
        self.connections: dict[int, Absent] = {}
        self.kill = kill
        self._works = works
        self._owner = owner
        self._reactor = reactor
        self._terms = terms
        self._heads: dict[int, Prediction] = {}
        self._frames: list[bytes] = []
        self._flushing = TurnEnd(reactor, self._flush)
        # The connections that are called back, and until when the next one has to come.
        self._awaited: set[Absent] = set()
        self._return_limit = Timeout(reactor, self._too_slow)
        self._silent_looks = 0
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._descriptors = DescriptorSocket(reactor, descriptors, self._descriptor_back)

    def connectionMade(self) -> None:
        """Tell the front the limits of its connections."""
        self.say(self._terms)
        self._looking.start(_LOOK, now=False)

    def dataReceived(self, data: bytes) -> None:
        """Handle what the front says, which shows that it runs."""
        self._silent_looks = 0
        super().dataReceived(data)

    def send(self, absent: Absent, transport: Any) -> bool:
        """Pass the connection of a transport to the front; return whether the front takes it."""
        if not self._descriptors.send(absent.number, transport.fileno()):
            return False
        self.connections[absent.number] = absent
        return True

    def finish(self) -> None:
        """Have the front return all its connections."""
        called = [absent for absent in self.connections.values() if not absent.called_back]
        for absent in called:
            absent.called_back = True
        self.say(Finish())
        self.expect_returns(called)

    def say(self, message: msgspec.Struct) -> None:
        """Send a message; all messages of one reactor turn share one write."""
        if self.is_open:
            self._frames.append(encode(message))
            self._flushing.ask()

    def keep(self, number: int, prediction: Prediction) -> None:
        """Keep a head by the number that the front has given it."""
        self._heads[number] = prediction

    def expect_returns(self, called: Collection[Absent]) -> None:
        """Expect connections to be returned, one after the other in `RETURN_LIMIT`, unless a client takes its time."""
        awaited = [absent for absent in called if not absent.delayed]
        if awaited and not self._awaited and self.is_open:
            self._return_limit.set(self._reactor.seconds() + RETURN_LIMIT)
        self._awaited.update(awaited)

    def messageReceived(self, message: FromFront) -> None:
        """Handle a message of the front."""
        if isinstance(message, Ask):
            absent = self.connections[message.connection]
            absent.head_number = 0
            self._ask(absent, self._heads[message.head], message)
        elif isinstance(message, AskAnew):
            absent = self.connections[message.connection]
            absent.head_number = message.number
            prediction = absent.lane.recognize(message.head, absent.site.authorizer)
            if prediction is None:
                self._read_again(absent, message.head, message)
            else:
                self._ask(absent, prediction, message)
        elif isinstance(message, Returned):
            absent = self.connections[message.connection]
            absent.returned = message.data
            absent.waited += message.waited
            self._back(absent)
        elif isinstance(message, Closed):
            self._lost(self.connections[message.connection])
        elif isinstance(message, Delayed):
            absent = self.connections[message.connection]
            absent.delayed = True
            self._expected(absent)
        elif isinstance(message, Forget):
            self._heads.clear()
        elif isinstance(message, Started):
            self._works()
            self._owner.front_started(self)

    def connectionEnded(self, why: str) -> None:
        """Handle the end of the front: its connections are closed."""
        self._descriptors.close()
        self._return_limit.cancel()
        if self._looking.running:
            self._looking.stop()
        for absent in list(self.connections.values()):
            self._lost(absent)
        self._owner.front_lost(self, why)

    def _ask(self, absent: Absent, prediction: Prediction, ask: Ask | AskAnew) -> None:
        allowed = allowed_by(absent.site, prediction)
        if allowed is None:
            self._read_again(absent, prediction.head.spelled_with(ask.digits), ask)
            return
        request = DistantRequest(absent.site, absent, prediction, ask.digits, ask.body, ask.waited)
        absent.request = request
        absent.lane.submit(request, allowed, absent.peer_host)

    def _read_again(self, absent: Absent, head: bytes, ask: Ask | AskAnew) -> None:
        """Have the connection returned; its channel decides about the request, which has left no trace."""
        absent.unread = b"%s\r\n\r\n%s" % (head, ask.body)
        absent.waited = ask.waited
        absent.call_back()

    def _descriptor_back(self, number: int, descriptor: int | None) -> None:
        absent = self.connections[number]
        absent.descriptor = _LOST if descriptor is None else descriptor
        self._back(absent)

    def _back(self, absent: Absent) -> None:
        """Handle the return of a connection when both its descriptor and the message have come."""
        if absent.descriptor is None or absent.returned is None:
            return
        if absent.descriptor == _LOST:
            self._lost(absent)
            return
        self._gone(absent)
        self._owner.connection_back(absent, absent.descriptor, absent.unread + absent.returned)

    def _lost(self, absent: Absent) -> None:
        if absent.descriptor is not None and absent.descriptor != _LOST:
            # It has come back, but the front has ended before it said what else the client has sent.
            os.close(absent.descriptor)
        self._gone(absent)
        self._owner.connection_lost(absent)

    def _gone(self, absent: Absent) -> None:
        """Forget a connection, whose descriptor is closed by another or not here."""
        del self.connections[absent.number]
        self._expected(absent)

    def _expected(self, absent: Absent) -> None:
        """Note that a connection is awaited no more."""
        if absent in self._awaited:
            self._awaited.remove(absent)
            self._return_limit.set(self._reactor.seconds() + RETURN_LIMIT if self._awaited and self.is_open else None)

    def _look(self) -> None:
        self._silent_looks += 1
        if self._silent_looks > SILENT_LOOKS:
            self._silent_looks = 0
            _log.warn("A front says nothing, and is replaced.")
            self.kill()

    def _too_slow(self) -> None:
        _log.warn("A front does not return a connection, and is replaced.")
        self.kill()

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if self.is_open and frames:
            write_now(self.transport, b"".join(frames))
