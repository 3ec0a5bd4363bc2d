# SPDX-License-Identifier: Apache-2.0
"""
Keep one replica of a model running: a worker and, after failures, its successors.

A replica keeps its worker id through all restarts and has at most one worker at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from twisted_serve.interfaces import IWorker, Now, Placement
from twisted_serve.scheduling.lifecycle import Core, make_machine
from twisted_serve.scheduling.status import (
    BackingOff,
    Draining,
    Failing,
    GivenUp,
    Idle,
    Ready,
    Starting,
    Stopped,
    WorkerInfo,
    WorkerStatus,
)

# After more consecutive failures than this, requests do not wait for the next attempt; until then the delays are short.
QUICK_ATTEMPTS = 2


_machine = make_machine()


class ReplicaOwner(Protocol):
    """The owner of a replica, which is notified of its changes."""

    def replica_ready(self, replica: Replica, worker: IWorker) -> None:
        """Accept ``worker``, which takes batches from now on."""

    def replica_unready(self, replica: Replica, worker: IWorker) -> None:
        """Stop sending batches to ``worker``, which may still be at one."""

    def replica_changed(self, replica: Replica) -> None:
        """Record that the replica has another status."""


class Replica:
    """
    One replica of a pool.

    :param launch: Starts a worker; an exception counts as a worker that failed to load.
    :param max_retry_timeout: The recovery window: seconds after a first failure in which the worker is restarted.
    :param circuit_retry: Seconds between attempts after the recovery window; 0 for no attempts.
    """

    def __init__(
        self,
        placement: Placement,
        launch: Callable[[Placement], IWorker],
        owner: ReplicaOwner,
        *,
        clock: IReactorTime,
        now: Now,
        max_retry_timeout: float,
        circuit_retry: float = 0.0,
    ) -> None:
        self.placement = placement
        self.created: datetime = now()
        self._core = Core(
            changed=partial(owner.replica_changed, self),
            ready=partial(owner.replica_ready, self),
            unready=partial(owner.replica_unready, self),
            launch=launch,
            placement=placement,
            clock=clock,
            now=now,
            max_retry_timeout=max_retry_timeout,
            circuit_retry=circuit_retry,
            status=Idle(self.created),
        )
        self._inputs = _machine(self._core)

    @property
    def status(self) -> WorkerStatus:
        """The current state of the worker."""
        return self._core.status

    @property
    def healthy(self) -> bool:
        """Whether the worker works or is in its recovery window (``docs/torchserve/rest_api.md`` §4.1)."""
        return self._core.in_window()

    @property
    def available_soon(self) -> bool:
        """
        Whether this replica can be expected to answer a waiting request soon.

        It is false while the replica backs off after more than `QUICK_ATTEMPTS` failures and while a replica that
        had given up makes an attempt: an immediate error is better for a client than a wait of minutes
        (``docs/torchserve/rest_api.md`` §19, H3).
        """
        if isinstance(self.status, BackingOff):
            return self._core.attempt <= QUICK_ATTEMPTS
        if isinstance(self.status, (Starting, Failing)) and not self._core.in_window():
            return False
        return not isinstance(self.status, (GivenUp, Draining, Stopped))

    def holds(self, worker: IWorker) -> bool:
        """Return whether ``worker`` is the current worker."""
        return self._core.worker is worker

    def info(self) -> WorkerInfo:
        """Return a snapshot of the replica."""
        worker = self._core.worker
        return WorkerInfo(
            worker_id=self.placement.worker_id,
            status=self.status,
            started=self.created,
            pid=None if worker is None else worker.pid,
            gpu_id=self.placement.gpu_id,
            shares_weights=worker is not None and worker.shares_weights,
        )

    def start(self) -> Deferred[None]:
        """
        Start a worker immediately if there is none.

        :return: A Deferred that fires when the worker has loaded, or fails with `WorkerFailed`.
        """
        if isinstance(self.status, Ready):
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._core.start_waiters.append(waiter)
        self._inputs.start()
        return waiter

    def stop(self, grace: float) -> Deferred[None]:
        """
        Stop the worker for good.

        :param grace: Seconds that a batch in flight has to finish.
        :return: A Deferred that fires when the worker is gone; it never fails.
        """
        waiter: Deferred[None] = Deferred()
        self._core.stop_waiters.append(waiter)
        self._inputs.stop(grace)
        return waiter

    def discard(self, worker: IWorker, reason: str) -> None:
        """End ``worker`` and start another as after any failure; do nothing if ``worker`` is not the current one."""
        if self._core.worker is worker:
            self._inputs.discard(reason)
