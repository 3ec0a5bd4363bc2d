# SPDX-License-Identifier: Apache-2.0
"""
The reactor and client connections of a server in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.web.http import HTTPFactory

__all__ = ["MemoryConnection", "MemoryServeReactor"]


def next_moment(calls: Iterable[IDelayedCall]) -> float:
    """Return the time at which the first of ``calls`` is due that is no `LoopingCall`; infinity without one."""
    # A server looks at its keys each second: without the exception an hour would take 3600 calls.
    moments = [call.getTime() for call in calls if not isinstance(getattr(call, "func", None), LoopingCall)]
    return min(moments, default=inf)


class MemoryServeReactor(MemoryReactorClock):
    """A reactor for a server in memory, with shutdown triggers that tests can run."""

    def __init__(self) -> None:
        super().__init__()
        self._shutdown: dict[object, Callable[[], object]] = {}

    def advance(self, amount: float) -> None:
        """
        Advance the time by ``amount`` seconds.

        Each delayed call is made at its own time, and may schedule others; a `LoopingCall` that was due several times
        is made once, as on a busy machine.
        """
        end = self.rightNow + amount
        while (moment := next_moment(self.getDelayedCalls())) <= end:
            self.rightNow = max(self.rightNow, moment)
            super().advance(0)
        self.rightNow = max(self.rightNow, end)
        super().advance(0)

    def addSystemEventTrigger(  # type: ignore[override]
        self,
        phase: str,
        eventType: str,
        callable: Callable[..., Any],  # noqa: A002 (the interface's name)
        *args: object,
        **kw: object,
    ) -> object:
        """Record a shutdown trigger."""
        trigger = object()
        if eventType == "shutdown":
            self._shutdown[trigger] = lambda: callable(*args, **kw)
        return trigger

    def removeSystemEventTrigger(self, triggerID: object) -> None:
        """Remove a shutdown trigger."""
        self._shutdown.pop(triggerID, None)

    def shut_down(self) -> None:
        """Run the shutdown triggers, as a stopping reactor does."""
        for trigger in list(self._shutdown.values()):
            trigger()


class MemoryConnection:
    """
    A client's connection, byte by byte.

    :ivar received: The bytes received from the server.
    :param site: Of the server, or one where it is mounted.
    """

    def __init__(self, site: HTTPFactory) -> None:
        self._waiting = b""
        self._transport = StringTransportWithDisconnection()
        build: Callable[..., Any] = site.buildProtocol
        self._channel = build(IPv4Address("TCP", "127.0.0.1", 31337))
        self._transport.protocol = self._channel
        self._channel.makeConnection(self._transport)

    @property
    def received(self) -> bytes:
        """The bytes received from the server so far."""
        return bytes(self._transport.value())

    @property
    def open(self) -> bool:
        """Whether the server has kept the connection open in both directions."""
        return bool(self._transport.connected and not self._transport.disconnecting)

    @property
    def unread(self) -> int:
        """The number of bytes sent that the server has not read yet."""
        return len(self._waiting)

    def send(self, data: bytes) -> bytes:
        """Send bytes, buffered while the server does not read, and return all bytes received so far."""
        self._waiting += data
        if self.open and self._transport.producerState == "producing":
            waiting, self._waiting = self._waiting, b""
            self._channel.dataReceived(waiting)
            # Turns of the reactor, which take no time.
            while getattr(self._channel, "has_postponed_read", False):
                self._channel.site.reactor.advance(0)
        return self.received

    def get(self, target: str, *headers: str) -> int:
        """Send a GET for a target exactly as written, and return the status."""
        before = len(self.received)
        head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *headers, "", ""])
        return int(self.send(head.encode("latin-1"))[before:].split(b" ", 2)[1])

    def stop_reading(self) -> None:
        """Stop reading, as if all buffers between server and client were full."""
        self._channel.pauseProducing()

    def read_on(self) -> None:
        """Resume reading."""
        self._channel.resumeProducing()
        self.send(b"")

    def leave(self) -> None:
        """Close the connection from the client's side."""
        if self._transport.connected:
            self._transport.loseConnection()
