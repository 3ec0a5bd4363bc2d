# SPDX-License-Identifier: Apache-2.0
"""
Define the dependencies of a server: time, entropy, environment, devices, threads, workers.
"""

from __future__ import annotations

import os
import re
import secrets
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from attrs.validators import gt, le

from twisted_serve.auth.given import VARIABLES
from twisted_serve.auth.keyring import Keyring, MakeKeyring
from twisted_serve.auth.tokens import Entropy
from twisted_serve.config.options import SECRETS, ServerOptions, environment_names
from twisted_serve.endpoints import Endpoint
from twisted_serve.eventloop.monotonic import steady_seconds
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.interfaces import IAuthorizer, IWorkerProvider, Now, ServerObserver
from twisted_serve.planes.snapshots import SnapshotFolder
from twisted_serve.system.heap import Trim, heap_trimmer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

# The kernel's list of NVIDIA devices, one directory each.
_NVIDIA = Path("/proc/driver/nvidia/gpus")

# In seconds: a day. More is a mistake, and no timer takes an infinite time.
_LONGEST_WAIT = 86_400.0

# By index or, in part, by the names that NVIDIA's tools show.
_GPU_INDEX = re.compile(r"[0-9]{1,9}", re.ASCII)
_GPU_NAME = re.compile(r"(?:GPU|MIG)-\S+", re.ASCII)

# Secrets for the server only; no worker needs them.
_SECRET_VARIABLES = frozenset((*(name for key in SECRETS for name in environment_names(key)), *VARIABLES.values()))


def utc_now() -> datetime:
    """Return the current date and time in UTC."""
    return datetime.now(timezone.utc)


def _is_authorizer(_instance: object, _attribute: object, value: Any) -> None:
    if value is not None and not IAuthorizer.providedBy(value):
        raise TypeError(f"authorizer must provide IAuthorizer, {type(value).__qualname__} does not")


def _are_observers(_instance: object, _attribute: object, value: Any) -> None:
    for each in value:
        if not isinstance(each, ServerObserver):
            raise TypeError(f"observers must be instances of ServerObserver, not of {type(each).__qualname__}")


@frozen
class Dependencies:
    """
    The external dependencies of a server; the defaults are for production.

    :ivar uptime: Seconds of a monotonic clock, for lifetimes.
    :ivar keyring: Makes the keyring, for example ``create`` of a subclass of `Keyring`.
    :ivar provider: Starts workers; ``None`` for processes of this machine.
    :ivar defer_to_thread: Runs blocking calls; ``None`` for the reactor's threads.
    :ivar snapshots: The directory of snapshots; ``None`` to write none.
    :ivar endpoints: Endpoints of plug-ins or of the application, in addition to the server's.
    :ivar trim_heap: Returns free memory to the system; ``None`` where that is not supported.
    :ivar authorizer: Decides which requests are answered, instead of keys: there are none then, and no key file.
    :ivar authorizer_timeout: Seconds that it has for an answer.
    :ivar observers: Told of models, workers and keys.
    :ivar span_exporter: Exports traces, with ``tracing``; ``None`` for the one that OpenTelemetry's variables name.
    """

    now: Now = utc_now
    uptime: Callable[[], float] = steady_seconds
    entropy: Entropy = secrets.token_bytes
    environ: Mapping[str, str] = os.environ
    keyring: MakeKeyring = Keyring.create
    provider: IWorkerProvider | None = None
    defer_to_thread: DeferToThread | None = None
    snapshots: SnapshotFolder | None = None
    endpoints: Sequence[Endpoint] = ()
    trim_heap: Trim | None = field(factory=heap_trimmer)
    span_exporter: SpanExporter | None = None
    authorizer: IAuthorizer | None = field(default=None, validator=_is_authorizer)
    authorizer_timeout: float = field(default=30.0, validator=[gt(0), le(_LONGEST_WAIT)])
    observers: Sequence[ServerObserver] = field(default=(), validator=_are_observers)


def visible_environment(environ: Mapping[str, str], options: ServerOptions) -> dict[str, str]:
    """Return the part of the server's environment that is passed to workers (``blacklist_env_vars``)."""
    kept_back = re.compile(options.blacklist_env_vars or r"(?!)")
    visible = {
        name: value
        for name, value in environ.items()
        if name not in _SECRET_VARIABLES and not kept_back.fullmatch(name)
    }
    visible |= {
        "TS_REQUEST_SEQUENCE_ID": options.ts_header_key_sequence_id,
        "TS_REQUEST_SEQUENCE_START": options.ts_header_key_sequence_start,
        "TS_REQUEST_SEQUENCE_END": options.ts_header_key_sequence_end,
    }
    visible["TS_DECODE_INPUT_REQUEST"] = str(options.decode_input_request).lower()
    for key in ("ipex_enable", "ipex_gpu_enable"):
        if getattr(options, key):
            visible[f"TS_{key.upper()}"] = "true"
    # A model's directory may be served in place, and must not be written to.
    visible.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    return visible


def taken_secrets(environ: MutableMapping[str, str]) -> Mapping[str, str]:
    """Remove the keys from the environment of this process, and return it as it was, with later changes."""
    return ChainMap({name: environ.pop(name) for name in VARIABLES.values() if name in environ}, environ)


def with_threads(environment: Mapping[str, str], workers: int) -> dict[str, str]:
    """
    Limit the threads of each worker of a model, so that the workers share the processors.

    By default, torch starts a thread for each processor in each worker, and the workers wait for each other.
    ``OMP_NUM_THREADS`` in the environment takes precedence.
    """
    share = max(1, usable_cpus() // max(1, workers))
    return {"OMP_NUM_THREADS": str(share), **environment}


def usable_cpus() -> int:
    """Return the number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_gpus(limit: int | None, environ: Mapping[str, str]) -> int:
    """Return the number of GPUs that workers may use, after ``CUDA_VISIBLE_DEVICES`` and ``limit``."""
    found = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    if "CUDA_VISIBLE_DEVICES" in environ:
        found = gpus_listed(environ["CUDA_VISIBLE_DEVICES"], found)
    return found if limit is None else min(found, limit)


def gpus_listed(text: str, found: int) -> int:
    """
    Return the number of devices that a value of ``CUDA_VISIBLE_DEVICES`` makes visible.

    As in CUDA, parsing stops at the first invalid entry.  A name counts as valid, because only the driver knows the
    names.  A part of a GPU (MIG) counts as a GPU, so the result may exceed ``found``.
    """
    counted = 0
    for word in map(str.strip, text.split(",")) if found else ():
        index = _GPU_INDEX.fullmatch(word)
        if not (int(word) < found if index else _GPU_NAME.fullmatch(word)):
            break
        counted += 1
    return counted
