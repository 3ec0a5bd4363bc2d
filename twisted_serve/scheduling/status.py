# SPDX-License-Identifier: Apache-2.0
"""
Describe the states of workers and pools as frozen values.

``word`` is the status in a model's description. TorchServe has three words: its clients wait for ``READY`` and got
``UNLOADING`` for every other state; here a worker that is loading is ``LOADING`` (``docs/torchserve/rest_api.md`` §19,
W10).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, TypeAlias, Union

from attrs import frozen


@frozen
class Idle:
    """No worker has been started yet."""

    since: datetime
    word: ClassVar[str] = "LOADING"


@frozen
class Starting:
    """The process is starting or running, and the handler is being loaded."""

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
    """The worker has failed and has not ended yet."""

    since: datetime
    reason: str
    word: ClassVar[str] = "UNLOADING"


@frozen
class BackingOff:
    """The worker is gone; the next one is started at ``until``."""

    since: datetime
    until: datetime
    reason: str
    word: ClassVar[str] = "UNLOADING"


@frozen
class GivenUp:
    """
    The worker kept failing for longer than the recovery window.

    :ivar until: The time of the next attempt; ``None`` if only scaling starts a worker again.
    """

    since: datetime
    reason: str
    until: datetime | None = None
    word: ClassVar[str] = "UNLOADING"


@frozen
class Draining:
    """The worker finishes its batches and then stops."""

    since: datetime
    word: ClassVar[str] = "UNLOADING"


@frozen
class Stopped:
    """The worker is gone and is not restarted."""

    since: datetime
    word: ClassVar[str] = "UNLOADING"


WorkerStatus: TypeAlias = Union[Idle, Starting, Ready, Failing, BackingOff, GivenUp, Draining, Stopped]

#: The name of each worker state in metrics.
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
    One worker as a model's description shows it.

    :ivar started: When its replica was made; restarts do not change it.
    :ivar gpu_id: The GPU; ``None`` for the CPU.
    :ivar shares_weights: As in `IWorker`.
    """

    worker_id: str
    status: WorkerStatus
    started: datetime
    pid: int | None
    gpu_id: int | None
    shares_weights: bool = False

    @property
    def since(self) -> datetime:
        """The time at which the current status began."""
        return self.status.since


@frozen
class Circuit:
    """
    An open circuit breaker: a version's workers keep failing, so requests are refused instead of queued.

    :ivar trying: Whether a worker is being started.
    :ivar reason: The failure of the last worker.
    :ivar until: The time of the next attempt; ``None`` if it is running or there is none.
    """

    trying: bool
    reason: str
    until: datetime | None


def circuit_of(statuses: Sequence[WorkerStatus], available: bool) -> Circuit | None:
    """
    Return the open circuit of workers with these statuses, or ``None`` if it is closed.

    :param available: Whether a worker is ready or expected to be ready soon, which closes the circuit.
    """
    failing = [status for status in statuses if isinstance(status, (Failing, BackingOff, GivenUp))]
    trying = any(isinstance(status, Starting) for status in statuses)
    if available or not (failing or trying):
        return None
    moments = [status.until for status in failing if not isinstance(status, Failing) and status.until is not None]
    reason = max(failing, key=lambda status: status.since).reason if failing else ""
    return Circuit(trying, reason, min(moments, default=None))


@frozen
class PoolStatus:
    """
    A snapshot of a model version's workers and queue.

    :ivar pending: The number of queued requests.
    :ivar remaining: The number of further requests that the queue can hold.
    :ivar running: The number of requests at workers.
    :ivar busy: The number of workers that have a batch.
    :ivar circuit: The open circuit breaker; ``None`` if it is closed.
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
    The outcome of scaling.

    :ivar workers: The number of workers after scaling.
    :ivar started: The ids of workers that were started or restarted.
    :ivar stopped: The ids of workers that were stopped.
    """

    workers: int
    started: tuple[str, ...]
    stopped: tuple[str, ...]
