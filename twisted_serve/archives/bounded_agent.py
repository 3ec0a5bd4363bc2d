# SPDX-License-Identifier: Apache-2.0
"""
Make HTTP requests of servers that are not trusted: bound what the head of a response may take.

Twisted bounds each line of a head, the chunks of a body and its trailers, but neither the number of header
lines nor that of interim (1xx) responses.  What arrives before the head of the final response is complete
is counted here, and the connection is aborted when it is too much.
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
    """The head of a response has more bytes than it may have."""


@define(eq=False)
class _Head:
    """
    The head of one response, as it arrives.

    :ivar limit: Bytes that may arrive before it is complete.
    :ivar complete: Whether the head is complete; what comes now is the body, which has a limit of its own.
    """

    limit: int
    received: int = 0
    complete: bool = False
    exceeded: bool = False


class _Connection(ProtocolWrapper):
    """A connection on which the head of a response is counted."""

    factory: _Connections

    def dataReceived(self, data: bytes) -> None:
        head = self.factory.head
        # Before these bytes are counted: the end of a head, and much of a body, may come in one piece.
        if not head.complete and head.received > head.limit:
            head.exceeded = True
            self.abortConnection()
            return
        head.received += len(data)
        super().dataReceived(data)


class _Connections(WrappingFactory):
    """Makes the connection for one request."""

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
        # Agents talk to the protocol that their own factory has made.
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
    Requests URLs, each on a connection of its own, and follows no redirects.

    :ivar reactor: What connects, e.g. `IReactorTCP`.
    :ivar max_head: Bytes of the head of a response, interim responses included; one read more may arrive.
    :ivar connect_timeout: Seconds for a connection to come about.
    """

    reactor: Any
    max_head: int = 1 << 16
    connect_timeout: float = field(default=30.0)

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """
        Request ``uri``.

        :return: Fires when the head of the response is complete; fails with `HeadTooLargeError` if it is too large, and
            else as `Agent.request`.
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
