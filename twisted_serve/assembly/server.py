# SPDX-License-Identifier: Apache-2.0
"""
Build the tree of services of a server.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from twisted_serve import COMPATIBLE_WITH
from twisted_serve.archives.orphans import WorkDirectory
from twisted_serve.assembly.dependencies import Dependencies, visible_environment
from twisted_serve.assembly.files import KeyFileRemoval, WorkFiles
from twisted_serve.assembly.fronts import fronts_of
from twisted_serve.assembly.grpc import grpc_openings, serves_grpc
from twisted_serve.assembly.instrumentation import Instrumentation, pool_readings
from twisted_serve.assembly.keys import Announcement, Keys, given_sources, key_file_of, make_keyring
from twisted_serve.assembly.listeners import Connections, Listeners, Requests, http_openings
from twisted_serve.assembly.loading import Models, Readiness, Workers
from twisted_serve.assembly.mounts import Mounts
from twisted_serve.assembly.named_keys import StoreWatch, keys_plane_of, live_keys_of
from twisted_serve.assembly.pools import pool_factory, sequence_headers, settings_resolver
from twisted_serve.assembly.stores import installer_of, stores_of
from twisted_serve.assembly.tree import Closing, Deadline, ServiceTree
from twisted_serve.auth.audit import AuditLog
from twisted_serve.auth.expiry import ExpiryChecker, replaced_ahead
from twisted_serve.auth.given import Source, read_given
from twisted_serve.auth.given_watch import GivenWatch
from twisted_serve.auth.key_file import KeyFile
from twisted_serve.auth.metrics_token import MetricsToken
from twisted_serve.auth.tokens import Token, TokenKind
from twisted_serve.config.options import ServerOptions
from twisted_serve.endpoints import by_segment
from twisted_serve.eventloop.threads import DeferToThread, Threads, in_own_thread
from twisted_serve.eventloop.turns import TurnWatch
from twisted_serve.inprocess.calls import Calls
from twisted_serve.inprocess.models import Models as ChangedModels
from twisted_serve.inprocess.predictions import Predictions
from twisted_serve.interfaces import IServeReactor
from twisted_serve.interfaces.events import Notify
from twisted_serve.listening.admission import Admission, connection_limit
from twisted_serve.listening.certificates import CertificateWatch, LiveCertificate
from twisted_serve.listening.ports import plan_grpc_listeners, plan_listeners, tls_files
from twisted_serve.models.snapshot import RecordedVersion, Snapshot
from twisted_serve.planes.access import Access, ApplicationAccess, OpenAccess, TokenAccess
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.planes.live_keys import LiveKeys
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
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.listeners import HttpApi
from twisted_serve.workers.local import LocalProvider

_log = Logger("twisted_serve.server")

# Bytes of small chunks in flight when a handler is told that its client does not read.
UNSENT_CHUNKS = 1 << 21

# Seconds that clients have to read their last responses when the server stops.
LAST_ANSWERS = 5.0

# The values of ``prediction_error_detail``; ``None``: on listeners that only this machine can reach.
_ERROR_DETAIL = {"auto": None, "true": True, "false": False}


def cors_headers(options: ServerOptions) -> dict[bytes, bytes]:
    """
    Return the CORS headers of every response (``cors_allowed_*``), unchanged.

    :raise ValueError: naming the option with a character that is invalid in a header.
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
    """Return the maximum number of connections; log a warning when the limit of open files lowers it."""
    most = connection_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if options.max_connections > most:
        _log.warn(
            "max_connections is {wanted}, but the limit of open files (ulimit -n) is enough for {most}: that is taken",
            wanted=options.max_connections,
            most=most,
        )
    return min(options.max_connections or most, most)


def assemble(
    reactor: IServeReactor, options: ServerOptions, dependencies: Dependencies, listen: bool = True
) -> ServiceTree:
    """
    Build the tree of a server's services; none is started, and no listener is open.

    Only the work directory and the key file are made, and removed if it fails.

    :param listen: Whether the server has listeners.
    :raise OSError: when the key file or the working directory cannot be written.
    :raise ValueError: for an option that cannot be used.
    """
    threads = Threads(dependencies.defer_to_thread or partial(deferToThreadPool, reactor, reactor.getThreadPool()))
    # Keys are rare and urgent: they do not wait behind archives.
    key_threads = Threads(dependencies.defer_to_thread or in_own_thread(reactor))
    account, worker_reactor, environment = _worker_account(reactor, options, dependencies)
    catalogue = Catalogue()
    instrumentation = Instrumentation(reactor, options, dependencies, threads)
    metrics = instrumentation.metrics
    metrics.watch_pools(partial(pool_readings, catalogue))
    provider = dependencies.provider or LocalProvider(
        worker_reactor,
        on_metric_line=metrics.emitter.receive,
        on_metrics=metrics.emitter.take,
        template_environment=environment if options.worker_start == "fork" else None,
    )
    memory = Memory(threads, reactor.seconds)
    extra_headers = cors_headers(options)
    metrics_token = None if options.metrics_token_file is None else MetricsToken(options.metrics_token_file)
    sources = given_sources(options, dependencies)
    work = WorkDirectory.make(options.temp_directory)
    key_file = key_file_of(options, sources)
    try:
        store, workflow_store = stores_of(reactor, options, work.path, threads, account)
        installer = installer_of(worker_reactor, options, environment, work.path, threads, account)
        snapshots = Snapshots(dependencies.snapshots, catalogue, dependencies.now, threads)
        restored = None if options.model_snapshot is None else restorable(options.model_snapshot, store)
        registrar = Registrar(
            catalogue,
            store,
            settings_resolver(options, dependencies),
            pool_factory(reactor, options, dependencies, provider, environment, metrics, instrumentation.notify),
            default_handler=options.default_service_handler,
            retire_timeout=options.unregister_model_timeout,
            installer=installer if options.install_py_dep_per_model else None,
            changed=snapshots.changed,
            notify=instrumentation.notify,
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
        listeners = plan_listeners(options) if listen else []
        grpc_listeners = plan_grpc_listeners(options) if listen and serves_grpc(options) else []
        certificate = None
        if any(listener.address.secure for listener in (*listeners, *grpc_listeners)):
            certificate = LiveCertificate(
                tls_files(options), dependencies.now, reactor, dependencies.defer_to_thread or in_own_thread(reactor)
            )
        live_keys = None if sources is None else live_keys_of(reactor, options, key_threads)
        access, given = _access_of(
            reactor, options, dependencies, sources, key_file, instrumentation, key_threads, live_keys
        )
        turns = TurnWatch(reactor, options.debug_turn_limit_ms / 1000) if options.debug_turn_limit_ms else None
        admission = Admission(max_connections(options), reactor, metrics.answered)
        limits = Limits(
            headers=options.max_header_size,
            body=options.max_request_size,
            header_timeout=options.header_timeout,
            body_timeout=options.body_timeout,
            keepalive_timeout=options.keepalive_timeout,
            # The chunk that could not be sent, and one more that its handler was already producing.
            unsent=2 * options.max_response_size + UNSENT_CHUNKS,
        )
        api = HttpApi(
            inference=inference,
            management=management,
            workflows=workflows,
            metadata=Metadata(catalogue, reactor.seconds, memory),
            metrics=metrics,
            access=access,
            defer_to_thread=threads,
            version=COMPATIBLE_WITH,
            limits=limits,
            refusal_status=options.token_refusal_status,
            exempt_ping=options.token_exempt_ping,
            serve_metrics=options.enable_metrics_api,
            open_inference=options.ts_open_inference_protocol,
            envelope=options.service_envelope,
            extra_headers=extra_headers,
            keys=keys_plane_of(options, dependencies, live_keys, access, catalogue, workflows),
            endpoints=tuple(by_segment(dependencies.endpoints).values()),
            look=partial(overview, catalogue, shown_settings(options)),
            server_timing=options.server_timing,
            fast_lane=options.fast_lane,
            admission=admission,
            error_detail=_ERROR_DETAIL[options.prediction_error_detail],
            metrics_token=metrics_token,
            tracer=instrumentation.tracer,
        )
        calls = Calls(
            Predictions(inference, reactor.seconds, threads, options.max_request_size, limits.unsent),
            ChangedModels(catalogue, registrar, management, store.empty_directory),
        )
        http = http_openings(reactor, api, listeners)
        grpc, end_watches = grpc_openings(
            reactor, options, grpc_listeners, api, admission, access, sequence_headers(options)
        )
        fronts = fronts_of(reactor, options, environment, http, limits, admission)
        factories = [opening.factory for opening in (*http, *grpc)]
        deadline = Deadline(reactor, options.shutdown_timeout)
        models = Models(catalogue, management, deadline)
        # In the order of the start; the order of the stop is the reverse.
        children = [
            WorkFiles(work, options.temp_directory, _stores_of(options), lambda: catalogue.stopping, threads),
            *([] if key_file is None else [KeyFileRemoval(key_file, reactor)]),
            instrumentation,
            Closing("admission", admission.close),
            Closing("traces", instrumentation.send_last_spans),
            Closing("key threads", key_threads.idle),
            Closing("threads", threads.idle),
            Closing("installer", installer.stop),
            Workers(provider),
            *fronts.services,
            Closing("connections", partial(_all_closed, fronts.connections, factories)),
            models,
            Closing("workflows", lambda: workflows.finish(deadline.left())),
            Requests([*fronts.connections, *factories], deadline),
            Closing("watches", end_watches),
            Mounts(reactor, api),
            calls,
            Closing("snapshots", snapshots.end),
            Announcement(sources is not None, key_file, dependencies.authorizer, [*listeners, *grpc_listeners]),
            Listeners(reactor, http, grpc, certificate, admission),
            Keys(access, key_file, metrics_token, given, live_keys),
            Readiness(reactor, options, models, store, _recorded(restored), provider, snapshots, turns, threads),
            *([] if given is None else [given]),
            *_attendants(reactor, options, dependencies, turns, certificate, access, instrumentation.notify),
            *([] if live_keys is None else [StoreWatch(live_keys, reactor)]),
        ]
        tree = ServiceTree()
        for child in children:
            child.setServiceParent(tree)
    except BaseException:
        if key_file is not None:
            key_file.end()
        work.remove()
        raise
    return tree


def _attendants(
    reactor: IServeReactor,
    options: ServerOptions,
    dependencies: Dependencies,
    turns: TurnWatch | None,
    certificate: LiveCertificate | None,
    access: Access,
    notify: Notify,
) -> Iterator[Service]:
    """Make the services with timers, which stop first."""
    if dependencies.trim_heap is not None:
        yield _named("heap", trimming(reactor, dependencies.trim_heap))
    if turns is not None:
        yield _named("turns", turns)
    if certificate is not None:
        yield _named("certificates", CertificateWatch(certificate, reactor))
    if isinstance(access, TokenAccess):
        yield _named("expiry", _expiry_checker(reactor, options, dependencies, access, notify))


def _recorded(restored: Snapshot | None) -> tuple[RecordedVersion, ...]:
    return () if restored is None else restored.versions


async def _all_closed(fronts: Sequence[Connections], factories: Sequence[Connections]) -> None:
    """Wait until all connections are closed; those that fronts return are closed in the server's own process."""
    for each in fronts:
        await each.all_closed(LAST_ANSWERS)
    await DeferredList([factory.all_closed(LAST_ANSWERS) for factory in factories])


def _stores_of(options: ServerOptions) -> list[Path]:
    return list({store for store in (options.model_store, options.workflow_store) if store is not None})


def _named(name: str, service: Service) -> Service:
    service.setName(name)
    return service


def _worker_account(
    reactor: IServeReactor, options: ServerOptions, dependencies: Dependencies
) -> tuple[Account | None, IServeReactor, dict[str, str]]:
    """Return the account of the workers if it is not the server's, the reactor that starts them, their environment."""
    environment = visible_environment(dependencies.environ, options)
    if options.worker_user is None:
        return None, reactor, environment
    account = Account.of(options.worker_user)
    return account, account.reactor(reactor), environment | account.environment


def _access_of(
    reactor: IServeReactor,
    options: ServerOptions,
    dependencies: Dependencies,
    sources: Sequence[Source] | None,
    key_file: KeyFile | None,
    instrumentation: Instrumentation,
    defer_to_thread: DeferToThread,
    live_keys: LiveKeys | None,
) -> tuple[Access, GivenWatch | None]:
    """
    Return how clients are authorized, and the watch of the keys that are given.

    :param sources: The sources of given keys; ``None`` when token authorization is disabled.
    """
    metrics = instrumentation.metrics
    audit_log = AuditLog(
        reactor.seconds, metrics.token_refused, metrics.token_rotated, instrumentation.notify, metrics.keys.count
    )
    if dependencies.authorizer is not None:
        return ApplicationAccess(dependencies.authorizer, dependencies.authorizer_timeout, audit_log), None
    if sources is None:
        return OpenAccess(), None
    given = read_given(sources)
    keyring = make_keyring(options, dependencies, key_file, given.tokens, defer_to_thread)

    def left(kind: TokenKind) -> float:
        return keyring.seconds_left(kind, dependencies.now())

    if live_keys is not None:
        live_keys.on_gone(audit_log.keys_gone)
        live_keys.on_gone(metrics.keys.forget)
    metrics.watch_tokens({kind.value: partial(left, kind) for kind in (TokenKind.MANAGEMENT, TokenKind.INFERENCE)})
    rotation = Rotation(keyring, dependencies.now, audit_log)
    named = None if live_keys is None else live_keys.named
    access = TokenAccess(keyring, rotation, audit_log, dependencies.now, named)
    # A file system that hangs must not delay the stop, so these threads are not waited for.
    threads = dependencies.defer_to_thread or in_own_thread(reactor)
    return access, GivenWatch(sources, given.states, rotation.exchange, reactor, threads) if sources else None


def _expiry_checker(
    reactor: IServeReactor, options: ServerOptions, dependencies: Dependencies, access: TokenAccess, notify: Notify
) -> ExpiryChecker:
    def replace(kind: TokenKind) -> Deferred[Token]:
        return access.rotation.replace(kind, by="token_auto_rotate")

    return ExpiryChecker(
        access.keyring,
        reactor,
        dependencies.now,
        timedelta(minutes=options.token_warning_min),
        replace if options.token_auto_rotate else None,
        notify,
        replaced_ahead(timedelta(seconds=options.token_overlap_sec), timedelta(minutes=options.token_expiration_min)),
    )
