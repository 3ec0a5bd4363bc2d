# SPDX-License-Identifier: Apache-2.0
"""
Request URLs from untrusted servers, with a limit on the size of the response's headers.

Twisted limits each header line, the chunks of a body and its trailers, but neither the number of header lines nor that
of interim (1xx) responses.  Bytes that arrive before the headers of the final response are complete are counted here,
and the connection is aborted when they exceed the limit.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer


class HeadTooLargeError(Exception):
    """The headers of a response exceed the limit."""


@define(eq=False)
class _Head:
    """
    The headers of one response as they arrive.

    :ivar limit: Bytes that may arrive before the headers are complete.
    :ivar complete: Whether the headers are complete; the body that follows has a separate limit.
    """

    limit: int
    received: int = 0
    complete: bool = False
    exceeded: bool = False


class _Connection(ProtocolWrapper):
    """A connection that counts the bytes of a response's headers."""

    factory: _Connections

    def dataReceived(self, data: bytes) -> None:
        head = self.factory.head
        # Checked before these bytes are counted, since the end of the headers and much of the body may arrive in one
        # chunk.
        if not head.complete and head.received > head.limit:
            head.exceeded = True
            self.abortConnection()
            return
        head.received += len(data)
        super().dataReceived(data)


class _Connections(WrappingFactory):
    """Creates the connection for one request."""

    protocol = _Connection
    noisy = False

    def __init__(self, factory: IProtocolFactory, head: _Head) -> None:
        super().__init__(factory)
        self.head = head


@implementer(IStreamClientEndpoint)
@define(eq=False)
class _CountingEndpoint:
    endpoint: IStreamClientEndpoint
    head: _Head

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        connected: Deferred[Any] = self.endpoint.connect(_Connections(factory, self.head))
        # Agents use the protocol that their own factory created.
        return connected.addCallback(lambda connection: connection.wrappedProtocol)


@implementer(IAgentEndpointFactory)
@define(eq=False)
class _Endpoints:
    reactor: Any
    connect_timeout: float
    head: _Head

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: Any = HostnameEndpoint(self.reactor, uri.host.decode("ascii"), uri.port, self.connect_timeout)
        if uri.scheme == b"https":
            creator = BrowserLikePolicyForHTTPS().creatorForNetloc(uri.host, uri.port)
            endpoint = wrapClientTLS(creator, endpoint)
        return _CountingEndpoint(endpoint, self.head)


@implementer(IAgent)
@define(eq=False)
class BoundedAgent:
    """
    Requests URLs, each on a new connection, without following redirects.

    :ivar reactor: Provides the connections, e.g. `IReactorTCP`.
    :ivar max_head: Maximum bytes of a response's headers, interim responses included; one further read may arrive.
    :ivar connect_timeout: Seconds to establish a connection.
    """

    reactor: Any
    max_head: int = 1 << 16
    connect_timeout: float = field(default=30.0)

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """
        Request ``uri``.

        :return: Fires when the headers of the response are complete; fails with `HeadTooLargeError` if they are too
            large, and otherwise as `Agent.request`.
        """
        head = _Head(self.max_head)
        agent = Agent.usingEndpointFactory(self.reactor, _Endpoints(self.reactor, self.connect_timeout, head))

        def complete(response: IResponse) -> IResponse:
            head.complete = True
            return response

        def failed(failure: Failure) -> Failure:
            if head.exceeded:
                return Failure(HeadTooLargeError(f"the head of the answer has more than {head.limit} bytes"))
            return failure

        response: Deferred[IResponse] = agent.request(method, uri, headers, bodyProducer)
        return response.addCallback(complete).addErrback(failed)
