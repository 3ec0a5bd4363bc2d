# SPDX-License-Identifier: Apache-2.0
"""
This module implements one slot of a pool: the worker in it, that worker's successors, and their end.

A slot keeps its id through all restarts and has never more than one worker at a time.
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

# After so many failures in a row requests do not wait for the next attempt; up to then that is a matter of seconds.
PROMISING_ATTEMPTS = 2


_machine = make_machine()


class ReplicaOwner(Protocol):
    """The owner of a replica, which is notified of its changes."""

    def slot_ready(self, slot: Replica, worker: IWorker) -> None:
        """Accept ``worker``, which takes batches from now on."""

    def slot_unready(self, slot: Replica, worker: IWorker) -> None:
        """Stop sending batches to ``worker``, which may still be at one."""

    def slot_changed(self, slot: Replica) -> None:
        """Record that the replica has another status."""


class Replica:
    """
    One slot of a pool.

    :param launch: Starts a worker; what it raises counts as a worker that could not load.
    :param max_retry_timeout: Seconds after a first failure in which the worker is started again.
    :param circuit_retry: Seconds from then on between one attempt and the next; 0 for none.
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
            changed=partial(owner.slot_changed, self),
            ready=partial(owner.slot_ready, self),
            unready=partial(owner.slot_unready, self),
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
        """What the slot is doing."""
        return self._core.status

    @property
    def healthy(self) -> bool:
        """Whether the worker is well, or fails within the recovery window (``docs/torchserve/rest_api.md`` §4.1)."""
        return self._core.in_window()

    @property
    def promising(self) -> bool:
        """
        Whether a request that waits now may come to be answered by this slot, and soon.

        Not while it backs off after having failed more than once, nor while one that was
        given up is tried: a client had better be told than kept waiting for minutes
        (``docs/torchserve/rest_api.md`` §19, H3).
        """
        if isinstance(self.status, BackingOff):
            return self._core.attempt <= PROMISING_ATTEMPTS
        if isinstance(self.status, (Starting, Failing)) and not self._core.in_window():
            return False
        return not isinstance(self.status, (GivenUp, Draining, Stopped))

    def holds(self, worker: IWorker) -> bool:
        """Say whether ``worker`` is the present one."""
        return self._core.worker is worker

    def info(self) -> WorkerInfo:
        """Describe the slot as it is now."""
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
        Have a worker, at once.

        :return: Fires when it has loaded; fails with `WorkerFailed` when it could not.
        """
        if isinstance(self.status, Ready):
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._core.start_waiters.append(waiter)
        self._inputs.start()
        return waiter

    def stop(self, grace: float) -> Deferred[None]:
        """
        Have no worker any more.

        :param grace: Seconds that a running batch has.
        :return: Fires when the worker is gone; never fails.
        """
        waiter: Deferred[None] = Deferred()
        self._core.stop_waiters.append(waiter)
        self._inputs.stop(grace)
        return waiter

    def discard(self, worker: IWorker, reason: str) -> None:
        """End ``worker``, which is of no use, and start another as after any failure; unless that has been done."""
        if self._core.worker is worker:
            self._inputs.discard(reason)
