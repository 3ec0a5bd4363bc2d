# SPDX-License-Identifier: Apache-2.0
"""
This module implements the server as a service: its start, its readiness, its end.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.assembly.dependencies import Dependencies
from twisted_serve.assembly.server import Parts
from twisted_serve.auth.tokens import KeySet
from twisted_serve.config.addresses import Address, is_loopback
from twisted_serve.config.options import ServerOptions, with_absolute_paths
from twisted_serve.config.startup_models import ALL_MODELS, StartupModel, parse_load_models
from twisted_serve.errors import ServeError
from twisted_serve.eventloop.threads import end_of
from twisted_serve.interfaces import IServeReactor
from twisted_serve.logs import (
    INFERENCE_BOUND,
    MANAGEMENT_BOUND,
    METRICS_BOUND,
    MODEL_NOT_LOADED,
    TOKEN_BLOCK,
    TOKEN_DISABLED,
    TOKEN_ENABLED,
)
from twisted_serve.planes.startup import StartupFailure, StartupOutcome, reason_of
from twisted_serve.web.http.ports import bound_address, open_port
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.listeners import HttpAuth
from twisted_serve.web.roles import Role

__all__ = ["Dependencies", "ModelServer", "Role", "StartupFailure", "StartupOutcome"]

_BOUND = {Role.INFERENCE: INFERENCE_BOUND, Role.MANAGEMENT: MANAGEMENT_BOUND, Role.METRICS: METRICS_BOUND}


class ModelServer(MultiService):
    """
    A model server, as a service for an application of yours or ours.

    Starting it binds its listeners, or raises and leaves nothing behind.

    :ivar ready: Fires when every start-up model has its workers or has failed to get them, and when
        the server is stopped before that, with the :class:`~twisted_serve.planes.startup.StartupOutcome`.
    :ivar addresses: Where each listener really is, by role, once started.
    :param reactor: Any reactor; nothing here uses the global one.
    """

    _log = Logger("twisted_serve.server")

    def __init__(
        self, reactor: IServeReactor, options: ServerOptions, dependencies: Dependencies | None = None
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._options = options
        self._dependencies = dependencies or Dependencies()
        self._parts: Parts | None = None
        self._leaving: Parts | None = None
        self._winding_down: Deferred[None] | None = None
        self.ready: Deferred[StartupOutcome] = Deferred()
        self.addresses: dict[Role, Address] = {}

    @property
    def keys(self) -> KeySet | None:
        """The live tokens; ``None`` when there are none, or the server is not started."""
        if self._parts is None or not isinstance(self._parts.faces.tokens, HttpAuth):
            return None
        return self._parts.faces.tokens.keyring.keys

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be in any log: the tokens, those replaced lately too, and that of the metrics."""
        # Those of a server that is being stopped, or was, are in lines which are yet to be written.
        parts = self._parts or self._leaving
        if parts is None:
            return ()
        tokens, metrics = parts.faces.tokens, parts.faces.metrics_token
        keys = tokens.keyring.secrets() if isinstance(tokens, HttpAuth) else ()
        return (*(key.decode() for key in keys), *(() if metrics is None else (metrics.secret,)))

    def startService(self) -> None:
        """
        Bind the listeners and begin to load the start-up models.

        :raise CannotListenError: when an address cannot be had.
        :raise OSError: when the key file or the working directory cannot be written.
        :raise ValueError: for a certificate, a header's value or a ``model_snapshot`` that cannot be used.
        :raise RuntimeError: when it is running already.
        """
        if self._parts is not None:
            raise RuntimeError("the server is running already")
        restoring = self._options.model_snapshot is not None
        startup_models = () if restoring else parse_load_models(self._options.load_models)
        if self._winding_down is not None:
            # Who waits for the last run goes on waiting for that one.
            self.ready = Deferred()
        # Workers run in directories of their own, where a relative path would mean something else.
        options = with_absolute_paths(self._options, Path.cwd())
        parts = self._parts = Parts.assemble(self._reactor, options, self._dependencies)
        try:
            for attendant in parts.attendants:
                attendant.setServiceParent(self)
            self._announce_tokens(parts)
            self._bind(parts)
        except BaseException:
            parts.close_ports()
            self._disown_attendants(parts)
            parts.measuring.stop()
            parts.remove_files()
            self._parts = None
            raise
        super().startService()
        parts.measuring.start()
        parts.tidy(options)
        if startup_models or (parts.restored is not None and parts.restored.versions):
            parts.provider.prepare()
        parts.catalogue.starting = True
        loading = Deferred.fromCoroutine(self._load(parts, startup_models))
        loading.addErrback(self._load_failed)
        loading.addCallback(self.ready.callback)

    def stopService(self) -> Deferred[None]:
        """
        Stop: be unready, take no more, finish what is being answered, end the workers, remove all files.

        :return: Fires when nothing is left; also when it was asked to stop before.
        """
        parts, self._parts = self._parts, None
        self.addresses = {}
        stopped = maybeDeferred(super().stopService)
        if parts is not None:
            self._disown_attendants(parts)
            self._leaving = parts
            self._winding_down = Deferred.fromCoroutine(
                parts.wind_down(self._options.shutdown_delay, self._options.shutdown_timeout)
            )
            return self._winding_down
        return stopped if self._winding_down is None else end_of(self._winding_down)

    def hurry(self) -> None:
        """Stop at once, while stopping: what is being answered is given up.  It does nothing else."""
        if self._leaving is not None:
            self._leaving.hurry()

    def reload(self) -> None:
        """
        Read the certificate's files again, and write the key file again with the keys that live.

        Connections that are open keep the certificate they have.
        """
        if self._parts is None:
            return
        if self._parts.certificate is not None:
            self._parts.certificate.renew()
        tokens = self._parts.faces.tokens
        if isinstance(tokens, HttpAuth):
            Deferred.fromCoroutine(tokens.rotation.save_again())

    def site_of(self, role: Role) -> ServeSite:
        """
        Return the site of the listener with a role, e.g. to serve it over a transport of your own.

        :raise KeyError: when there is no such listener.
        """
        if self._parts is None:
            raise KeyError(role)
        return next(site for listener, site in self._parts.sites if listener.roles & role)

    def _announce_tokens(self, parts: Parts) -> None:
        if parts.key_file is not None:
            for line in TOKEN_BLOCK:
                self._log.info(line, path=str(parts.key_file.path))
            self._log.info(TOKEN_ENABLED)
            return
        for listener, _site in parts.sites:
            if listener.roles == Role.METRICS:
                continue
            self._log.warn(TOKEN_DISABLED, address=str(listener.address))
            if not is_loopback(listener.address):
                self._log.critical(
                    "DANGER: {address} is open to the network, and token authorization is disabled",
                    address=str(listener.address),
                )

    def _bind(self, parts: Parts) -> None:
        addresses = {}
        for listener, site in parts.sites:
            port = open_port(self._reactor, listener.address, site, parts.certificate)
            parts.ports.append(port)
            if parts.faces.admission is not None and listener.roles & Role.INFERENCE:
                parts.faces.admission.pause(port)
            address = bound_address(listener.address, port)
            for role in Role:
                if role & listener.roles:
                    addresses[role] = address
                    self._log.info(_BOUND[role], address=str(address))
        self.addresses = addresses

    async def _load(self, parts: Parts, models: tuple[StartupModel, ...]) -> StartupOutcome:
        management, loading = parts.management, []
        try:
            if models == (ALL_MODELS,):
                models = tuple(StartupModel(None, name) for name in await parts.scan())
            recorded = () if parts.restored is None else parts.restored.versions
            loads = [partial(management.restore, version) for version in recorded]
            loads += [partial(management.load_at_startup, model.name, model.url) for model in models]
            for load in loads:
                if parts.catalogue.stopping:
                    break
                loading.append(await load())
        except ServeError as e:
            # The list of all models could not be had.
            self._log.critical(MODEL_NOT_LOADED + ": {error}", url=self._options.load_models, error=reason_of(e))
            loading.append(management.missing(None, "all", reason_of(e)))
        finally:
            parts.catalogue.starting = False
        outcomes = await DeferredList(loading)
        outcome = StartupOutcome(
            len(loading), tuple(failure for _, failure in outcomes if isinstance(failure, StartupFailure))
        )
        # A server that is to end because of a failure has no state worth keeping.
        if not (outcome.failures and self._options.startup_models_required):
            await parts.snapshots.begin()
        if parts.turns is not None and not parts.catalogue.stopping:
            parts.turns.arm()
        return outcome

    def _load_failed(self, failure: Failure) -> StartupOutcome:
        """Log a defect; the server serves what it has."""
        self._log.failure("Loading the start-up models failed", failure)
        return StartupOutcome(1, (StartupFailure(None, "start-up models", type(failure.value).__name__),))

    def _disown_attendants(self, parts: Parts) -> None:
        for attendant in parts.attendants:
            if attendant.parent is not None:
                attendant.disownServiceParent()
