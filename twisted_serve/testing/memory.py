# SPDX-License-Identifier: Apache-2.0
"""
The reactor and client connections of a server in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from operator import itemgetter
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import LoopingCall
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.web.http import HTTPFactory

__all__ = ["MemoryConnection", "MemoryServeReactor"]


def next_due(calls: Iterable[Any], end: float) -> tuple[float, Any]:
    """
    Return the next time to which a clock advances, and the call that is made then; infinity and ``None`` without one.

    A server looks at its keys each second; an hour of that would take 3600 steps.  So a `LoopingCall` is due at the
    last of its times that is not after ``end`` or the first call of another kind.
    """
    due = [(call.getTime(), call) for call in calls]
    due = [(when, call) for when, call in due if when <= end]
    limit = min([when for when, call in due if not _is_periodic(call)], default=end)
    return min([(_last_time(when, call, limit), call) for when, call in due], key=itemgetter(0), default=(inf, None))


def _is_periodic(call: Any) -> bool:
    return isinstance(getattr(call, "func", None), LoopingCall) and bool(call.func.interval)


def _last_time(when: float, call: Any, limit: float) -> float:
    """Return the last time up to a limit at which a call is due; its next time if it is not periodic."""
    interval: float = call.func.interval if _is_periodic(call) and when < limit else 0
    return when + (limit - when) // interval * interval if interval else when


class MemoryServeReactor(MemoryReactorClock):
    """A reactor for a server in memory, with shutdown triggers that tests can run."""

    def __init__(self) -> None:
        super().__init__()
        self._shutdown: dict[object, Callable[[], object]] = {}

    def advance(self, amount: float) -> None:
        """
        Advance the time by ``amount`` seconds.

        Each delayed call is made at its own time, and may schedule others.  A `LoopingCall` runs once between two other
        calls, at the last of its times, so that long stretches in which nothing else happens are cheap.
        """
        end = self.rightNow + amount
        while (due := next_due(self.calls, end))[0] <= end:
            self.rightNow, call = max(self.rightNow, due[0]), due[1]
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
        self.rightNow = max(self.rightNow, end)

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
        return self.ask("GET", target, *headers)

    def ask(self, method: str, target: str, *headers: str) -> int:
        """Send a request without a body for a target exactly as written, and return the status."""
        before = len(self.received)
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: h", *headers, "", ""])
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
