# SPDX-License-Identifier: Apache-2.0
"""
This module implements what there is to be told of a pool of workers; whoever wants to know overrides it.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted_serve.metrics.timing import Timing


class PoolObserver:
    """Is told what happens in the pool of one model version; this one lets it pass."""

    def batch_sent(self, batch: Sequence[Timing], overhead: float, going: int = 0) -> None:
        """
        A batch was sent to a worker.

        :param overhead: The seconds that this took.
        :param going: How many requests were sent besides which had been in the batch before.
        """

    def batch_answered(self, batch: Sequence[Timing], overhead: float) -> None:
        """A worker answered a batch; ``overhead``: the seconds until it was free for the next."""

    def failed(self, status: int) -> None:
        """A request was answered with an error."""

    def refused(self, reason: str) -> None:
        """A request was refused: ``no_worker``, ``queue_full``, ``too_late``, ``quarantined`` or ``timeout``."""

    def worker_loaded(self, name: str, seconds: float) -> None:
        """A worker, as ``W-9000-resnet_1.0``, has loaded its model."""

    def worker_died(self) -> None:
        """A worker was lost that nobody has sent away."""

    def worker_restarted(self) -> None:
        """A worker was started in the place of one that was lost."""

    def retired(self) -> None:
        """The pool is being ended."""
