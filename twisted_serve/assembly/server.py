# SPDX-License-Identifier: Apache-2.0
"""
This module implements the assembly of a server from its parts, and their taking apart; it knows all of them.
"""

from __future__ import annotations

import atexit
import os
import resource
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from twisted_serve import COMPATIBLE_WITH
from twisted_serve.archives.orphans import WorkDirectory, remove_orphans
from twisted_serve.archives.store import ModelStore
from twisted_serve.assembly.dependencies import Dependencies, visible_environment
from twisted_serve.assembly.instrumentation import Instrumentation, pool_readings
from twisted_serve.assembly.pools import pool_factory, settings_resolver
from twisted_serve.assembly.stores import installer_of, stores_of
from twisted_serve.auth.audit import AuditLog
from twisted_serve.auth.expiry import ExpiryChecker
from twisted_serve.auth.key_file import KeyFile
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.metrics_token import MetricsToken
from twisted_serve.auth.tokens import Token, TokenKind
from twisted_serve.config.addresses import is_loopback
from twisted_serve.config.options import ServerOptions
from twisted_serve.endpoints import by_segment
from twisted_serve.eventloop.threads import DeferToThread, Threads, in_own_thread
from twisted_serve.eventloop.turns import TurnWatch
from twisted_serve.interfaces import IServeReactor, IWorkerProvider
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.models.snapshot import Snapshot
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.planes.management import ManagementPlane
from twisted_serve.planes.memory_usage import Memory
from twisted_serve.planes.metadata import Metadata
from twisted_serve.planes.overview import overview, shown_settings
from twisted_serve.planes.registrar import Registrar
from twisted_serve.planes.rotation import Rotation
from twisted_serve.planes.snapshots import Snapshots, restorable
from twisted_serve.planes.workflows import WorkflowPlane
from twisted_serve.system.account import Account
from twisted_serve.system.heap import trimming
from twisted_serve.web.http.admission import Admission, connection_limit
from twisted_serve.web.http.certificates import CertificateWatch, LiveCertificate
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.http.ports import Listener, plan_listeners, tls_files
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.listeners import HttpApi, HttpAuth, NoHttpAuth
from twisted_serve.workers.local import LocalProvider
from twisted_serve.workers.packages import Installer

_log = Logger("twisted_serve.server")

# Bytes of small chunks which are under way when a handler is told that its client does not read.
UNSENT_CHUNKS = 1 << 21

# Seconds that clients have to take their last answers when the server stops.
LAST_ANSWERS = 5.0

# What ``prediction_error_detail`` says; ``None`` leaves it to the listener.
_ERROR_DETAIL = {"auto": None, "true": True, "false": False}


def cors_headers(options: ServerOptions) -> dict[bytes, bytes]:
    """
    Return the headers which let pages of other origins read answers (``cors_allowed_*``), word for word.

    :raise ValueError: naming the option with a character that no header can have.
    """
    headers = {}
    for name in ("origin", "methods", "headers"):
        value = getattr(options, f"cors_allowed_{name}")
        if value:
            try:
                headers[b"Access-Control-Allow-" + name.title().encode("ascii")] = value.encode("latin-1")
            except UnicodeEncodeError:
                raise ValueError(f"cors_allowed_{name} is {value!r}, which cannot be sent in a header") from None
    return headers


def max_connections(options: ServerOptions) -> int:
    """Return how many connections there may be: not more than the limit of open files allows, which is warned about."""
    most = connection_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if options.max_connections > most:
        _log.warn(
            "max_connections is {wanted}, but the limit of open files (ulimit -n) is enough for {most}: that is taken",
            wanted=options.max_connections,
            most=most,
        )
    return min(options.max_connections or most, most)


@define(eq=False)
class Parts:
    """Everything which a started server consists of."""

    reactor: IServeReactor
    work: WorkDirectory
    provider: IWorkerProvider
    store: ModelStore
    threads: Threads
    key_threads: Threads
    catalogue: Catalogue
    installer: Installer
    management: ManagementPlane
    snapshots: Snapshots
    restored: Snapshot | None
    workflows: WorkflowPlane
    faces: HttpApi
    sites: list[tuple[Listener, ServeSite]]
    ports: list[IListeningPort]
    key_file: KeyFile | None
    attendants: list[Service]
    certificate: LiveCertificate | None
    trigger: Any
    measuring: Instrumentation
    turns: TurnWatch | None = None
    delay: Deferred[None] = field(factory=lambda: succeed(None))
    owner: int = field(factory=os.getpid)

    @classmethod
    def assemble(cls, reactor: IServeReactor, options: ServerOptions, world: Dependencies) -> Parts:
        """
        Put a server together; no listener is open yet.

        Nothing is left when it fails.

        :raise OSError: when the key file or the working directory cannot be written.
        :raise ValueError: for an option that cannot be used.
        """
        threads = Threads(world.defer_to_thread or partial(deferToThreadPool, reactor, reactor.getThreadPool()))
        # Keys are rare and urgent: they do not wait behind archives.
        key_threads = Threads(world.defer_to_thread or in_own_thread(reactor))
        account, births, environment = _births(reactor, options, world)
        catalogue = Catalogue()
        measuring = Instrumentation(reactor, options, world, threads)
        metrics = measuring.metrics
        metrics.watch_pools(partial(pool_readings, catalogue))
        provider = world.provider or LocalProvider(
            births,
            on_metric_line=metrics.emitter.receive,
            on_metrics=metrics.emitter.take,
            template_environment=environment if options.worker_start == "fork" else None,
        )
        memory = Memory(threads, reactor.seconds)
        extra_headers = cors_headers(options)
        metrics_token = None if options.metrics_token_file is None else MetricsToken(options.metrics_token_file)
        work = WorkDirectory.make(options.temp_directory)
        key_file = None if options.disable_token_authorization else KeyFile(options.token_key_file)
        try:
            store, workflow_store = stores_of(reactor, options, work.path, threads, account)
            installer = installer_of(births, options, environment, work.path, threads, account)
            snapshots = Snapshots(world.snapshots, catalogue, world.now, threads)
            restored = None if options.model_snapshot is None else restorable(options.model_snapshot, store)
            registrar = Registrar(
                catalogue,
                store,
                settings_resolver(options, world),
                pool_factory(reactor, options, world, provider, environment, metrics),
                default_handler=options.default_service_handler,
                retire_timeout=options.unregister_model_timeout,
                installer=installer if options.install_py_dep_per_model else None,
                changed=snapshots.changed,
            )
            management = ManagementPlane(catalogue, registrar, memory, enabled=options.enable_model_api)
            inference = InferencePlane(catalogue, metrics)
            workflows = WorkflowPlane(
                workflow_store,
                registrar,
                inference,
                reactor,
                enabled=options.enable_model_api,
                retire_timeout=options.unregister_model_timeout,
            )
            tokens: HttpAuth | NoHttpAuth = NoHttpAuth()
            trigger = None
            attendants: list[Service] = [] if world.trim_heap is None else [trimming(reactor, world.trim_heap)]
            turns = None
            if options.debug_turn_limit_ms:
                turns = TurnWatch(reactor, options.debug_turn_limit_ms / 1000)
                attendants.append(turns)
            listeners = plan_listeners(options)
            certificate = None
            if any(listener.address.secure for listener in listeners):
                certificate = LiveCertificate(
                    tls_files(options), world.now, reactor, world.defer_to_thread or in_own_thread(reactor)
                )
                attendants.append(CertificateWatch(certificate, reactor))
            if key_file is not None:
                tokens = _tokens(reactor, options, world, key_file, metrics, key_threads)
                attendants.append(_expiry_checker(reactor, options, world, tokens))
                # After those which wait for a server that stops: it is needed as long as somebody is let in.
                trigger = reactor.addSystemEventTrigger("after", "shutdown", key_file.remove)
        except BaseException:
            if key_file is not None:
                key_file.remove()
            work.remove()
            raise
        faces = HttpApi(
            inference=inference,
            management=management,
            workflows=workflows,
            metadata=Metadata(catalogue, reactor.seconds, memory),
            metrics=metrics,
            tokens=tokens,
            defer_to_thread=threads,
            version=COMPATIBLE_WITH,
            limits=Limits(
                headers=options.max_header_size,
                body=options.max_request_size,
                header_timeout=options.header_timeout,
                body_timeout=options.body_timeout,
                keepalive_timeout=options.keepalive_timeout,
                # The chunk that could not be sent, and one more that its handler was at already.
                unsent=2 * options.max_response_size + UNSENT_CHUNKS,
            ),
            exempt_ping=options.token_exempt_ping,
            serve_metrics=options.enable_metrics_api,
            open_inference=options.ts_open_inference_protocol,
            envelope=options.service_envelope,
            extra_headers=extra_headers,
            endpoints=tuple(by_segment(world.endpoints).values()),
            look=partial(overview, catalogue, shown_settings(options)),
            server_timing=options.server_timing,
            admission=Admission(max_connections(options), reactor, metrics.answered),
            error_detail=_ERROR_DETAIL[options.prediction_error_detail],
            metrics_token=metrics_token,
            tracer=measuring.tracer,
        )
        sites = [(each, faces.site(each.roles, reactor, is_loopback(each.address))) for each in listeners]
        parts = cls(
            reactor,
            work,
            provider,
            store,
            threads,
            key_threads,
            catalogue,
            installer,
            management,
            snapshots,
            restored,
            workflows,
            faces,
            sites,
            [],
            key_file,
            attendants,
            certificate,
            trigger,
            measuring,
            turns,
        )
        # A program that ends without stopping its reactor or its services, by ``sys.exit`` or an exception, comes by.
        atexit.register(parts.remove_at_exit)
        return parts

    def tidy(self, options: ServerOptions) -> None:
        """Begin to remove what killed servers have left; the start does not wait for it."""
        stores = {store for store in (options.model_store, options.workflow_store) if store is not None}
        tidying = self.threads(
            remove_orphans,
            options.temp_directory,
            list(stores),
            lambda: self.catalogue.stopping,
        )

        def tell(removed: list[str]) -> None:
            if removed:
                _log.info("Removed what a killed server has left: {paths}", paths=removed)

        tidying.addCallback(tell)
        tidying.addErrback(
            lambda failure: _log.warn("Cannot remove what a killed server has left: {why}", why=failure.value)
        )

    def scan(self) -> Deferred[tuple[str, ...]]:
        """List all models of the model store."""
        return self.threads(self.store.scan_all)

    def close_ports(self) -> Deferred[Any]:
        """Stop listening."""
        ports, self.ports = self.ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def remove_files(self) -> None:
        """Remove the key file and everything that was unpacked."""
        if self.key_file is not None:
            self.key_file.remove()
            self.reactor.removeSystemEventTrigger(self.trigger)
        self.work.remove()
        atexit.unregister(self.remove_at_exit)

    def remove_at_exit(self) -> None:
        """Remove all files, unless this is a process that the server's was forked to."""
        if os.getpid() == self.owner:
            if self.key_file is not None:
                self.key_file.remove()
            self.work.remove()

    def hurry(self) -> None:
        """Give up what is being answered, while winding down."""
        self.delay.cancel()
        for _listener, site in self.sites:
            site.abort()
        self.management.hurry()

    async def wind_down(self, delay: float, grace: float) -> None:
        """
        Stop, as :meth:`ModelServer.stopService` says.

        :param delay: Seconds to be unready, and serve, before anything else: balancers see that on new connections.
        :param grace: Seconds that what is being answered has.
        """
        self.catalogue.stopping = True
        try:
            if delay:
                self.delay = deferLater(self.reactor, delay)
                with suppress(CancelledError):
                    await self.delay
            if self.key_file is not None:
                self.key_file.remove()
            await self.close_ports()
            await self.snapshots.end()
            for _listener, site in self.sites:
                site.finish_up()
            end = self.reactor.seconds() + grace
            await self.workflows.finish(grace)
            await self.management.retire_all(max(0.0, end - self.reactor.seconds()))
            await DeferredList([site.all_closed(LAST_ANSWERS) for _listener, site in self.sites])
            await self.provider.stop()
            await self.installer.stop()
            await self.threads.idle()
            await self.key_threads.idle()
            await self.measuring.send_last_spans()
        finally:
            if self.faces.admission is not None:
                self.faces.admission.close()
            self.measuring.stop()
            self.remove_files()


def _births(
    reactor: IServeReactor, options: ServerOptions, world: Dependencies
) -> tuple[Account | None, IServeReactor, dict[str, str]]:
    """Return whose processes workers are, if not the server's user's; what starts them; their environment."""
    environment = visible_environment(world.environ, options)
    if options.worker_user is None:
        return None, reactor, environment
    account = Account.of(options.worker_user)
    return account, account.reactor(reactor), environment | account.environment


def _tokens(
    reactor: IServeReactor,
    options: ServerOptions,
    world: Dependencies,
    key_file: KeyFile,
    metrics: ServerMetrics,
    defer_to_thread: DeferToThread,
) -> HttpAuth:
    lifetime = timedelta(minutes=options.token_expiration_min)
    keyring = Keyring.create(key_file.save, world.entropy, lifetime, world.now(), world.uptime, defer_to_thread)
    journal = AuditLog(reactor.seconds, metrics.token_refused, metrics.token_rotated)

    def left(kind: TokenKind) -> float:
        return keyring.seconds_left(kind, world.now())

    metrics.watch_tokens({kind.value: partial(left, kind) for kind in (TokenKind.MANAGEMENT, TokenKind.INFERENCE)})
    return HttpAuth(keyring, Rotation(keyring, world.now, journal), journal, options.token_refusal_status, world.now)


def _expiry_checker(
    reactor: IServeReactor, options: ServerOptions, world: Dependencies, tokens: HttpAuth
) -> ExpiryChecker:
    def replace(kind: TokenKind) -> Deferred[Token]:
        return tokens.rotation.replace(kind, by="token_auto_rotate")

    return ExpiryChecker(
        tokens.keyring,
        reactor,
        world.now,
        timedelta(minutes=options.token_warning_min),
        replace if options.token_auto_rotate else None,
    )
