# SPDX-License-Identifier: Apache-2.0
"""
Save the registered versions and their numbers of workers as text, and restore them.

The format is TorchServe's (``docs/torchserve/config_cli.md`` §7), so that either server can start from the other's
snapshots.  Two members are additions that TorchServe ignores: ``modelUrl`` and ``handler``, where a version differs
from its archive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from twisted_serve.errors import BadRequest
from twisted_serve.models.registry import Registry, valid_model_name, valid_model_version
from twisted_serve.models.settings import MOST_WORKERS, configured_number
from twisted_serve.models.version import ModelSettings, ModelVersion

# The numeric settings of a version: (member in the file, minimum).
_NUMBERS = {
    "min_workers": ("minWorkers", 0),
    "max_workers": ("maxWorkers", 0),
    "batch_size": ("batchSize", 1),
    "max_batch_delay": ("maxBatchDelay", 0),
    "response_timeout": ("responseTimeout", 0),
    "startup_timeout": ("startupTimeout", 0),
}


class InvalidSnapshot(ValueError):
    """A snapshot cannot be restored."""


@frozen
class RecordedVersion:
    """
    One version of a model in a snapshot.

    :ivar mar_name: Its archive in the model store, or the path or URL that it is served from if that is elsewhere.
    :ivar numbers: The :class:`ModelSettings` that the snapshot contains; others come from the archive and the server.
    :ivar url: The origin shown to clients; ``None`` for ``mar_name``.
    :ivar handler: The handler of the registration request, if it replaced the archive's.
    """

    name: str
    version: str
    mar_name: str
    default: bool = False
    numbers: Mapping[str, int] = field(factory=dict)
    url: str | None = None
    handler: str | None = None
    runtime: str = "python"
    parallel_level: int = 0

    def applied_to(self, settings: ModelSettings) -> ModelSettings:
        """Return settings with the recorded numbers applied."""
        numbers: Mapping[str, Any] = self.numbers
        return evolve(settings, **numbers)


@frozen
class Snapshot:
    """The registered versions, in the order of their registration, grouped by model."""

    versions: tuple[RecordedVersion, ...] = ()

    def defaults(self) -> dict[str, str]:
        """Return the default version of each model."""
        return {recorded.name: recorded.version for recorded in self.versions if recorded.default}


def take(registry: Registry, workers: Mapping[tuple[str, str], tuple[int, int]]) -> Snapshot:
    """
    Record a registry; workflows with their nodes, and models whose handler is the application's, are omitted.

    The application registers the latter again itself.

    :param workers: The current minimum and maximum number of workers of each version.
    """
    return Snapshot(
        tuple(
            _record(model, registry.default_version(model.name) == model.version, *workers[model.name, model.version])
            for model in registry
            if model.workflow is None and not model.import_path
        )
    )


def _record(model: ModelVersion, default: bool, min_workers: int, max_workers: int) -> RecordedVersion:
    settings = model.settings
    mar_name = model.location or model.url
    return RecordedVersion(
        name=model.name,
        version=model.version,
        mar_name=mar_name,
        default=default,
        numbers={
            "min_workers": min_workers,
            "max_workers": max_workers,
            "batch_size": settings.batch_size,
            "max_batch_delay": settings.max_batch_delay,
            "response_timeout": settings.response_timeout,
            "startup_timeout": settings.startup_timeout,
        },
        url=None if model.url == mar_name else _without_secrets(model.url),
        handler=None if model.handler == model.manifest.handler else model.handler,
        runtime=model.runtime,
        parallel_level=model.config.parallel_level or 0,
    )


def _without_secrets(url: str) -> str:
    """Remove the user, query and fragment, which may contain passwords and signatures, from a URL."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def render(snapshot: Snapshot, name: str, created: datetime) -> str:
    """Render a snapshot as the value of ``model_snapshot``."""
    models: dict[str, dict[str, Any]] = {}
    for recorded in snapshot.versions:
        models.setdefault(recorded.name, {})[recorded.version] = dict(_members(recorded))
    document = {
        "name": name,
        "modelCount": len(snapshot.versions),
        "created": int(created.timestamp() * 1000),
        "models": models,
    }
    return json.dumps(document, indent=2)


def _members(recorded: RecordedVersion) -> Iterator[tuple[str, Any]]:
    yield "defaultVersion", recorded.default
    yield "marName", recorded.mar_name
    for field_name, (member, _least) in _NUMBERS.items():
        if field_name in recorded.numbers:
            yield member, recorded.numbers[field_name]
    yield "runtimeType", recorded.runtime
    if recorded.parallel_level > 0:
        yield "parallelLevel", recorded.parallel_level
    if recorded.url is not None:
        yield "modelUrl", recorded.url
    if recorded.handler is not None:
        yield "handler", recorded.handler


def read(value: Mapping[str, Any]) -> Snapshot:
    """
    Parse the JSON object of ``model_snapshot``.

    :raise InvalidSnapshot: naming the version and the wrong member.
    """
    models = value.get("models", {})
    count = value.get("modelCount", 1)
    if isinstance(count, int) and count <= 0:
        return Snapshot()
    if not isinstance(models, Mapping):
        raise InvalidSnapshot(f"model_snapshot must have an object as models, not {models!r}")
    found = []
    for name, versions in models.items():
        if not isinstance(versions, Mapping) or not versions:
            raise InvalidSnapshot(f"model_snapshot must have an object of versions for model {name}, not {versions!r}")
        found += _with_one_default([_read_version(name, version, members) for version, members in versions.items()])
    return Snapshot(tuple(found))


def _with_one_default(versions: list[RecordedVersion]) -> list[RecordedVersion]:
    """Make exactly one version the default: the last that is marked as such, or the first."""
    default = next((recorded for recorded in reversed(versions) if recorded.default), versions[0])
    return [evolve(recorded, default=recorded is default) for recorded in versions]


def _read_version(name: str, version: str, members: Any) -> RecordedVersion:
    where = f"model_snapshot, version {version} of model {name}"
    if not isinstance(members, Mapping):
        raise InvalidSnapshot(f"{where}: must be an object, not {members!r}")
    try:
        valid_model_name(name)
        valid_model_version(version)
        numbers = dict(_numbers(members))
        level = configured_number(members, "parallelLevel") or 0
        mar_name = _text(members, "marName")
        if mar_name is None:
            raise ValueError("marName is missing")
        url, handler = _text(members, "modelUrl"), _text(members, "handler")
        runtime = _text(members, "runtimeType") or "python"
    except (ValueError, BadRequest) as e:
        raise InvalidSnapshot(f"{where}: {e}") from e
    default = members.get("defaultVersion") is True
    return RecordedVersion(name, version, mar_name, default, numbers, url, handler, runtime.lower(), level)


def _numbers(members: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    numbers = {
        field_name: number
        for field_name, (member, least) in _NUMBERS.items()
        if (number := configured_number(members, member, least)) is not None
    }
    least = numbers.get("min_workers", 1)
    # Older files have only one of the two numbers.
    numbers.setdefault("min_workers", least)
    numbers["max_workers"] = max(least, numbers.get("max_workers", least))
    if numbers["max_workers"] > MOST_WORKERS:
        raise ValueError(f"maxWorkers is {numbers['max_workers']}, expected at most {MOST_WORKERS}")
    yield from numbers.items()


def _text(members: Mapping[str, Any], member: str) -> str | None:
    value = members.get(member)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"{member} is {value!r}, expected text")
    return value
