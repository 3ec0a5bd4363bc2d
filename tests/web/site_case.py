# SPDX-License-Identifier: Apache-2.0
"""A server in memory whose resources are mounted in an application's own site, of Twisted's own classes."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource
from twisted.web.server import GzipEncoderFactory, Site

from twisted_serve import ModelServer, Role
from twisted_serve.testing.server import MemoryServer

ALL = Role.INFERENCE | Role.MANAGEMENT | Role.METRICS


class Transport(StringTransportWithDisconnection):
    """
    A connection.

    :ivar aborted: Whether it was aborted, by either side.
    """

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        if self.connected:
            self.loseConnection()


class Client:
    """A client's connection to any site."""

    def __init__(self, site: Site) -> None:
        self.transport = Transport()
        self.protocol: Any = site.buildProtocol(IPv4Address("TCP", "192.0.2.7", 31337))
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    @property
    def received(self) -> bytes:
        """All bytes received."""
        return bytes(self.transport.value())

    def send(self, data: bytes) -> bytes:
        """Send bytes; return all that is received."""
        self.protocol.dataReceived(data)
        return self.received

    @property
    def channel(self) -> Any:
        """Twisted's channel."""
        return self.protocol._channel


def application(server: ModelServer, roles: Role) -> IResource:
    """Return an application of Klein with a page of its own, and the models below ``/ml/``."""
    app = Klein()

    @app.route("/own")
    def own(request: IRequest) -> bytes:
        return b"the application's own"

    @app.route("/ml/", branch=True)
    def models(request: IRequest) -> IResource:
        return server.resource(roles)

    resource: IResource = app.resource()
    return resource


class MountedCase(SynchronousTestCase):
    """A server, and a site of an application: with it below ``/deep/ml/``, compressed, and below ``/plain/``."""

    options: dict[str, Any] = {}
    roles = ALL

    def setUp(self) -> None:
        self.memory = MemoryServer(self.options, models={"m": {}})
        self.addCleanup(self.memory.close)
        [self.worker] = self.memory.provider.workers
        root = Resource()
        compressed = EncodingResourceWrapper(application(self.memory.server, self.roles), [GzipEncoderFactory()])
        root.putChild(b"deep", compressed)
        root.putChild(b"plain", self.memory.server.resource(self.roles))
        self.site = Site(root, reactor=self.memory.clock)

    def request(self, method: str, path: str, headers: str = "", body: bytes = b"", site: Site | None = None) -> Client:
        """Send a request to a site."""
        client = Client(site or self.site)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        client.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{length}{headers}\r\n".encode("latin-1") + body)
        return client

    def bearer(self) -> str:
        """Return the header that opens predictions."""
        return f"Authorization: Bearer {self.memory.keys.inference.secret}\r\n"
