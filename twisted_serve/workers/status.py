# SPDX-License-Identifier: Apache-2.0
"""
This module implements what is said about workers: one frozen value for each situation.

``word`` is what describe shows.  There are only three, the predecessor's: its
clients wait for ``READY`` and were told ``UNLOADING`` for all else; a worker that
is loading is called so here (``spec/rest_api.md`` §19, W10).
"""

from __future__ import annotations

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
    """The worker failed for longer than the recovery window; only scaling starts it again."""

    since: datetime
    reason: str
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


@frozen
class WorkerInfo:
    """
    One worker as describe shows it.

    :ivar started: When its slot was made; restarts do not change it.
    :ivar gpu_id: The device, ``None`` for the CPU.
    """

    worker_id: str
    status: WorkerStatus
    started: datetime
    pid: int | None
    gpu_id: int | None

    @property
    def since(self) -> datetime:
        """When the present status began."""
        return self.status.since


@frozen
class PoolStatus:
    """
    A model version's workers and queue at one moment.

    :ivar pending: How many requests wait for a worker.
    :ivar remaining: How many more may.
    :ivar running: How many requests are at workers.
    """

    workers: tuple[WorkerInfo, ...]
    pending: int
    remaining: int
    running: int


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
