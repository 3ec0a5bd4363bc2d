# SPDX-License-Identifier: Apache-2.0
"""
Render Prometheus' text format as TorchServe does (``docs/torchserve/config_cli.md`` §10.7).

TorchServe's dashboards and tests expect a comma before the closing brace, numbers that
always have a decimal part, and counters without ``_total``; every parser of the format
accepts the first two.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping

from prometheus_client import Metric

from twisted_serve.metrics.torchserve.lines import decimal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})
_VALUE_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def render_text(families: Iterable[Metric], counters: Mapping[str, str], chosen: Collection[str] = ()) -> bytes:
    """
    Render metrics.

    :param counters: The names of counters that are not the family's name with ``_total``, by family name.
    :param chosen: The names of the samples, or whole families, to render; empty for all.
    """
    return "".join(_lines(families, counters, frozenset(chosen))).encode("utf-8")


def _lines(families: Iterable[Metric], counters: Mapping[str, str], chosen: frozenset[str]) -> Iterator[str]:
    for family in families:
        shown = counters.get(family.name, f"{family.name}_total") if family.type == "counter" else family.name
        samples = []
        for sample in family.samples:
            suffix = sample.name[len(family.name) :]
            # The creation time of a series belongs to OpenMetrics, not to this format.
            if suffix == "_created":
                continue
            name = shown if family.type == "counter" else shown + suffix
            if not chosen or name in chosen or shown in chosen:
                samples.append(f"{name}{_labels(sample.labels)} {_number(sample.value)}\n")
        if samples or not chosen or shown in chosen:
            yield f"# HELP {shown} {family.documentation.translate(_HELP_ESCAPES)}\n"
            yield f"# TYPE {shown} {family.type}\n"
            yield from samples


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + "".join(f'{name}="{value.translate(_VALUE_ESCAPES)}",' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return decimal(value)
