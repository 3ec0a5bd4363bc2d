# SPDX-License-Identifier: Apache-2.0
"""
Decide how many workers a model version should have, between its bounds, from one sample of its load.

The decision is a pure function: it keeps no state and reads no clock. Dispatching prefers the workers that became free
last, so surplus workers are the ones that have been idle longest.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class ScalingRules:
    """
    The bounds on the number of workers, and the delays of scaling within them.

    :ivar up_delay: Seconds that a request waits before workers are added.
    :ivar idle_time: Seconds that a worker is idle before it is removed.
    :ivar batch_size: The number of requests that a worker takes in one batch.
    """

    min_workers: int
    max_workers: int
    up_delay: float
    idle_time: float
    batch_size: int = 1

    @property
    def elastic(self) -> bool:
        """Whether the bounds differ, so that the number of workers can change."""
        return self.min_workers < self.max_workers


@frozen
class LoadSample:
    """
    A version's workers and queue at one moment.

    :ivar workers: The number of workers in any state.
    :ivar starting: The number of workers that are starting.
    :ivar free: The number of workers that are ready and idle.
    :ivar waiting: The number of queued requests.
    :ivar oldest_wait: Seconds that the oldest request has waited.
    :ivar longest_idle: Seconds that the worker idle longest has been idle.
    """

    workers: int
    starting: int = 0
    free: int = 0
    waiting: int = 0
    oldest_wait: float = 0.0
    longest_idle: float = 0.0


def wanted_workers(rules: ScalingRules, sample: LoadSample) -> int:
    """
    Return how many workers there should be.

    Workers are added when a request has waited for ``up_delay`` and no worker is free or starting: as many as the
    queued requests can use, but the number at most doubles, because every start slows the running workers. One worker
    is removed when it has been idle for ``idle_time``.
    """
    wanted = sample.workers
    if _short_of_workers(rules, sample) and (not sample.workers or sample.oldest_wait >= rules.up_delay):
        batches = -(-sample.waiting // rules.batch_size)
        wanted += min(batches, max(1, sample.workers))
    elif sample.free and not sample.waiting and sample.longest_idle >= rules.idle_time:
        wanted -= 1
    return min(max(wanted, rules.min_workers), rules.max_workers)


def next_check(rules: ScalingRules, sample: LoadSample) -> float | None:
    """
    Return in how many seconds `wanted_workers` may give another number without any other event.

    :return: ``None`` if it cannot.
    """
    moments = []
    if _short_of_workers(rules, sample) and sample.workers < rules.max_workers:
        moments.append(rules.up_delay - sample.oldest_wait)
    if sample.workers > rules.min_workers:
        idle = sample.longest_idle if sample.free and not sample.waiting else 0.0
        moments.append(rules.idle_time - idle)
    return max(0.0, min(moments)) if moments else None


def _short_of_workers(rules: ScalingRules, sample: LoadSample) -> bool:
    return sample.waiting > 0 and not sample.free and not sample.starting
