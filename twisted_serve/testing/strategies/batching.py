# SPDX-License-Identifier: Apache-2.0
"""
Generate queues and the arrivals of jobs.
"""

from __future__ import annotations

from attrs import frozen
from hypothesis.strategies import SearchStrategy, builds, floats, integers, just, lists, none, sampled_from, tuples

from twisted_serve.batching.queue import BatchQueue, ClosePolicy


@frozen
class Arrival:
    """
    The arrival of a job at a queue.

    :ivar gap: Seconds since the previous one.
    :ivar patience: Seconds until its deadline, ``None`` for no deadline.
    :ivar kind: Only jobs of equal kind may be in one batch.
    """

    gap: float
    patience: float | None
    kind: str


def seconds(longest: float = 10.0) -> SearchStrategy[float]:
    """Generate durations in seconds, often equal, often zero."""
    return just(0.0) | sampled_from([0.5, 1.0]) | floats(0.0, longest, allow_nan=False)


def arrivals(max_size: int = 30) -> SearchStrategy[list[Arrival]]:
    """Generate lists of arrivals."""
    return lists(
        builds(Arrival, gap=seconds(), patience=none() | seconds(), kind=sampled_from(["", "", "explain"])),
        max_size=max_size,
    )


def batch_queues() -> SearchStrategy[BatchQueue[int]]:
    """Generate empty queues of every policy and size, which may have observed batches."""

    def experienced(queue: BatchQueue[int], batches: list[tuple[int, float]]) -> BatchQueue[int]:
        for size, taken in batches:
            queue.served(size, taken)
        return queue

    queues: SearchStrategy[BatchQueue[int]] = builds(
        BatchQueue,
        capacity=integers(1, 12),
        batch_size=integers(1, 5),
        max_delay=seconds(3.0),
        policy=sampled_from(ClosePolicy),
    )
    return builds(experienced, queues, lists(tuples(integers(1, 5), seconds()), max_size=5))
