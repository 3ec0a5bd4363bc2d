# SPDX-License-Identifier: Apache-2.0
"""
Make the listeners of gRPC, where the extra ``grpc`` is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from twisted_serve.assembly.listeners import Opening
from twisted_serve.config.addresses import is_loopback
from twisted_serve.config.listener_options import DEFAULT_HOST
from twisted_serve.config.options import ServerOptions
from twisted_serve.config.setting import MAX_SECONDS
from twisted_serve.config.values import ConfigError
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.admission import Admission
from twisted_serve.listening.ports import Listener
from twisted_serve.listening.roles import Role
from twisted_serve.logs import GRPC_INFERENCE_BOUND, GRPC_MANAGEMENT_BOUND
from twisted_serve.planes.access import Access
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.web.listeners import HttpApi

_log = Logger("twisted_serve.server")

# The distributions of the extra, by the modules that need them.
_EXTRA = {"h2": "h2", "hpack": "hpack", "google.protobuf": "protobuf"}

_BOUND = {Role.INFERENCE: GRPC_INFERENCE_BOUND, Role.MANAGEMENT: GRPC_MANAGEMENT_BOUND}

_MISSING = "gRPC needs the extra grpc: pip install 'twisted-serve[grpc]'"


def serves_grpc(options: ServerOptions) -> bool:
    """
    Return whether gRPC is on and its libraries are installed; log a line if only they are missing.

    :raise ConfigError: if they are missing and ``enable_grpc`` is true.
    """
    if options.enable_grpc == "false":
        return False
    missing = [name for module, name in _EXTRA.items() if not _is_installed(module)]
    if not missing:
        return True
    if options.enable_grpc == "true":
        raise ConfigError(f"{_MISSING} (missing: {', '.join(missing)})", "enable_grpc")
    _log.warn("{reason}; its ports stay closed", reason=_MISSING)
    return False


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # The package that it is in is missing.
        return False


def grpc_openings(
    reactor: IServeReactor,
    options: ServerOptions,
    listeners: Sequence[Listener],
    http: HttpApi,
    admission: Admission,
    access: Access,
    sequences: SequenceHeaders,
) -> tuple[list[Opening], Callable[[], None]]:
    """
    Return the gRPC listeners with their factories, and the function that ends the calls that last.

    :param http: The HTTP API, which has the same use cases.
    """
    if not listeners:
        return [], lambda: None
    from twisted_serve.rpc.engine.limits import RpcLimits  # noqa: PLC0415 - needs the extra
    from twisted_serve.rpc.listeners import GrpcApi  # noqa: PLC0415

    api = GrpcApi(
        inference=http.inference,
        management=http.management,
        metadata=http.metadata,
        metrics=http.metrics,
        access=access,
        reactor=reactor,
        defer_to_thread=http.defer_to_thread,
        version=http.version,
        limits=RpcLimits(
            message=options.max_request_size,
            headers=options.max_header_size,
            header_timeout=options.header_timeout,
            body_timeout=options.body_timeout,
            stranger_timeout=options.keepalive_timeout,
            unsent=http.limits.unsent,
        ),
        ages={
            Role.INFERENCE: _seconds(
                options.grpc_inference_max_connection_age_ms, options.grpc_inference_max_connection_age_grace_ms
            ),
            Role.MANAGEMENT: _seconds(
                options.grpc_management_max_connection_age_ms, options.grpc_management_max_connection_age_grace_ms
            ),
        },
        most_joined=options.max_response_size,
        sequences=sequences,
        exempt_ping=options.token_exempt_ping,
        open_inference=options.ts_open_inference_protocol,
        reflection=options.grpc_reflection,
        admission=admission,
        error_detail=http.error_detail,
        tracer=http.tracer,
    )
    openings = [
        Opening(each, api.factory(each.roles, is_loopback(each.address)), QuietTls, _BOUND, _is_required(each, options))
        for each in listeners
    ]
    return openings, api.health.close


def _is_required(listener: Listener, options: ServerOptions) -> bool:
    """
    Return whether a listener was asked for.

    The default ports are opened because the extra is installed: another server of the machine may have them.
    """
    asked = listener.setting.removesuffix("address")
    unasked = getattr(options, f"{asked}port") is None and getattr(options, listener.setting) == DEFAULT_HOST
    return options.enable_grpc == "true" or not unasked


class QuietTls(TLSMemoryBIOFactory):
    """Makes TLS connections without a log line for each."""

    noisy = False


def _seconds(*milliseconds: int | None) -> tuple[float | None, float | None]:
    """Return two times in seconds; one that is longer than a year is no limit, as TorchServe's default."""
    first, second = (None if ms is None or ms > MAX_SECONDS * 1000 else ms / 1000 for ms in milliseconds)
    return first, second
