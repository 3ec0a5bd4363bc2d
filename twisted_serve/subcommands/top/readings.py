# SPDX-License-Identifier: Apache-2.0
"""
Read what a server says of its models at one moment, in its metrics and its descriptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

from attrs import define, field, frozen

from twisted_serve.subcommands.top.exposition import Sample

#: A model's name and version.
Version = tuple[str, str]

_LATENCY = "ts_request_latency_seconds"

_OF_SERVER = ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds")

#: The metrics that are asked for; the server renders no others.
WANTED = (
    f"{_LATENCY}_bucket",
    f"{_LATENCY}_count",
    f"{_LATENCY}_sum",
    "ts_prediction_failures_total",
    "ts_requests_refused_total",
    "ts_queue_depth",
    "ts_requests_running",
    "ts_workers",
    "ts_token_seconds_left",
    *_OF_SERVER,
)


@define
class Counted:
    """
    The counters and gauges of one version.

    :ivar answers: Requests with an answer; ``seconds`` is the sum of their latencies.
    :ivar buckets: How many took no longer, by the bucket's bound in seconds.
    :ivar errors: Requests that failed or were refused.
    :ivar ready: Workers that are ready; ``troubled`` are those that fail, wait to be started again, or are given up.
    """

    answers: float = 0
    seconds: float = 0
    buckets: dict[float, float] = field(factory=dict)
    errors: float = 0
    queued: float = 0
    running: float = 0
    ready: float = 0
    starting: float = 0
    troubled: float = 0


@frozen
class Reading:
    """
    What the metrics say at one moment.

    :ivar at: The time of the reading, in seconds of the client's clock.
    :ivar versions: In the server's order.
    :ivar seconds_left: The remaining time of each kind of key that expires.
    :ivar processor: Processor seconds of the server's process since its start at ``started``.
    """

    at: float
    versions: Mapping[Version, Counted]
    seconds_left: Mapping[str, float]
    processor: float
    memory: float
    started: float


@frozen
class Described:
    """
    What a description says of one version.

    :ivar workers: The smallest and the largest number of workers that are wanted.
    :ivar memory: Bytes of all workers.
    """

    workers: tuple[int, int]
    memory: int


_STATES = {"ready": "ready", "starting": "starting"} | dict.fromkeys(("failing", "backing_off", "given_up"), "troubled")


def reading_of(samples: Iterable[Sample], at: float) -> Reading:
    """Return the reading of a scrape."""
    versions: dict[Version, Counted] = {}
    left: dict[str, float] = {}
    server = dict.fromkeys(_OF_SERVER, 0.0)
    for name, labels, value in samples:
        if name in server:
            server[name] = value
        elif name == "ts_token_seconds_left":
            left[labels.get("kind", "")] = value
        elif "model_name" in labels and "model_version" in labels:
            found = versions.setdefault((labels["model_name"], labels["model_version"]), Counted())
            _count(found, name, labels, value)
    processor, memory, started = (server[name] for name in _OF_SERVER)
    return Reading(at, versions, left, processor, memory, started)


def _count(found: Counted, name: str, labels: Mapping[str, str], value: float) -> None:
    if name == f"{_LATENCY}_bucket":
        bound = labels.get("le", "")
        found.buckets[inf if bound == "+Inf" else float(bound or "nan")] = value
    elif name == f"{_LATENCY}_count":
        found.answers = value
    elif name == f"{_LATENCY}_sum":
        found.seconds = value
    elif name in ("ts_prediction_failures_total", "ts_requests_refused_total"):
        found.errors += value
    elif name == "ts_queue_depth":
        found.queued = value
    elif name == "ts_requests_running":
        found.running = value
    elif name == "ts_workers" and labels.get("state") in _STATES:
        state = _STATES[labels["state"]]
        setattr(found, state, getattr(found, state) + value)


def described(descriptions: Any) -> dict[Version, Described]:
    """Return what ``GET /models/{name}/all`` has answered; what is no description is left out."""
    found = [_described(each) for each in (descriptions if isinstance(descriptions, list) else ())]
    return dict(filter(None, found))


def _described(said: Any) -> tuple[Version, Described] | None:
    try:
        wanted = int(said["minWorkers"]), int(said["maxWorkers"])
        memory = sum(int(worker["memoryUsage"]) for worker in said["workers"])
        return (str(said["modelName"]), str(said["modelVersion"])), Described(wanted, memory)
    except (KeyError, TypeError, ValueError):
        return None
