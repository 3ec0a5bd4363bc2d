# SPDX-License-Identifier: Apache-2.0
"""Represent a worker that could not be started as one that has failed to load and is gone."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from twisted_serve.errors import WorkerDied, WorkerFailed
from twisted_serve.interfaces import IWorker, Placement
from twisted_serve.wire.messages import Job, Predicted, StreamChunk


@implementer(IWorker)
class UnstartedWorker:
    """
    A worker that never ran.

    A replica treats it like any worker that failed to load, so an exception in a provider costs one attempt and not the
    replica.
    """

    def __init__(self, placement: Placement, reason: str) -> None:
        self.worker_id: str = placement.worker_id
        self.pid: int | None = None
        self.shares_weights: bool = False
        self.loaded: Deferred[None] = fail(WorkerFailed(500, reason))
        self.lost: Deferred[str] = succeed(reason)

    def run(self, batch_id: int, jobs: list[Job], on_chunk: Callable[[StreamChunk], None]) -> Deferred[Predicted]:
        """Refuse a batch; see `IWorker`."""
        raise WorkerDied()

    def cancel(self, request_ids: list[str]) -> None:
        """Do nothing; see `IWorker`."""

    def pause(self, request_ids: list[str]) -> None:
        """Do nothing; see `IWorker`."""

    def resume(self, request_ids: list[str]) -> None:
        """Do nothing; see `IWorker`."""

    def stop(self, grace: float) -> Deferred[None]:
        """Return a Deferred that has fired; see `IWorker`."""
        return succeed(None)
