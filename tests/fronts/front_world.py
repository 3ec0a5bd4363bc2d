# SPDX-License-Identifier: Apache-2.0
"""
Run a server with fronts, all in this process, whose every effect is written down.

The sockets are real, time is virtual, and so no process has to be waited for.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from copy import deepcopy
from typing import Any

from twisted.internet.testing import MemoryReactor

from tests.web.lane_world import World
from twisted_serve.fronts.front import Front
from twisted_serve.fronts.keeper import Fronts
from twisted_serve.fronts.link import FrontLink
from twisted_serve.listening.roles import Role
from twisted_serve.testing.socket_reactor import SocketReactor
from twisted_serve.wire.fronts import Terms
from twisted_serve.workers.process.connection import AdoptedFactory

# As many turns of the reactor pass a request on to a worker at most, or an answer back.
_TURNS = 12


class PairsReactor(SocketReactor):
    """A reactor with pairs of sockets, and without ports."""

    def listenTCP(self, *arguments: Any, **named: Any) -> Any:
        """Pretend to listen."""
        return MemoryReactor().listenTCP(*arguments, **named)


class Client:
    """
    A client on one end of a pair of sockets.

    :ivar received: What it has received.
    :ivar open: Whether the server has not closed the connection.
    """

    def __init__(self, world: SocketWorld) -> None:
        self._world = world
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._reading = True
        self.received = b""
        self.open = True
        self._socket.setblocking(False)
        with theirs:
            theirs.setblocking(False)
            world.clock.adoptStreamConnection(theirs.fileno(), socket.AF_UNIX, world.site)
        world.turn()

    def send(self, data: bytes) -> bytes:
        """Send bytes, and return what comes at once."""
        before = len(self.received)
        while data and self.open:
            with suppress(BlockingIOError):
                try:
                    data = data[self._socket.send(data) :]
                except (BrokenPipeError, ConnectionResetError):
                    break
            self._world.turn()
            self.read()
        return self.received[before:]

    def read(self) -> None:
        """Receive what has come, unless the client does not read."""
        while self._reading and self.open:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            self.received += data
            self.open = bool(data)

    def stop_reading(self) -> None:
        """Read no answers."""
        self._reading = False

    def read_on(self) -> None:
        """Read answers again."""
        self._reading = True

    def leave(self) -> None:
        """Disconnect."""
        self._socket.close()
        self.open = False
        self._world.turn()


class SocketWorld(World):
    """
    A server with clients on sockets, and with a number of fronts.

    :ivar fronts: What fronts have.
    :ivar links: The server's ends of the messages.
    :ivar killed: The links whose process was to be killed.
    """

    def __init__(self, fronts: int, tokens: bool, holding: bool) -> None:
        self.clock = PairsReactor()
        self._number = fronts
        self.fronts: Fronts | None = None
        self.links: list[FrontLink] = []
        self.front_ends: list[Front] = []
        self.killed: list[FrontLink] = []
        super().__init__(True, tokens, holding)

    @property
    def site(self) -> Any:
        """The site of the inference listener."""
        return self.server.site_of(Role.INFERENCE)

    def connect(self) -> Any:
        """Connect a client; the first time, start the fronts before."""
        if self.fronts is None and self._number:
            self.fronts = self.site.fronts = Fronts(self.clock)
            for _ in range(self._number):
                self.start_front()
        return Client(self)

    def start_front(self) -> FrontLink:
        """Start a front, with all but its process."""
        assert self.fronts is not None
        (ours, theirs), (connections, others) = socket.socketpair(), socket.socketpair()
        limits = self.site.limits
        terms = Terms(limits.body, limits.body_timeout, limits.keepalive_timeout)
        front = Front(self.clock, others, lambda: None)
        link = FrontLink(self.fronts, self.clock, connections, terms, lambda: self.killed.append(link), lambda: None)
        for end, protocol in ((ours, link), (theirs, front)):
            with end:
                end.setblocking(False)
                self.clock.adoptStreamConnection(end.fileno(), socket.AF_UNIX, AdoptedFactory(protocol))
        self.links.append(link)
        self.front_ends.append(front)
        self.turn()
        return link

    def turn(self) -> None:
        """Let what is on its way arrive."""
        for _ in range(_TURNS):
            self.clock.iterate(0)

    def do(self, what: str, *arguments: Any) -> None:
        """Take a step, and see what clients have received then."""
        getattr(self, what)(*arguments)
        self.turn()
        for connection in self.connections:
            connection.read()
        self.seen += [(connection.open, self.masked(connection.received)) for connection in self.connections]
        self.seen.append([deepcopy((each.batches, each.cancelled, each.paused)) for each in self.workers.workers])

    def advance(self, seconds: float) -> None:
        """Let time pass; a little more, in which what happens at its end is passed on."""
        for each in (seconds, 0.01):
            self.turn()
            super().advance(each)
        self.turn()

    def finish_up(self) -> None:
        """Close idle connections, as a server that stops does."""
        if self.fronts is not None:
            self.fronts.finish_up()
        super().finish_up()

    def close(self) -> None:
        """End the server and the fronts."""
        for connection in self.connections:
            connection.leave()
        for link in self.links:
            link.close()
        self.turn()
        super().close()
        self.clock.discard()
