# SPDX-License-Identifier: Apache-2.0
"""
Run a whole server with real sockets and in virtual time, in the test's own thread.

The server listens at free ports of the loopback interface. Its reactor waits for bytes, but not for time: a delay is
over when the test advances the time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any, ClassVar

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IConsumer, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from twisted_serve.listening.roles import Role
from twisted_serve.testing.answers import Answer, headers_with, role_of
from twisted_serve.testing.server import MemoryServer
from twisted_serve.testing.socket_reactor import SocketReactor

__all__ = ["SocketConnection", "SocketServer"]

_LENGTH = re.compile(rb"^content-length: *(\d+) *\r$", re.I | re.M)


# Reactors that no server uses: a reactor has no method that closes its own file descriptors.
_free: list[SocketReactor] = []


class _Client(Protocol):
    """
    Keeps what it receives.

    :ivar open: Whether the connection is open.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.open = True

    def dataReceived(self, data: bytes) -> None:
        """Keep data."""
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        """Note the end."""
        self.open = False


class SocketConnection:
    """
    A client's connection, byte by byte.

    What both sides have in their buffers depends on the system; the rest is as with `MemoryConnection`.
    """

    def __init__(self, reactor: SocketReactor, port: int) -> None:
        self._reactor = reactor
        self._client = _Client()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        connected = endpoint.connect(Factory.forProtocol(lambda: self._client))
        reactor.run_until(lambda: bool(connected.called))
        if self._client.transport is None:
            raise ConnectionError(f"cannot connect to port {port}")

    @property
    def received(self) -> bytes:
        """The bytes received from the server so far."""
        self._reactor.settle()
        return bytes(self._client.received)

    @property
    def open(self) -> bool:
        """Whether the server has kept the connection open."""
        self._reactor.settle()
        return self._client.open

    def send(self, data: bytes) -> bytes:
        """Send bytes, and return all bytes received until nothing more comes."""
        if self._client.transport is not None:
            self._client.transport.write(data)
        return self.received

    def get(self, target: str, *headers: str) -> int:
        """Send a GET, as :meth:`ask`."""
        return self.ask("GET", target, *headers)

    def ask(self, method: str, target: str, *headers: str) -> int:
        """
        Send a request without a body for a target exactly as written; return the status when the response is here.

        :raise ConnectionError: if there is none.
        """
        before = len(self._client.received)
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: h", *headers, "", ""])
        if self._client.transport is not None:
            self._client.transport.write(head.encode("latin-1"))
        self._reactor.run_until(lambda: _is_whole(self._client.received[before:]) or not self._client.open)
        answer = bytes(self._client.received[before:])
        if not answer.startswith(b"HTTP/1.1 "):
            raise ConnectionError(f"no response to {method} {target}: {answer!r}")
        return int(answer.split(b" ", 2)[1])

    def leave(self) -> None:
        """Close the connection from the client's side."""
        if self._client.transport is not None:
            self._client.transport.loseConnection()
        self._reactor.run_until(lambda: not self._client.open)


def _is_whole(data: bytes | bytearray) -> bool:
    """Return whether a response with a length is complete."""
    head, end, body = bytes(data).partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return bool(end) and length is not None and len(body) >= int(length[1])


@implementer(IBodyProducer)
class _Body:
    """
    Sends the body of a request at once.

    Twisted's `FileBodyProducer`, which treq takes by default, would use the global reactor.
    """

    def __init__(self, body: bytes | BytesIO) -> None:
        self._body = body if isinstance(body, bytes) else body.read()
        self.length = len(self._body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send the body."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all is sent."""

    def resumeProducing(self) -> None:
        """Do nothing: all is sent."""

    def stopProducing(self) -> None:
        """Do nothing: all is sent."""


@implementer(IAgentEndpointFactory)
class _Loopback:
    """Connects to IPv4 addresses without a resolver, which would take a thread."""

    def __init__(self, reactor: SocketReactor) -> None:
        self._reactor = reactor

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return the endpoint of a URI."""
        return TCP4ClientEndpoint(self._reactor, uri.host.decode("ascii"), uri.port)


class SocketServer(MemoryServer):
    """
    A running server with real sockets.

    :ivar clock: The reactor; its time is in seconds from the start.
    """

    defaults: ClassVar[Mapping[str, Any]] = {
        **MemoryServer.defaults,
        **{f"{role}_address": "http://127.0.0.1:0" for role in ("inference", "management", "metrics")},
    }

    clock: SocketReactor  # type: ignore[assignment]  # What a server needs of it is the same.

    _owns_clock = False

    def close(self) -> None:
        """Stop the server, close all connections and remove its directory."""
        super().close()
        if self._owns_clock:
            self._owns_clock = False
            self.clock.discard()
            _free.append(self.clock)

    def treq(self, role: Role = Role.INFERENCE) -> Any:
        """Return a treq client; its URLs need the port of the server, ``server.server.addresses[role].port``."""
        pool = HTTPConnectionPool(self.clock, persistent=False)
        agent = Agent.usingEndpointFactory(self.clock, _Loopback(self.clock), pool)
        return HTTPClient(agent, data_to_body_producer=_Body)

    def send(
        self,
        method: str,
        path: str,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        body: bytes = b"",
        role: Role | None = None,
    ) -> Deferred[Answer]:
        """Send a request on a connection of its own, and return a Deferred that fires with the response."""
        sent = headers_with(key, headers)
        role = role_of(path) if role is None else role
        url = f"http://127.0.0.1:{self.server.addresses[role].port}{self.path_of(path, role)}"
        return Deferred.fromCoroutine(_read(self.treq(role).request(method, url, headers=sent, data=body or None)))

    def connect(self, role: Role = Role.INFERENCE) -> SocketConnection:  # type: ignore[override]
        """Open a connection that sends bytes unchanged."""
        return SocketConnection(self.clock, self.server.addresses[role].port)

    def flush(self) -> None:
        """Deliver the data written on all connections."""
        self.clock.settle()

    def _deliver(self, awaited: Deferred[Any]) -> None:
        self.clock.run_until(lambda: bool(awaited.called))

    def _new_clock(self) -> SocketReactor:  # type: ignore[override]
        self._owns_clock = True
        return _free.pop() if _free else SocketReactor()


async def _read(response: Deferred[Any]) -> Answer:
    answer = await response
    headers = {name.decode().lower(): values[-1].decode() for name, values in answer.headers.getAllRawHeaders()}
    return Answer(answer.code, headers, await answer.content())
