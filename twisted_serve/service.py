# SPDX-License-Identifier: Apache-2.0
"""
Run a model server as a Twisted service: its start, its readiness, its stop.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.protocol import Factory
from twisted.web.resource import IResource

from twisted_serve.assembly.dependencies import Dependencies
from twisted_serve.assembly.server import assemble
from twisted_serve.assembly.tree import ServiceTree
from twisted_serve.auth.tokens import KeySet
from twisted_serve.config.addresses import Address
from twisted_serve.config.options import ServerOptions, with_absolute_paths
from twisted_serve.config.startup_models import parse_load_models
from twisted_serve.eventloop.threads import end_of
from twisted_serve.inprocess.calls import ApplicationCalls, Calls
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.roles import Role
from twisted_serve.planes.startup import StartupFailure, StartupOutcome
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.routing.mounting import Mounted

__all__ = ["Dependencies", "ModelServer", "Role", "StartupFailure", "StartupOutcome"]


class ModelServer(ApplicationCalls, MultiService):
    """
    A model server as a service, for any Twisted application.

    The start binds the listeners, or raises and leaves nothing behind.

    :ivar ready: Fires when each start-up model has its workers or has failed to get them, or when
        the server is stopped before that, with a :class:`~twisted_serve.planes.startup.StartupOutcome`.
    :ivar addresses: The bound HTTP address of each role, once started.
    :ivar grpc_addresses: The same for gRPC; empty if it is not served.
    :param reactor: Any reactor that can start processes; the global reactor is not used.
    :param listen: Whether to listen at the addresses of the options; not needed for `resource` and for the calls of
        the application.
    """

    def __init__(
        self,
        reactor: IReactorCore,
        options: ServerOptions,
        dependencies: Dependencies | None = None,
        *,
        listen: bool = True,
    ) -> None:
        super().__init__()
        # The type that Twisted gives to its global reactor lacks some of the interfaces that the object has.
        self._reactor = cast(IServeReactor, reactor)
        self._options = options
        self._dependencies = dependencies or Dependencies()
        self._listen = listen
        self._tree: ServiceTree | None = None
        self._stopping_tree: ServiceTree | None = None
        self._winding_down: Deferred[None] | None = None
        self.ready: Deferred[StartupOutcome] = Deferred()
        self.addresses: dict[Role, Address] = {}
        self.grpc_addresses: dict[Role, Address] = {}

    @property
    def keys(self) -> KeySet | None:
        """The live tokens; ``None`` without token authorization, and when the server is not started."""
        return None if self._tree is None else self._tree.getServiceNamed("keys").live

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secrets that must not be in any log: the tokens, also recently replaced ones, and the metrics token."""
        # Log lines with the secrets of a server that is being stopped, or was stopped, may not be written yet.
        tree = self._tree or self._stopping_tree
        return () if tree is None else tree.getServiceNamed("keys").secrets

    def startService(self) -> None:
        """
        Bind the listeners and begin to load the start-up models.

        :raise CannotListenError: when an address cannot be bound.
        :raise OSError: when the key file or the working directory cannot be written.
        :raise ValueError: for a certificate, a header's value or a ``model_snapshot`` that cannot be used.
        :raise RuntimeError: when the server is running already.
        """
        if self._tree is not None:
            raise RuntimeError("the server is running already")
        restoring = self._options.model_snapshot is not None
        startup_models = () if restoring else parse_load_models(self._options.load_models)
        if self._winding_down is not None:
            # Callers that wait for the last run keep its Deferred.
            self.ready = Deferred()
        # Each worker has its own working directory, where a relative path would name another file.
        options = with_absolute_paths(self._options, Path.cwd())
        tree = assemble(self._reactor, options, self._dependencies, self._listen)
        tree.privilegedStartService()
        tree.startService()
        self._tree = tree
        listeners = tree.getServiceNamed("listeners")
        self.addresses, self.grpc_addresses = dict(listeners.addresses), dict(listeners.grpc_addresses)
        super().startService()
        tree.getServiceNamed("readiness").load(startup_models).addCallback(self.ready.callback)

    def stopService(self) -> Deferred[None]:
        """
        Become unready, refuse new requests, finish those in flight, end the workers, and remove all files.

        :return: Fires when nothing is left; further calls wait for the same end.
        """
        tree, self._tree = self._tree, None
        self.addresses = {}
        self.grpc_addresses = {}
        stopped = maybeDeferred(super().stopService)
        if tree is not None:
            self._stopping_tree = tree
            self._winding_down = tree.stopService()
            return self._winding_down
        return stopped if self._winding_down is None else end_of(self._winding_down)

    def hurry(self) -> None:
        """Abort all requests in flight and stop immediately; has no effect before `stopService`."""
        if self._stopping_tree is not None:
            self._stopping_tree.hurry()

    def reload(self) -> None:
        """
        Read the files of the certificate and of given keys again, and write the key file again with the live tokens.

        Open connections keep their certificate.
        """
        if self._tree is None:
            return
        self._tree.getServiceNamed("listeners").renew_certificate()
        self._tree.getServiceNamed("keys").reload()

    def resource(self, role: Role) -> IResource:
        """
        Return the API of a role as a resource, for any site of `twisted.web`, at any depth.

        The resource may be made before the start; it responds with 503 while the server does not run, and outlasts a
        restart. Requests need the keys that they need at a listener.

        :param role: A role, or several: ``Role.INFERENCE | Role.MANAGEMENT``.
        :raise ValueError: without a role.
        """
        if not role:
            raise ValueError("a resource needs a role, such as Role.INFERENCE")
        return Mounted(partial(self._mounted, role))

    def _mounted(self, role: Role) -> ServeSite | None:
        tree = self._tree or self._stopping_tree
        site: ServeSite | None = None if tree is None else tree.getServiceNamed("mounts").site_of(role)
        return site

    def _find_calls(self) -> Calls | None:
        tree = self._tree or self._stopping_tree
        calls: Calls | None = None if tree is None else tree.getServiceNamed("calls")
        return calls

    def site_of(self, role: Role) -> ServeSite:
        """
        Return the site of the listener with a role, e.g. to serve it over another transport.

        :raise KeyError: when there is no such listener.
        """
        if self._tree is None:
            raise KeyError(role)
        site: ServeSite = self._tree.getServiceNamed("listeners").site_of(role)
        return site

    def grpc_factory(self, role: Role) -> Factory:
        """
        Return the protocol factory of the gRPC listener with a role, e.g. to serve it over another transport.

        :raise KeyError: when there is no such listener, or gRPC is not served.
        """
        if self._tree is None:
            raise KeyError(role)
        factory: Factory = self._tree.getServiceNamed("listeners").grpc_of(role)
        return factory
