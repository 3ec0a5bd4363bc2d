# SPDX-License-Identifier: Apache-2.0
"""
Make the listeners of gRPC, where the extra ``grpc`` is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from twisted.logger import Logger

from twisted_serve.assembly.instrumentation import Instrumentation
from twisted_serve.assembly.listeners import Opening
from twisted_serve.config.options import ServerOptions
from twisted_serve.config.values import ConfigError
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.ports import Listener
from twisted_serve.web.listeners import HttpApi

_log = Logger("twisted_serve.server")

# The distributions of the extra, by the modules that need them.
_EXTRA = {"h2": "h2", "google.protobuf": "protobuf"}

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
    api: HttpApi,
    instrumentation: Instrumentation,
) -> list[Opening]:
    """Return the gRPC listeners with their factories."""
    return []
