# SPDX-License-Identifier: Apache-2.0
"""
Serve the calls of one client's connection: its bytes, its timers, its end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, Protocol

from twisted.internet import protocol
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.eventloop.timeout import Timeout
from twisted_serve.eventloop.writing import write_now
from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.call import RunningCall
from twisted_serve.rpc.engine.grants import Grants
from twisted_serve.rpc.engine.heads import Head
from twisted_serve.rpc.engine.interfaces import CallServices, EndedSide
from twisted_serve.rpc.engine.lifetime import Lifetime
from twisted_serve.rpc.engine.session import Session
from twisted_serve.rpc.engine.strangers import stranger
from twisted_serve.rpc.engine.wire import Fault, Reason

_log = Logger("twisted_serve.rpc")

# The payloads of our pings: one asks whether the client is there, the other whether it has seen the first GOAWAY.
_ARE_YOU_THERE = b"are you?"
_LEAVING = b"leaving."

# Seconds for the answer to the latter.
_LEAVING_TIMEOUT = 5.0


class Listener(CallServices, Protocol):
    """
    The factory of a connection.

    :ivar connections: The open connections.
    """

    connections: set[GrpcConnection]

    def connection_lost(self, connection: GrpcConnection) -> None:
        """Remove a closed connection."""


@implementer(IPushProducer)
class GrpcConnection(protocol.Protocol):
    """
    The connection of one client.

    :ivar session: The rules of HTTP/2.
    :ivar calls: The calls by the ids of their streams.
    :ivar known: Whether a call of a known sender was admitted.
    :ivar has_postponed_read: Whether reading resumes in the next reactor iteration.
    """

    transport: Any
    peer: IAddress
    _why = b""

    def __init__(self, factory: Listener) -> None:
        self.factory = factory
        limits, clock = factory.limits, factory.reactor
        self.session = Session(self, limits, clock.seconds)
        self.calls: dict[int, RunningCall] = {}
        self.grants = Grants(limits.granted)
        self.known = self.has_postponed_read = False
        self._preface = b""
        self._greeted = self._lost = self._reading = False
        self._leaving = self._left = self._flushing = self._table_shrunk = False
        self._alarm_at = inf
        self._alarm = Timeout(clock, self._ring)
        # For the preface and header blocks, and for a client that does not read what was sent.
        self._slow = Timeout(clock, self.cut)
        # For the answer to the ping between the two GOAWAY.
        self._leaving_timeout = Timeout(clock, self._refuse_new)
        self._lifetime = Lifetime(self, limits, clock)
        self._postponed_read: IDelayedCall | None = None

    # The transport's side

    def connectionMade(self) -> None:
        """Begin with the settings."""
        self.peer = self.transport.getPeer()
        self.factory.connections.add(self)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._slow.set(self._now() + self.factory.limits.header_timeout)
        self._lifetime.begin()

    def dataReceived(self, data: bytes) -> None:
        """Handle incoming data."""
        self._lifetime.heard = True
        if self._left or self._lost:
            return
        if not self._greeted:
            data = self._greet(data)
        if self._greeted and not self._left:
            self._receive(data)

    def _greet(self, data: bytes) -> bytes:
        """Return what follows the preface."""
        # The proxy protocol (``haproxy:``) tells the client's address before the first data.
        self.peer = self.transport.getPeer()
        self._preface += data
        strange = stranger(self._preface)
        if strange is not None:
            _log.debug("A client of the gRPC port speaks {protocol}", protocol=strange.protocol)
            self._left = True
            if strange.answer:
                self.transport.write(strange.answer)
            self._hang_up()
        elif len(self._preface) >= len(wire.PREFACE):
            self._greeted = True
            data, self._preface = self._preface[len(wire.PREFACE) :], b""
            return data
        return b""

    def _receive(self, data: bytes) -> None:
        self._read(partial(self.session.receive, data))

    def _read(self, read: Callable[[], bool]) -> None:
        self._reading = True
        try:
            more = read()
        except Fault as fault:
            self._leave_for(fault)
            more = False
        finally:
            self._reading = False
        self._set_slow()
        if more and not self.has_postponed_read:
            self.has_postponed_read = True
            self.transport.pauseProducing()
            self._postpone_read()
        self.flush()

    def _postpone_read(self) -> None:
        self._postponed_read = self.factory.reactor.callLater(0, self._read_on)

    def _read_on(self) -> None:
        if self.session.stalled:
            # `resumeProducing` postpones it again.
            return
        self.has_postponed_read = False
        self.transport.resumeProducing()
        self._read(self.session.read_on)

    def _set_slow(self) -> None:
        """Give the client a time for its settings, for a header block, or for reading what was sent."""
        session = self.session
        if self._left:
            # The time to close the connection is running.
            return
        if session.reader.settled and not (session.reader.within_block or session.stalled):
            if self._slow.is_set:
                self._slow.set(None)
        elif not self._slow.is_set:
            limits = self.factory.limits
            self._slow.set(self._now() + (limits.body_timeout if session.stalled else limits.header_timeout))

    def cut(self) -> None:
        """Abort the connection."""
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """Send no more data, and read no more: the client does not read what was sent."""
        self.session.stalled = True
        self.transport.pauseProducing()
        self._slow.set(None)
        self._set_slow()
        for call in list(self.calls.values()):
            call.pace()

    def resumeProducing(self) -> None:
        """Go on: the client has read what was sent."""
        self.session.stalled = False
        self._set_slow()
        if self.has_postponed_read:
            self._postpone_read()
        else:
            self.transport.resumeProducing()
        self.window_opened()
        self.flush()

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel all calls."""
        self._lost = self.session.reader.closed = True
        self._alarm.cancel()
        self._slow.cancel()
        self._leaving_timeout.cancel()
        self._lifetime.end()
        if self._postponed_read is not None and self._postponed_read.active():
            self._postponed_read.cancel()
        for call in list(self.calls.values()):
            call.was_reset()
        self.factory.connection_lost(self)

    # The session's side

    def begin(self, stream: int, head: Head, ended: bool) -> None:
        """Begin a call."""
        call = RunningCall(self, stream, head, ended)
        self.calls[stream] = self.session.streams[stream] = call
        call.start()

    def window_opened(self) -> None:
        """Go on sending on all streams, in turn."""
        for call in list(self.calls.values()):
            call.window_opened()

    def acknowledged(self, ping: bytes) -> None:
        """Learn that the client has answered a ping."""
        if ping == _LEAVING and self._leaving:
            self._refuse_new()

    def client_leaves(self) -> None:
        """Close when the last call has ended: the client begins none any more."""
        self._leaving = self.session.refusing = True
        self._close_if_idle()

    # The calls' side

    def send_headers(self, stream: int, block: bytes, end: bool) -> None:
        """Send the headers or trailers of a call."""
        if not self._table_shrunk:
            self._table_shrunk = True
            block = wire.NO_TABLE + block
        self.session.pings.sent()
        self.session.out.append(wire.header_frames(stream, block, end))

    def ended(self, stream: int, side: EndedSide) -> None:
        """Forget a call that has ended."""
        del self.calls[stream]
        self.session.streams.pop(stream, None)
        self.grants.give_back(side)
        if not side.ended:
            self.session.early[stream] = None
        if self.session.refusing:
            self._close_if_idle()

    def watch(self, moment: float) -> None:
        """Check the calls at a time, in seconds of the clock."""
        if moment < self._alarm_at:
            self._alarm_at = moment
            self._alarm.set(moment)

    def _ring(self) -> None:
        self._alarm_at, now = inf, self._now()
        due = [call.check(now) for call in list(self.calls.values())]
        self.watch(min((moment for moment in due if moment is not None), default=inf))
        self.flush()

    def later(self, work: Callable[[], None]) -> None:
        """Call a function in the next turn."""
        self.factory.reactor.callLater(0, work)

    def flush_soon(self) -> None:
        """Send what is to be sent, together with what else is sent in this turn if several calls are running."""
        if self._reading or self._flushing or not self.session.out:
            return
        if len(self.calls) <= 1:
            self.flush()
        else:
            self._flushing = True
            self.factory.reactor.callLater(0, self._flush_all)

    def _flush_all(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent."""
        session = self.session
        if self._lost:
            session.out.clear()
            return
        if session.early:
            # Tell the client to stop sending, unless it has ended its side meanwhile (RFC 9113 §8.1).
            session.out.extend(wire.reset(stream, Reason.NO_ERROR) for stream in session.early)
            session.early.clear()
        if session.out:
            out, session.out = b"".join(session.out), []
            write_now(self.transport, out)

    # The end

    @property
    def begun(self) -> tuple[int, bool]:
        """How many calls were begun, in any measure that grows, and whether there are any now."""
        return self.session.last, bool(self.calls)

    def ask(self) -> None:
        """Send a ping, to which the client has to answer."""
        self.session.out.append(wire.frame(wire.PING, 0, 0, _ARE_YOU_THERE))
        self.flush()

    def finish_up(self, why: bytes = b"server shutting down") -> None:
        """
        Close the connection when its calls have ended, and let the client begin no more.

        The first GOAWAY asks the client to begin no call, the second tells which calls were not begun; a ping between
        them gives calls that are on the way the time to arrive (RFC 9113 §6.8).
        """
        if self._leaving or self._left or self._lost:
            return
        self._leaving = True
        if not self._greeted:
            self._left = True
            self._hang_up()
            return
        self._why = why
        self.session.out.append(wire.go_away(wire.MOST, Reason.NO_ERROR, why))
        self.session.out.append(wire.frame(wire.PING, 0, 0, _LEAVING))
        self._leaving_timeout.set(self._now() + _LEAVING_TIMEOUT)
        self.flush_soon()

    def _refuse_new(self) -> None:
        if self.session.refusing:
            return
        self._leaving_timeout.set(None)
        self.session.refusing = True
        self.session.out.append(wire.go_away(self.session.last, Reason.NO_ERROR, self._why))
        self._close_if_idle()
        self.flush_soon()

    def _close_if_idle(self) -> None:
        if not self.calls and not self._left:
            self._left = self.session.reader.closed = True
            self.flush()
            self._hang_up()

    def _leave_for(self, fault: Fault) -> None:
        """End the connection for an error of the client."""
        _log.debug("A connection ends: {reason.name}, {text}", reason=fault.reason, text=fault.text.decode())
        self._left = self.session.reader.closed = True
        for call in list(self.calls.values()):
            call.was_reset()
        self.session.out.append(wire.go_away(self.session.last, fault.reason, fault.text))
        self.flush()
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the connection when the client has read what was sent, or after a time."""
        if self._lost:
            return
        self._slow.set(self._now() + self.factory.limits.header_timeout)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def end_calls(self) -> None:
        """End the calls that are left."""
        for call in list(self.calls.values()):
            call.go_away()
        self._refuse_new()
        self.flush()

    def _now(self) -> float:
        now: float = self.factory.reactor.seconds()
        return now
