# SPDX-License-Identifier: Apache-2.0
"""
Parse ``metrics.yaml``, the definitions of TorchServe's metrics.

The grammar is TorchServe's (``docs/torchserve/config_cli.md`` §10.1), extended by ``buckets``.
TorchServe runs without metrics if the file is broken; here this is an error that names the place.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from enum import Enum
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from attrs import frozen

from twisted_serve.config.values import ConfigError

# The server fills in the labels of its metrics by position, hence the required number of labels.
_LABELS_OF_SERVER_METRICS: Mapping[str, int] = {
    **dict.fromkeys(("ts_inference_requests_total", "ts_inference_latency_microseconds"), 3),
    **dict.fromkeys(("ts_queue_latency_microseconds", "WorkerLoadTime"), 3),
    **dict.fromkeys(("GPUMemoryUtilization", "GPUMemoryUsed", "GPUUtilization"), 3),
    **dict.fromkeys(("Requests2XX", "Requests4XX", "Requests5XX", "QueueTime", "WorkerThreadTime"), 2),
    **dict.fromkeys(("CPUUtilization", "MemoryUsed", "MemoryAvailable", "MemoryUtilization"), 2),
    **dict.fromkeys(("DiskUsage", "DiskUtilization", "DiskAvailable"), 2),
}

_FIELDS = frozenset(("name", "unit", "dimensions", "buckets"))


class Kind(Enum):
    """The type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@frozen
class Definition:
    """
    The definition of one metric.

    :ivar dimensions: The names of its labels, in order; the last one is the host's.
    :ivar buckets: The upper bounds of a histogram's buckets; empty for the default ones.
    """

    name: str
    kind: Kind
    unit: str
    dimensions: tuple[str, ...]
    buckets: tuple[float, ...] = ()


@frozen
class MetricCatalogue:
    """
    All metrics of a file, by name.

    :ivar server: The metrics of the server (``ts_metrics``).
    :ivar models: The metrics of handlers (``model_metrics``).
    """

    server: Mapping[str, Definition]
    models: Mapping[str, Definition]


@cache
def default_catalogue() -> MetricCatalogue:
    """Return the catalogue that is shipped with the server."""
    return parse_catalogue(files("twisted_serve.metrics").joinpath("metrics.yaml").read_text("utf-8"))


def read_catalogue(path: Path | None) -> MetricCatalogue:
    """
    Read an operator's file, or the default catalogue for ``None``.

    :raise ConfigError: naming the file and the place of the error.
    """
    if path is None:
        return default_catalogue()
    try:
        return parse_catalogue(path.read_text("utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot be read: {e.strerror}", "metrics_config", str(path)) from e
    except ValueError as e:
        raise ConfigError(f"Failed to load metrics configuration: {e}", "metrics_config", str(path)) from e


def parse_catalogue(text: str) -> MetricCatalogue:
    """
    Parse a catalogue.

    :raise ValueError: naming the error and its place in the text.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as e:
        raise ValueError(" ".join(f"this is no YAML: {e}".split())) from e
    top = _mapping(document, "the file", ("dimensions", "ts_metrics", "model_metrics"))
    server = _section(top.get("ts_metrics"), "ts_metrics", ())
    models = _section(top.get("model_metrics"), "model_metrics", ("Hostname",))
    for name, definition in server.items():
        needed = _LABELS_OF_SERVER_METRICS.get(name)
        if needed is not None and len(definition.dimensions) != needed:
            raise ValueError(f"{name} in ts_metrics must have {needed} dimensions, not {list(definition.dimensions)}")
    return MetricCatalogue(MappingProxyType(server), MappingProxyType(models))


def _section(value: object, place: str, added: tuple[str, ...]) -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    kinds = _mapping({} if value is None else value, place, [kind.value for kind in Kind])
    for kind, entries in kinds.items():
        where = f"{place}.{kind}"
        if not isinstance(entries, list):
            raise ValueError(f"{where} must be a list, not {entries!r}")
        for number, entry in enumerate(entries):
            definition = _definition(entry, Kind(kind), f"{where}[{number}]", added)
            if definition.name in found:
                raise ValueError(f"{where}[{number}]: {definition.name} is there twice")
            found[definition.name] = definition
    return found


def _definition(entry: object, kind: Kind, where: str, added: tuple[str, ...]) -> Definition:
    members = _mapping(entry, where, _FIELDS)
    texts = {key: members.get(key) for key in ("name", "unit")}
    for key, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}.{key} must be a text that is not empty, not {text!r}")
    labels = members.get("dimensions")
    labels = [] if labels is None else labels
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise ValueError(f"{where}.dimensions must be a list of names, not {labels!r}")
    dimensions = (*labels, *added)
    if len(set(dimensions)) < len(dimensions):
        raise ValueError(f"{where}.dimensions has a name twice: {list(dimensions)}")
    buckets = _buckets(members.get("buckets"), kind, where)
    return Definition(str(texts["name"]), kind, str(texts["unit"]), dimensions, buckets)


def _buckets(value: object, kind: Kind, where: str) -> tuple[float, ...]:
    if value is None:
        return ()
    if kind is not Kind.HISTOGRAM:
        raise ValueError(f"{where}.buckets is for histograms, this is a {kind.value}")
    numbers = value if isinstance(value, list) else []
    sound = bool(numbers) and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers)
    if not sound or not all(map(math.isfinite, numbers)) or not all(a < b for a, b in pairwise(numbers)):
        raise ValueError(f"{where}.buckets must be numbers, each larger than the one before, not {value!r}")
    return tuple(map(float, numbers))


def _mapping(value: object, place: str, allowed: Collection[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place} must have the keys {', '.join(sorted(allowed))}, not be {value!r}")
    for key in value:
        if key not in allowed:
            raise ValueError(f"{place} has the unknown key {key!r}; allowed are {', '.join(sorted(allowed))}")
    return value
