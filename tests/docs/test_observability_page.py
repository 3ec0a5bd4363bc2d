# SPDX-License-Identifier: Apache-2.0
"""Tests for the page about metrics and logs: every metric is on it."""

from __future__ import annotations

import re

from tests.docs.conftest import DOCS
from twisted_serve.metrics.pools import PoolReading
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.metrics.torchserve.definitions import default_catalogue

PAGE = (DOCS / "observability.md").read_text(encoding="utf-8")


def test_predecessors_metrics() -> None:
    """Each of TorchServe's metrics is there, with its type, its unit and its labels in order."""
    catalogue = default_catalogue()
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for name, each in {**catalogue.server, **catalogue.models}.items():
        labels = ", ".join(f"`{label}`" for label in each.dimensions)
        end = f"| {each.kind.value}, {each.unit} | {labels} |"
        found = [row for row in rows if f"`{name}`" in row and row.endswith(end)]
        assert len(found) == 1, name


def test_own_metrics() -> None:
    """Each of the server's own is there, by its name."""
    metrics = ServerMetrics("h")
    metrics.watch_pools(lambda: [PoolReading("m", "1", 0, 0, 0, {}, 0)])
    names = re.findall(r"^# TYPE (\S+)", metrics.render().decode(), re.M)
    assert len(names) > 15
    assert [name for name in names if name.startswith("ts_") and f"`{name}`" not in PAGE] == []
