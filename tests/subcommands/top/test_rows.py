# SPDX-License-Identifier: Apache-2.0
"""Tests for reading metrics and for the rows between two readings."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import GaugeMetricFamily

from twisted_serve.metrics.torchserve.text import render_text
from twisted_serve.subcommands.top.exposition import Sample, samples_of
from twisted_serve.subcommands.top.readings import Described, Reading, described, reading_of
from twisted_serve.subcommands.top.rows import Row, quantile, view_of

A = {"model_name": "a", "model_version": "1"}
NO_METRICS = dict.fromkeys(
    ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"), 0.0
)


@given(st.dictionaries(st.sampled_from(["kind", "model_name"]), st.text(max_size=20)), st.floats(allow_nan=False))
def test_as_rendered(labels: dict[str, str], value: float) -> None:
    """What the server renders is read, whatever a label's value is."""
    family = GaugeMetricFamily("ts_x", "A text.", labels=sorted(labels))
    family.add_metric([labels[name] for name in sorted(labels)], value)
    [sample] = samples_of(render_text([family], {}).decode())
    assert sample == Sample("ts_x", labels, value)


def test_other_lines() -> None:
    """Lines that are no samples are left out, and a long one takes no time."""
    text = (
        'ok 1\n# TYPE ok gauge\nno value\nbad{x="1" 2\nnan_text abc\n\nstamped{a="b"} 3 1700000000\n' + 'x{a="' * 5000
    )
    assert [sample.name for sample in samples_of(text)] == ["ok", "stamped"]


def scrape(
    at: float, *, count: float = 0, errors: float = 0, cpu: float = 0, started: float = 1, **more: float
) -> Reading:
    """Return a reading in which all requests took between 0.1 and 0.2 s."""
    name = "ts_request_latency_seconds"
    samples = [
        Sample(f"{name}_bucket", {**A, "le": "0.1"}, 0.0),
        Sample(f"{name}_bucket", {**A, "le": "0.2"}, count),
        Sample(f"{name}_bucket", {**A, "le": "+Inf"}, count),
        Sample(f"{name}_count", A, count),
        Sample(f"{name}_sum", A, count * 0.15),
        Sample("ts_prediction_failures_total", {**A, "status": "500"}, errors),
        Sample("ts_requests_refused_total", {**A, "reason": "queue_full"}, more.get("refused", 0.0)),
        Sample("ts_queue_depth", A, more.get("queued", 0.0)),
        Sample("ts_requests_running", A, 3.0),
        *(Sample("ts_workers", {**A, "state": state}, value) for state, value in (("ready", 2.0), ("given_up", 1.0))),
        Sample("ts_workers", {**A, "state": "backing_off"}, 1.0),
        Sample("ts_token_seconds_left", {"kind": "inference"}, 60.0),
        Sample("process_cpu_seconds_total", {}, cpu),
        Sample("process_resident_memory_bytes", {}, 1e6),
        Sample("process_start_time_seconds", {}, started),
    ]
    return reading_of(samples, at)


def row(before: Reading | None, after: Reading) -> Row:
    [found] = view_of(before, after, {("a", "1"): Described((2, 4), 5000)}).rows
    return found


def test_rates() -> None:
    """Rates and latencies are those between the readings."""
    view = view_of(scrape(10, count=5, errors=1, cpu=1.0), scrape(12, count=25, errors=2, refused=3.0, cpu=1.5), {})
    assert (view.processor, view.memory, view.seconds_left) == (0.25, 1e6, {"inference": 60.0})
    [found] = view.rows
    assert (found.rate, found.errors) == (10.0, 2.0)
    assert [found.p50, found.p99, found.mean] == pytest.approx([0.15, 0.199, 0.15])
    assert (found.ready, found.troubled, found.running, found.wanted, found.memory) == (2, 2, 3, None, None)
    shown = row(None, scrape(1)).as_json()
    assert (shown["minWorkers"], shown["maxWorkers"], shown["memory"], shown["workersFailing"]) == (2, 4, 5000, 2)


def test_no_requests() -> None:
    """Between readings without a request there are no latencies."""
    found = row(scrape(10, count=5), scrape(12, count=5))
    assert (found.rate, found.p50, found.mean) == (0.0, None, None)


def test_first_reading() -> None:
    """A first reading, and the first after a restart, have no rates."""
    for before in (None, scrape(1, count=9, started=1.0), scrape(12, count=1, started=2.0)):
        found = row(before, scrape(12, count=3, started=2.0))
        assert (found.rate, found.errors, found.p50) == (None, None, None)


def test_registered_again() -> None:
    """The counters of a version that was registered again begin at 0."""
    found = row(scrape(10, count=50, errors=9), scrape(11, count=4))
    assert (found.rate, found.errors) == (4.0, 0.0)


def test_new_version() -> None:
    """A version that appears counts from 0."""
    before = reading_of(
        [Sample(name, {}, value) for name, value in {**NO_METRICS, "process_start_time_seconds": 1.0}.items()], 10
    )
    assert row(before, scrape(11, count=4)).rate == 4.0


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ({}, 0.5, None),
        ({inf: 0.0}, 0.5, None),
        ({0.1: 0.0, 0.2: 10.0, inf: 10.0}, 0.5, 0.15),
        ({0.1: 10.0, 0.2: 10.0, inf: 10.0}, 0.99, 0.099),
        ({0.1: 5.0, 0.2: 5.0, inf: 10.0}, 0.99, 0.2),
        ({inf: 3.0}, 0.5, 0.0),
    ],
)
def test_quantiles(buckets: dict[float, float], share: float, value: float | None) -> None:
    """A quantile is within its bucket; beyond the last bound it is that bound."""
    assert quantile(buckets, share) == (None if value is None else pytest.approx(value))


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantile_in_its_bucket(values: list[float], share: float) -> None:
    """The estimate is in the bucket of the exact quantile."""
    bounds = [1.0, 2.0, 5.0, 10.0, 20.0, inf]
    exact = sorted(values)[max(0, -int(-len(values) * share // 1) - 1)]
    bucket = next(number for number, bound in enumerate(bounds) if exact <= bound)
    found = quantile({bound: sum(value <= bound for value in values) for bound in bounds}, share)
    assert found is not None
    assert (0.0, *bounds)[bucket] - 1e-9 <= found <= bounds[bucket] + 1e-9


@pytest.mark.parametrize(
    "said",
    [None, {}, [None], [{}], [{"modelName": "a"}], [{"minWorkers": "x", "maxWorkers": 1, "workers": []}], "text"],
)
def test_no_description(said: object) -> None:
    """What is no description is left out."""
    assert described(said) == {}
