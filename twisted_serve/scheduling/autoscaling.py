# SPDX-License-Identifier: Apache-2.0
"""
This module implements how many workers a model version should have, between its bounds, going by what is seen of it.

It remembers nothing and knows no clock.  Workers that became free last are used
first, so that those which are not needed are those which have been idle for long.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class ScalingRules:
    """
    The bounds, and how patient to be within them.

    :ivar up_delay: Seconds that a request waits before there are more workers.
    :ivar idle_time: Seconds that a worker has nothing to do before there are fewer.
    :ivar batch_size: How many requests one worker takes at a time.
    """

    min_workers: int
    max_workers: int
    up_delay: float
    idle_time: float
    batch_size: int = 1

    @property
    def elastic(self) -> bool:
        """Whether there is anything to decide."""
        return self.min_workers < self.max_workers


@frozen
class LoadSample:
    """
    A version's workers and queue at one moment.

    :ivar workers: How many there are, in whatever state.
    :ivar starting: How many of them are on their way.
    :ivar free: How many are ready and have nothing to do.
    :ivar waiting: How many requests wait.
    :ivar oldest_wait: For how many seconds the first of them has.
    :ivar longest_idle: For how many seconds the idlest worker has been free.
    """

    workers: int
    starting: int = 0
    free: int = 0
    waiting: int = 0
    oldest_wait: float = 0.0
    longest_idle: float = 0.0


def wanted_workers(rules: ScalingRules, seen: LoadSample) -> int:
    """
    Say how many workers there should be.

    More, when a request has waited for too long and help is not under way: as many as
    those that wait can use, but never more than twice as many as before, because every
    start costs the others time.  One less, when one has had nothing to do for long.
    """
    wanted = seen.workers
    if _short_of_workers(rules, seen) and (not seen.workers or seen.oldest_wait >= rules.up_delay):
        batches = -(-seen.waiting // rules.batch_size)
        wanted += min(batches, max(1, seen.workers))
    elif seen.free and not seen.waiting and seen.longest_idle >= rules.idle_time:
        wanted -= 1
    return min(max(wanted, rules.min_workers), rules.max_workers)


def next_look(rules: ScalingRules, seen: LoadSample) -> float | None:
    """
    Say in how many seconds the answer may be another one although nothing has happened.

    :return: ``None`` for never.
    """
    moments = []
    if _short_of_workers(rules, seen) and seen.workers < rules.max_workers:
        moments.append(rules.up_delay - seen.oldest_wait)
    if seen.workers > rules.min_workers:
        idle = seen.longest_idle if seen.free and not seen.waiting else 0.0
        moments.append(rules.idle_time - idle)
    return max(0.0, min(moments)) if moments else None


def _short_of_workers(rules: ScalingRules, seen: LoadSample) -> bool:
    return seen.waiting > 0 and not seen.free and not seen.starting
