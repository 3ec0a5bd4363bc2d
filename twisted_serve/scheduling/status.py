# SPDX-License-Identifier: Apache-2.0
"""
This module implements what is said about workers: one frozen value for each situation.

``word`` is what describe shows.  There are only three, the predecessor's: its
clients wait for ``READY`` and were told ``UNLOADING`` for all else; a worker that
is loading is called so here (``docs/torchserve/rest_api.md`` §19, W10).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, TypeAlias, Union

from attrs import frozen


@frozen
class Idle:
    """Nothing has been started yet."""

    since: datetime
    word: ClassVar[str] = "LOADING"


@frozen
class Starting:
    """The process is up, or on its way, and the handler is being loaded."""

    since: datetime
    word: ClassVar[str] = "LOADING"


@frozen
class Ready:
    """The worker takes batches."""

    since: datetime
    pid: int | None
    word: ClassVar[str] = "READY"


@frozen
class Failing:
    """The worker is of no use any more, and not yet gone."""

    since: datetime
    reason: str
    word: ClassVar[str] = "UNLOADING"


@frozen
class BackingOff:
    """The worker is gone; the next will be started at ``until``."""

    since: datetime
    until: datetime
    reason: str
    word: ClassVar[str] = "UNLOADING"


@frozen
class GivenUp:
    """
    The worker failed for longer than the recovery window.

    :ivar until: When it is tried again; ``None``: only scaling starts it again.
    """

    since: datetime
    reason: str
    until: datetime | None = None
    word: ClassVar[str] = "UNLOADING"


@frozen
class Draining:
    """The worker finishes what it has, and goes."""

    since: datetime
    word: ClassVar[str] = "UNLOADING"


@frozen
class Stopped:
    """The worker is gone and will not come back."""

    since: datetime
    word: ClassVar[str] = "UNLOADING"


WorkerStatus: TypeAlias = Union[Idle, Starting, Ready, Failing, BackingOff, GivenUp, Draining, Stopped]

#: The names of all statuses in metrics.
STATES: dict[type[WorkerStatus], str] = {
    Idle: "idle",
    Starting: "starting",
    Ready: "ready",
    Failing: "failing",
    BackingOff: "backing_off",
    GivenUp: "given_up",
    Draining: "draining",
    Stopped: "stopped",
}


@frozen
class WorkerInfo:
    """
    One worker as describe shows it.

    :ivar started: When its slot was made; restarts do not change it.
    :ivar gpu_id: The device, ``None`` for the CPU.
    :ivar shares_weights: As `IWorker`.
    """

    worker_id: str
    status: WorkerStatus
    started: datetime
    pid: int | None
    gpu_id: int | None
    shares_weights: bool = False

    @property
    def since(self) -> datetime:
        """When the present status began."""
        return self.status.since


@frozen
class Circuit:
    """
    That a model version's workers fail again and again, so that requests do not wait for them.

    :ivar trying: Whether an attempt is under way.
    :ivar reason: What went wrong with the last worker.
    :ivar until: When the next attempt is; ``None``: now, or not at all.
    """

    trying: bool
    reason: str
    until: datetime | None


def circuit_of(statuses: Sequence[WorkerStatus], staffed: bool) -> Circuit | None:
    """
    Say whether, and why, workers with these statuses are not waited for.

    :param staffed: Whether one of them can be hoped for: then all is well, or will be.
    """
    failing = [status for status in statuses if isinstance(status, (Failing, BackingOff, GivenUp))]
    trying = any(isinstance(status, Starting) for status in statuses)
    if staffed or not (failing or trying):
        return None
    moments = [status.until for status in failing if not isinstance(status, Failing) and status.until is not None]
    reason = max(failing, key=lambda status: status.since).reason if failing else ""
    return Circuit(trying, reason, min(moments, default=None))


@frozen
class PoolStatus:
    """
    A model version's workers and queue at one moment.

    :ivar pending: How many requests wait for a worker.
    :ivar remaining: How many more may.
    :ivar running: How many requests are at workers.
    :ivar busy: How many workers have a batch.
    :ivar circuit: Why requests do not wait for workers, if they do not because those fail.
    """

    workers: tuple[WorkerInfo, ...]
    pending: int
    remaining: int
    running: int
    busy: int
    circuit: Circuit | None = None


@frozen
class ScaleResult:
    """
    What scaling did.

    :ivar workers: How many workers there are now.
    :ivar started: The ids of those that were started, or started again.
    :ivar stopped: The ids of those that were sent away.
    """

    workers: int
    started: tuple[str, ...]
    stopped: tuple[str, ...]
