# SPDX-License-Identifier: Apache-2.0
"""
This module implements what a server takes from outside itself: time, chance, environment, devices, threads, workers.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from twisted_serve.auth.tokens import Entropy
from twisted_serve.config.options import SECRETS, ServerOptions, environment_names
from twisted_serve.endpoints import Endpoint
from twisted_serve.eventloop.monotonic import steady_seconds
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.interfaces import IWorkerProvider, Now
from twisted_serve.planes.snapshots import SnapshotFolder
from twisted_serve.system.heap import Trim, heap_trimmer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

# The kernel's list of NVIDIA devices, one directory each.
_NVIDIA = Path("/proc/driver/nvidia/gpus")

# By index or, in part, by the names that NVIDIA's tools show.
_GPU_INDEX = re.compile(r"[0-9]{1,9}", re.ASCII)
_GPU_NAME = re.compile(r"(?:GPU|MIG)-\S+", re.ASCII)

# What the server itself is told in secret, and no worker needs to know.
_SECRET_VARIABLES = frozenset(name for key in SECRETS for name in environment_names(key))


def utc_now() -> datetime:
    """Return the date and time."""
    return datetime.now(timezone.utc)


@frozen
class Dependencies:
    """
    What a server takes from outside itself; the defaults are the real world.

    :ivar uptime: Seconds of a clock that is never set, for what has a lifetime.
    :ivar provider: Where workers run; ``None`` for processes of this machine.
    :ivar defer_to_thread: Runs what blocks; ``None`` for the reactor's threads.
    :ivar snapshots: Where snapshots are written; ``None`` for nowhere.
    :ivar endpoints: Endpoints of plug-ins, or of an application's own, besides the server's.
    :ivar trim_heap: Gives free memory back to the system; ``None`` where there is nothing for that.
    :ivar span_exporter: Where traces go, with ``tracing``; ``None`` for what OpenTelemetry's variables say.
    """

    now: Now = utc_now
    uptime: Callable[[], float] = steady_seconds
    entropy: Entropy = secrets.token_bytes
    environ: Mapping[str, str] = os.environ
    provider: IWorkerProvider | None = None
    defer_to_thread: DeferToThread | None = None
    snapshots: SnapshotFolder | None = None
    endpoints: Sequence[Endpoint] = ()
    trim_heap: Trim | None = field(factory=heap_trimmer)
    span_exporter: SpanExporter | None = None


def visible_environment(environ: Mapping[str, str], options: ServerOptions) -> dict[str, str]:
    """Return what of the server's environment its workers see (``blacklist_env_vars``)."""
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
    # A model's own directory may be served in place, and is not to be written to.
    visible.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    return visible


def with_threads(environment: Mapping[str, str], workers: int) -> dict[str, str]:
    """
    Divide the processors among the workers of a model: each computes with so many threads and no more.

    What torch would do by itself, a thread for each processor in each worker, makes them wait for each other.
    ``OMP_NUM_THREADS`` in the environment has the last word.
    """
    share = max(1, usable_cpus() // max(1, workers))
    return {"OMP_NUM_THREADS": str(share), **environment}


def usable_cpus() -> int:
    """Count the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_gpus(limit: int | None, environ: Mapping[str, str]) -> int:
    """Count the GPUs which workers may use: of those that are there, what ``CUDA_VISIBLE_DEVICES`` leaves."""
    found = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    if "CUDA_VISIBLE_DEVICES" in environ:
        found = gpus_listed(environ["CUDA_VISIBLE_DEVICES"], found)
    return found if limit is None else min(found, limit)


def gpus_listed(text: str, found: int) -> int:
    """
    Count what a value of ``CUDA_VISIBLE_DEVICES`` lets programs see.

    As CUDA does, it reads up to the first that cannot be; a name, of which only the
    driver knows, is taken for one.  A part of a GPU (MIG) counts as a GPU, and so there
    may be more of these than GPUs.
    """
    counted = 0
    for word in map(str.strip, text.split(",")) if found else ():
        index = _GPU_INDEX.fullmatch(word)
        if not (int(word) < found if index else _GPU_NAME.fullmatch(word)):
            break
        counted += 1
    return counted
