# SPDX-License-Identifier: Apache-2.0
"""
Open and close the ports of a server, and finish the requests in flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from twisted_serve.assembly.tree import Deadline
from twisted_serve.config.addresses import Address, is_loopback
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.admission import Admission
from twisted_serve.listening.certificates import LiveCertificate
from twisted_serve.listening.ports import Listener, WrapInTls, bound_address, open_port
from twisted_serve.listening.roles import Role
from twisted_serve.logs import INFERENCE_BOUND, MANAGEMENT_BOUND, METRICS_BOUND
from twisted_serve.web.http.plain_http import TlsFactory
from twisted_serve.web.listeners import HttpApi

_log = Logger("twisted_serve.server")

_HTTP_BOUND = {Role.INFERENCE: INFERENCE_BOUND, Role.MANAGEMENT: MANAGEMENT_BOUND, Role.METRICS: METRICS_BOUND}


_TAKEN = "{address} stays closed, and nothing is served there: {error}. Set another {setting} or its port"


class Connections(Protocol):
    """The factory of a listener's connections."""

    def finish_up(self) -> None:
        """Close every connection as soon as it is idle."""

    def all_closed(self, limit: float) -> Deferred[None]:
        """Return a Deferred that fires when all connections are closed; abort those left after ``limit`` seconds."""

    def abort(self) -> None:
        """Abort every connection."""


@frozen
class Opening:
    """
    A listener to open.

    :ivar wrap_in_tls: Makes the factory of its connections over TLS.
    :ivar bound: The log line of each role when it is open.
    :ivar required: Whether the server fails to start if the address is taken; otherwise a line of the log says so.
    """

    listener: Listener
    factory: Connections
    wrap_in_tls: WrapInTls
    bound: Mapping[Role, str]
    required: bool = True


def http_openings(reactor: IServeReactor, api: HttpApi, listeners: Sequence[Listener]) -> list[Opening]:
    """Return the HTTP listeners with their sites."""
    return [
        Opening(each, api.site(each.roles, reactor, is_loopback(each.address)), TlsFactory, _HTTP_BOUND)
        for each in listeners
    ]


class Listeners(Service):
    """
    The ports of a server.

    :ivar addresses: The bound HTTP address of each role, once started.
    :ivar grpc_addresses: The same for gRPC; empty if it is not served.
    :param certificate: The certificate of the https listeners, if there are any.
    :param admission: Pauses the ports of the inference API.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        http: Sequence[Opening],
        grpc: Sequence[Opening],
        certificate: LiveCertificate | None,
        admission: Admission,
    ) -> None:
        self.setName("listeners")
        self._reactor = reactor
        self._http = http
        self._grpc = grpc
        self._certificate = certificate
        self._admission = admission
        self._ports: list[IListeningPort] = []
        self.addresses: Mapping[Role, Address] = {}
        self.grpc_addresses: Mapping[Role, Address] = {}

    def privilegedStartService(self) -> None:
        """
        Bind all listeners, or none.

        :raise CannotListenError: when an address cannot be bound.
        :raise ConfigError: for an endpoint whose arguments cannot be used.
        """
        super().privilegedStartService()
        try:
            self._bind()
        except BaseException:
            self._close()
            raise

    def stopService(self) -> Deferred[Any]:
        """Stop listening; open connections stay open."""
        super().stopService()
        return self._close()

    def site_of(self, role: Role) -> Any:
        """
        Return the site of the HTTP listener with a role.

        :raise KeyError: when there is no such listener.
        """
        return _factory_of(role, self._http)

    def grpc_of(self, role: Role) -> Any:
        """
        Return the factory of the gRPC listener with a role.

        :raise KeyError: when there is no such listener.
        """
        return _factory_of(role, self._grpc)

    def renew_certificate(self) -> None:
        """Read the certificate's files again; open connections keep the certificate they have."""
        if self._certificate is not None:
            self._certificate.renew()

    def _bind(self) -> None:
        self.addresses = self._bind_all(self._http)
        self.grpc_addresses = self._bind_all(self._grpc)

    def _bind_all(self, openings: Sequence[Opening]) -> Mapping[Role, Address]:
        addresses = {}
        for opening in openings:
            listener = opening.listener
            try:
                port = open_port(self._reactor, listener, opening.factory, self._certificate, opening.wrap_in_tls)
            except CannotListenError as e:
                if opening.required:
                    raise
                _log.warn(_TAKEN, address=str(listener.address), error=e.socketError, setting=listener.setting)
                continue
            self._ports.append(port)
            if listener.roles & Role.INFERENCE:
                self._admission.pause(port)
            address = bound_address(listener.address, port)
            for role in Role:
                if role & listener.roles:
                    addresses[role] = address
                    _log.info(opening.bound[role], address=str(address))
        return addresses

    def _close(self) -> Deferred[Any]:
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])


def _factory_of(role: Role, openings: Sequence[Opening]) -> Any:
    for opening in openings:
        if opening.listener.roles & role:
            return opening.factory
    raise KeyError(role)


class Requests(Service):
    """
    The requests in flight: from its stop on, each connection is closed when its responses are sent.

    :param deadline: Begins with the stop.
    """

    def __init__(self, factories: Sequence[Connections], deadline: Deadline) -> None:
        self.setName("requests")
        self._factories = factories
        self._deadline = deadline

    def stopService(self) -> None:
        """Accept no more requests."""
        super().stopService()
        for factory in self._factories:
            factory.finish_up()
        self._deadline.begin()

    def hurry(self) -> None:
        """Abort all connections."""
        for factory in self._factories:
            factory.abort()
