# SPDX-License-Identifier: Apache-2.0
"""
Open and close the ports of a server, and finish the requests in flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from twisted_serve.assembly.tree import Deadline
from twisted_serve.config.addresses import Address
from twisted_serve.interfaces import IServeReactor
from twisted_serve.logs import INFERENCE_BOUND, MANAGEMENT_BOUND, METRICS_BOUND
from twisted_serve.web.http.admission import Admission
from twisted_serve.web.http.certificates import LiveCertificate
from twisted_serve.web.http.ports import Listener, bound_address, open_port
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.roles import Role

_log = Logger("twisted_serve.server")

_BOUND = {Role.INFERENCE: INFERENCE_BOUND, Role.MANAGEMENT: MANAGEMENT_BOUND, Role.METRICS: METRICS_BOUND}


class Listeners(Service):
    """
    The ports of a server.

    :ivar addresses: The bound address of each role, once started.
    :param certificate: The certificate of the https listeners, if there are any.
    :param admission: Pauses the ports of the inference API.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        sites: Sequence[tuple[Listener, ServeSite]],
        certificate: LiveCertificate | None,
        admission: Admission,
    ) -> None:
        self.setName("listeners")
        self._reactor = reactor
        self._sites = sites
        self._certificate = certificate
        self._admission = admission
        self._ports: list[IListeningPort] = []
        self.addresses: Mapping[Role, Address] = {}

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

    def site_of(self, role: Role) -> ServeSite:
        """
        Return the site of the listener with a role.

        :raise KeyError: when there is no such listener.
        """
        for listener, site in self._sites:
            if listener.roles & role:
                return site
        raise KeyError(role)

    def renew_certificate(self) -> None:
        """Read the certificate's files again; open connections keep the certificate they have."""
        if self._certificate is not None:
            self._certificate.renew()

    def _bind(self) -> None:
        addresses = {}
        for listener, site in self._sites:
            port = open_port(self._reactor, listener, site, self._certificate)
            self._ports.append(port)
            if listener.roles & Role.INFERENCE:
                self._admission.pause(port)
            address = bound_address(listener.address, port)
            for role in Role:
                if role & listener.roles:
                    addresses[role] = address
                    _log.info(_BOUND[role], address=str(address))
        self.addresses = addresses

    def _close(self) -> Deferred[Any]:
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])


class Requests(Service):
    """
    The requests in flight: from its stop on, each connection is closed when its responses are sent.

    :param deadline: Begins with the stop.
    """

    def __init__(self, sites: Sequence[ServeSite], deadline: Deadline) -> None:
        self.setName("requests")
        self._sites = sites
        self._deadline = deadline

    def stopService(self) -> None:
        """Accept no more requests."""
        super().stopService()
        for site in self._sites:
            site.finish_up()
        self._deadline.begin()

    def hurry(self) -> None:
        """Abort all connections."""
        for site in self._sites:
            site.abort()
