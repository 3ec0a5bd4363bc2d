# SPDX-License-Identifier: Apache-2.0
"""
Define the observer interface for events of a worker pool.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted_serve.metrics.timing import Timing


class PoolObserver:
    """Observe the pool of one model version; this base class ignores all events."""

    def batch_sent(self, batch: Sequence[Timing], overhead: float, going: int = 0) -> None:
        """
        A batch was sent to a worker.

        :param overhead: The seconds it took to send the batch.
        :param going: The number of requests carried over from the previous batch (continuous batching).
        """

    def batch_answered(self, batch: Sequence[Timing], overhead: float) -> None:
        """
        A worker has answered a batch.

        :param overhead: The seconds until the worker was free for the next batch.
        """

    def failed(self, status: int) -> None:
        """A request was answered with an error."""

    def refused(self, reason: str) -> None:
        """A request was refused: ``no_worker``, ``queue_full``, ``too_late``, ``quarantined`` or ``timeout``."""

    def worker_loaded(self, name: str, seconds: float) -> None:
        """
        A worker has loaded its model.

        :param name: The name of the worker, such as ``W-9000-resnet_1.0``.
        :param seconds: The time from its start.
        """

    def worker_died(self) -> None:
        """A worker ended without having been stopped."""

    def worker_restarted(self) -> None:
        """A worker was started to replace one that was lost."""

    def retired(self) -> None:
        """The pool is shutting down."""
