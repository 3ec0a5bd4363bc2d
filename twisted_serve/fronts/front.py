# SPDX-License-Identifier: Apache-2.0
"""
Keep the connections of a front, and exchange messages with the server.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import msgspec
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_serve.eventloop.descriptors import DescriptorSocket
from twisted_serve.eventloop.turn_end import TurnEnd
from twisted_serve.eventloop.writing import is_idle, write_now
from twisted_serve.fronts.adoption import adopt, give_up
from twisted_serve.fronts.connection import FrontConnection, KnownHead
from twisted_serve.interfaces import IServeReactor
from twisted_serve.web.http.heads import HttpDate
from twisted_serve.web.http.usual_heads import usual_head
from twisted_serve.wire.codec import encode
from twisted_serve.wire.fronts import (
    Alive,
    Answer,
    Ask,
    AskAnew,
    Back,
    Closed,
    Delayed,
    Finish,
    Forget,
    Returned,
    Started,
    Terms,
    ToFront,
    front_reader,
)
from twisted_serve.workers.process.framing import FrameProtocol

# How many heads are remembered, and of how many bytes; they differ in keys, clients and models.
_REMEMBERED: Final = 256
_LONGEST_REMEMBERED: Final = 2048

# Seconds between two looks at the connections, and before a connection that could not be returned is again.
_LOOK: Final = 1.0
_AGAIN: Final = 0.01


_log = Logger("twisted_serve.fronts")


class Front(FrameProtocol[ToFront]):
    """
    The connections of a front, and its end of the messages.

    :ivar limits: The limits of connections; generous ones until the server has said them.
    :param descriptors: The socket over which connections come and go.
    :param ended: Called when the server has gone.
    """

    def __init__(self, reactor: IServeReactor, descriptors: socket.socket, ended: Callable[[], object]) -> None:
        super().__init__(front_reader())
        self.limits = Terms(0, 300.0, 75.0)
        self.seconds = reactor.seconds
        self.date = HttpDate(reactor.seconds)
        self._reactor = reactor
        self._ended = ended
        self._connections: dict[int, FrontConnection] = {}
        self._remembered: dict[tuple[bytes, bytes], KnownHead] = {}
        self._numbers = 0
        # The server keeps the heads of one generation, and how many those are.
        self._generation = 1
        self._kept = 0
        self._finishing = False
        self._frames: list[bytes] = []
        self._flushing = TurnEnd(reactor, self._flush)
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._descriptors = DescriptorSocket(reactor, descriptors, self._received)

    def connectionMade(self) -> None:
        """Look at the connections from now on."""
        self._looking.start(_LOOK, now=False).addErrback(lambda failure: _log.failure("A front has failed", failure))

    def messageReceived(self, message: ToFront) -> None:
        """Handle a message of the server; one about a connection that is no longer here is for nothing."""
        if isinstance(message, Answer):
            connection = self._connections.get(message.connection)
            if connection is not None:
                connection.answer(message.answer_id, message.lines, message.body)
        elif isinstance(message, Back):
            connection = self._connections.get(message.connection)
            if connection is not None:
                connection.leave()
        elif isinstance(message, Finish):
            self._finishing = True
            for connection in list(self._connections.values()):
                connection.leave()
        else:
            self.limits = message
            self._say(Started())

    def connectionEnded(self, why: str) -> None:
        """End the front: without the server it has nothing to say."""
        if self._looking.running:
            self._looking.stop()
        self._descriptors.close()
        self._ended()

    # The owner of the connections

    def recognize(self, head: bytes) -> KnownHead | None:
        """Return what is known of a head; ``None`` if it is not a usual one."""
        usual = usual_head(head)
        if usual is None:
            return None
        known = self._remembered.get(usual.key)
        if known is None:
            # A client that chooses ids has another head for each request.
            kept = usual.size <= _LONGEST_REMEMBERED and b"x-request-id" not in usual.values
            self._numbers += kept
            known = KnownHead(usual, self._numbers if kept else 0)
        return known

    def ask(self, connection: FrontConnection, known: KnownHead, digits: bytes, body: bytes, waited: float) -> int:
        """
        Pass a request on to the server, that many seconds after its first byte.

        :return: The generation of heads in which the server keeps this one, as soon as it has answered.
        """
        if known.generation == self._generation:
            self._say(Ask(connection.number, known.number, digits, body, waited))
        else:
            head = known.head.spelled_with(digits)
            self._say(AskAnew(connection.number, known.number, head, digits, body, waited))
        return self._generation

    def answered(self, known: KnownHead, generation: int) -> KnownHead:
        """
        Remember the head of a request that was allowed; clients without a key have no share in this memory.

        :param generation: What `ask` has returned for the request. In another one the server may have forgotten the
            head after it had answered.
        :return: What is known of the head from now on: another client may have sent it first.
        """
        if known.number and known.generation != generation == self._generation:
            if self._kept >= _REMEMBERED:
                self._generation += 1
                self._kept = 0
                self._remembered.clear()
                self._say(Forget())
            else:
                self._kept += 1
                known.generation = generation
                return self._remembered.setdefault(known.head.key, known)
        return known

    def give_back(self, connection: FrontConnection) -> None:
        """Return a connection when its client has been sent what there is for it."""
        if connection.number not in self._connections:
            return
        transport = connection.transport
        if not is_idle(transport):
            # Each look at the connection tries again.
            if not connection.delayed:
                connection.delayed = True
                self._say(Delayed(connection.number))
                self._reactor.callLater(_AGAIN, self.give_back, connection)
            return
        if not self._descriptors.send(connection.number, transport.fileno()):
            self._reactor.callLater(_AGAIN, self.give_back, connection)
            return
        del self._connections[connection.number]
        self._say(Returned(connection.number, connection.kept, connection.waited()))
        give_up(transport)

    def lost(self, connection: FrontConnection) -> None:
        """Say that a connection is closed."""
        if self._connections.pop(connection.number, None) is not None:
            self._say(Closed(connection.number))

    def _received(self, number: int, descriptor: int | None) -> None:
        """Take a connection."""
        if descriptor is None:
            self._say(Closed(number))
            return
        self._connections[number] = connection = FrontConnection(self, number)
        try:
            adopt(self._reactor, descriptor, connection)
        except OSError:
            # The client has disconnected, or there is no descriptor left.
            self.lost(connection)
        else:
            if self._finishing:
                # It was on its way when the server said so.
                connection.leave()

    def _look(self) -> None:
        now = self.seconds()
        for connection in list(self._connections.values()):
            connection.look(now)
        self._say(Alive())

    def _say(self, message: msgspec.Struct) -> None:
        if self.is_open:
            self._frames.append(encode(message))
            self._flushing.ask()

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if self.is_open and frames:
            write_now(self.transport, b"".join(frames))
