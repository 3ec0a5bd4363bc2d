# SPDX-License-Identifier: Apache-2.0
"""Specifications of workers for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve
from msgspec.structs import replace

from twisted_serve.interfaces import WorkerSpec
from twisted_serve.wire.messages import LoadModel

#: The members of a specification that are not part of the message to the worker.
_OWN = ("python", "environment", "startup_timeout", "packages", "share_weights")


def worker_spec(
    model_name: str = "m",
    model_version: str = "1.0",
    model_dir: Path = Path("/m"),
    handler: str = "h.py",
    batch_size: int = 1,
    manifest: dict[str, Any] | None = None,
    model_config: dict[str, Any] | None = None,
    python: str = "python",
    environment: Mapping[str, str] | None = None,
    startup_timeout: float = 10.0,
    **others: Any,
) -> WorkerSpec:
    """Return the specification of a worker; ``others`` are further members of its `LoadModel`."""
    load = LoadModel(
        model_name,
        model_version,
        str(model_dir),
        handler,
        batch_size,
        manifest or {},
        model_config or {},
        "0.12.0",
        **others,
    )
    return WorkerSpec(load, python, environment or {}, startup_timeout)


def changed(spec: WorkerSpec, **changes: Any) -> WorkerSpec:
    """Return a specification with other values, of its own members or of its `LoadModel`'s."""
    own = {name: value for name, value in changes.items() if name in _OWN}
    return evolve(spec, load=replace(spec.load, **{k: v for k, v in changes.items() if k not in own}), **own)
