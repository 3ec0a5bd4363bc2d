# SPDX-License-Identifier: Apache-2.0
"""
Read the usual predictions of one client in a front, and write the responses.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as Connection
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.eventloop.writing import write_joined
from twisted_serve.web.http.heads import whole_head
from twisted_serve.web.http.usual_heads import UsualHead
from twisted_serve.wire.fronts import Terms

# In bytes. Of a client that sends more while it waits for a response, no more is read.
_MOST_KEPT: Final = 1 << 16

# A body that has not come whole in so many reads, or in about so many seconds, is one for the server.
_MOST_READS: Final = 16
_LONGEST_WAIT: Final = 1.0


class KnownHead:
    """
    A head that a front has recognized.

    :ivar number: Its number at the server, if it is allowed.
    :ivar generation: The generation of heads in which the server keeps it; 0 for none.
    """

    __slots__ = ("generation", "head", "number")

    def __init__(self, head: UsualHead, number: int) -> None:
        self.head = head
        self.number = number
        self.generation = 0


class ConnectionOwner(Protocol):
    """
    What a connection needs of its front.

    :ivar limits: The limits of connections.
    """

    limits: Terms

    def seconds(self) -> float:
        """Return the time of a steady clock."""

    def date(self) -> bytes:
        """Return the value of the ``Date`` header."""

    def recognize(self, head: bytes) -> KnownHead | None:
        """Return what is known of a head; ``None`` for that of another kind of request."""

    def ask(self, connection: FrontConnection, known: KnownHead, digits: bytes, body: bytes, waited: float) -> int:
        """
        Pass a request on to the server, that many seconds after its first byte.

        :return: The generation of heads in which the server keeps this one, as soon as it has answered.
        """

    def answered(self, known: KnownHead, generation: int) -> KnownHead:
        """
        Remember the head of a request that was allowed.

        :param generation: What `ask` has returned for the request.
        :return: What is known of the head from now on.
        """

    def give_back(self, connection: FrontConnection) -> None:
        """Return the connection to the server, with what it has kept."""

    def lost(self, connection: FrontConnection) -> None:
        """Forget a connection that is closed."""


@implementer(IPushProducer)
class FrontConnection(Connection):
    """
    The connection of one client in a front.

    :ivar number: Its number at the server.
    :ivar kept: What the client has sent that is not part of an asked request.
    :ivar leaving: Whether the connection is being returned to the server.
    :ivar delayed: Whether the server knows that the client has to read a response before.
    """

    transport: Any

    def __init__(self, owner: ConnectionOwner, number: int) -> None:
        self.number = number
        self.kept = b""
        self.leaving = False
        self.delayed = False
        self._owner = owner
        # The head of the request that is at the server, and the last one that was recognized here.
        self._asked: KnownHead | None = None
        self._generation = 0
        self._recognized: KnownHead | None = None
        self._reads = 0
        # Since when the client is awaited, with a request, the rest of one, or to read a response.
        self._since = owner.seconds()
        self._stalled = False

    def connectionMade(self) -> None:
        """Be told when the client does not read."""
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Pass a complete request on; keep a part of one, and what comes during another."""
        if self.kept:
            data = self.kept + data
            self.kept = b""
        if self._asked is None and not self.leaving:
            self._read(data)
        else:
            self.kept = data
            if len(data) > _MOST_KEPT:
                self.transport.pauseProducing()

    def _read(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.leave(data)
            return
        head = data[:end]
        known = self._recognized
        digits = None if known is None else known.head.digits_of(head)
        if known is None or digits is None:
            known = self._owner.recognize(head)
            digits = None if known is None else known.head.digits_of(head)
            if known is None or digits is None:
                self.leave(data)
                return
        body = data[end + 4 :]
        length = int(digits)
        if len(body) == length <= self._owner.limits.body:
            waited = self.waited()
            self._asked, self._reads = known, 0
            self._generation = self._owner.ask(self, known, digits, body, waited)
        elif len(body) < length <= self._owner.limits.body:
            self._wait_or_leave(data)
        else:
            self.leave(data)

    def waited(self) -> float:
        """Return the seconds since the first byte of a request that has not come whole; 0 for another."""
        return self._owner.seconds() - self._since if self._reads else 0.0

    def _wait_or_leave(self, data: bytes) -> None:
        self._reads += 1
        if self._reads == 1:
            self._since = self._owner.seconds()
        if self._reads > _MOST_READS or len(data) > 2 * _MOST_KEPT:
            self.leave(data)
        else:
            self.kept = data

    def answer(self, answer_id: str, lines: bytes, body: bytes) -> None:
        """Send the response to the request at the server, and go on with what has come meanwhile."""
        known, self._asked = self._asked, None
        if known is None:
            return
        self._recognized = self._owner.answered(known, self._generation)
        self._since = self._owner.seconds()
        head = whole_head(self._owner.date(), answer_id, lines, len(body))
        write_joined(self.transport, head, body)
        if self.kept and not self.leaving:
            data, self.kept = self.kept, b""
            if not self._stalled:
                self.transport.resumeProducing()
            self._read(data)

    def leave(self, data: bytes = b"") -> None:
        """Return the connection to the server, with what it has kept and ``data``."""
        if not self.leaving:
            self.leaving = True
            self.kept += data
            self.transport.pauseProducing()
            self._owner.give_back(self)

    def look(self, now: float) -> None:
        """End the connection if its client has been awaited for too long; return it if the rest of a request is."""
        limits, waited = self._owner.limits, now - self._since
        if self._stalled or self.leaving:
            if waited > limits.body_timeout:
                self.transport.abortConnection()
            elif self.leaving:
                self._owner.give_back(self)
        elif self._asked is not None:
            # Its time is not the client's.
            pass
        elif self.kept:
            if waited > _LONGEST_WAIT:
                self.leave()
        elif waited > limits.keepalive_timeout:
            self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """Read no more from a client that does not read; see `IPushProducer`."""
        self._stalled = True
        self._since = self._owner.seconds()
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on, as the client has read its responses; see `IPushProducer`."""
        self._stalled = False
        self._since = self._owner.seconds()
        if self.leaving:
            self._owner.give_back(self)
        else:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: the connection is being closed; see `IProducer`."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        self._owner.lost(self)
