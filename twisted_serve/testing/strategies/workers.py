# SPDX-License-Identifier: Apache-2.0
"""
Generate the events in the life of a model version's workers.
"""

from __future__ import annotations

from typing import TypeAlias, Union

from attrs import frozen
from hypothesis.strategies import SearchStrategy, booleans, builds, floats, integers, just, lists, none, sampled_from

from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.models.version import ModelSettings


@frozen
class Submit:
    """
    A request arrives.

    :ivar patience: Seconds that its client waits, ``None`` for no limit.
    """

    patience: float | None


@frozen
class Leave:
    """The client of the request with this index, modulo the number of requests, disconnects."""

    request: int


@frozen
class Pass:
    """Time passes."""

    seconds: float


@frozen
class Die:
    """A worker (index modulo their number, as in all events here) dies; ``killed``: as if by SIGKILL."""

    worker: int
    killed: bool


@frozen
class Hold:
    """A worker stops (or resumes) answering."""

    worker: int
    holding: bool


@frozen
class Misanswer:
    """A worker answers its batch with a response for no request of the batch."""

    worker: int


@frozen
class Raise:
    """The handler of a worker raises during its batch."""

    worker: int


@frozen
class Chunk:
    """A worker sends part of a response to a request in its batch."""

    worker: int


@frozen
class Break:
    """From now on the handler cannot be loaded (or can be loaded again)."""

    broken: bool


@frozen
class Scale:
    """An operator requests a number of workers."""

    min_workers: int
    extra: int


WorkerEvent: TypeAlias = Union[Submit, Leave, Pass, Die, Hold, Misanswer, Raise, Chunk, Break, Scale]


def worker_events(min_size: int = 15, max_size: int = 60) -> SearchStrategy[list[WorkerEvent]]:
    """
    Generate sequences of events for a pool, both normal and faulty.

    :param min_size: Hypothesis prefers short lists, but most faults take a few steps to show.
    """
    anyone = integers(0, 9)
    submit = builds(Submit, none() | sampled_from([0.0, 0.5, 2.0]))
    soon = builds(Pass, sampled_from([0.0, 0.1, 0.6, 1.0, 2.0]))
    seldom: SearchStrategy[WorkerEvent] = (
        builds(Die, anyone, booleans())
        | builds(Misanswer, anyone)
        | builds(Break, booleans())
        | builds(Pass, floats(0, 400, allow_nan=False))
        | builds(Scale, sampled_from([1, 2, 3, 0]), integers(0, 2))
    )
    # Weighted towards a busy pool, so that faults have something to affect.
    event: SearchStrategy[WorkerEvent] = (
        submit
        | submit
        | submit
        | soon
        | builds(Hold, anyone, booleans())
        | builds(Leave, anyone)
        | builds(Raise, anyone)
        | builds(Chunk, anyone)
        | seldom
    )
    return lists(event, min_size=min_size, max_size=max_size)


def model_settings() -> SearchStrategy[ModelSettings]:
    """Generate settings of model versions with small numbers."""
    return builds(
        ModelSettings,
        min_workers=sampled_from([1, 2, 0]),
        max_workers=integers(2, 3),
        batch_size=integers(1, 3),
        max_batch_delay=sampled_from([0, 100, 3000]),
        batch_policy=sampled_from(ClosePolicy),
        isolate_failures=booleans(),
        retry_on_worker_death=booleans(),
        response_timeout=sampled_from([120, 120, 1, 0]),
        job_queue_size=integers(1, 4),
        max_retry_timeout=sampled_from([300, 300, 5, 0]),
        client_timeout=just(0) | sampled_from([1, 1500]),
    )
