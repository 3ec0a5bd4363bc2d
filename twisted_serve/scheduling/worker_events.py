# SPDX-License-Identifier: Apache-2.0
"""
Log and count worker events; scripts wait for some of these log lines.

The texts are TorchServe's (``docs/torchserve/config_cli.md`` §9).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from twisted.logger import Logger

from twisted_serve.logs import (
    DISCONNECTED,
    MODEL_LOG,
    RECOVERED,
    RECOVERY_BEGAN,
    RECOVERY_FAILED,
    STATE_CHANGE,
    UNANSWERED,
    WORKER_PID,
    WORKER_STARTED,
    log_no_response,
)
from twisted_serve.metrics.observer import PoolObserver
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

_log = Logger("twisted_serve.scheduling")

_Kind: TypeAlias = type[WorkerStatus]

# TorchServe's names of the states; "null" is the state before there is a worker.
_WORDS: dict[_Kind, str] = {
    Idle: "null",
    Starting: "WORKER_STARTED",
    Ready: "WORKER_MODEL_LOADED",
    Failing: "WORKER_STOPPED",
    BackingOff: "WORKER_STOPPED",
    GivenUp: "WORKER_ERROR",
    Draining: "WORKER_SCALED_DOWN",
    Stopped: "WORKER_SCALED_DOWN",
}

#: Called with the id of a worker, and a reason.
OnDeath: TypeAlias = Callable[[str, str], None]

_DOWN = (Failing, BackingOff, GivenUp)


class MissedAnswers:
    """
    A counter of a model's consecutive batches that were not answered in time.

    :ivar count: The number of such batches; an answered batch resets it to 0.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def another(self) -> None:
        """Count and log one more batch."""
        self.count += 1
        _log.error(UNANSWERED, count=self.count)
        log_no_response(_log)


class WorkerEvents:
    """
    The log lines and counters for the workers of one pool.

    :param model: The model's name and version, as in ``resnet_1.0``.
    :param on_death: Called with the id of a worker that was lost, and the reason.
    """

    def __init__(self, model: str, observer: PoolObserver, on_death: OnDeath | None = None) -> None:
        self._model = model
        self._observer = observer
        self._on_death = on_death
        self._before: dict[str, WorkerStatus] = {}
        # The ids of workers that were lost and have not loaded since.
        self._recovering: set[str] = set()

    def changed(self, worker: WorkerInfo) -> None:
        """Log and count the new status of a worker."""
        before, now = self._before.get(worker.worker_id), worker.status
        self._before[worker.worker_id] = now
        name = f"W-{worker.worker_id}-{self._model}"
        if isinstance(now, Ready):
            self._tell_ready(now, before, name)
        elif isinstance(now, Starting) and isinstance(before, (BackingOff, GivenUp)):
            self._observer.worker_restarted()
        elif isinstance(now, (Failing, BackingOff, GivenUp)) and isinstance(before, (Ready, Starting)):
            self._observer.worker_died()
            if self._on_death is not None:
                self._on_death(worker.worker_id, now.reason)
        self._tell_recovery(worker.worker_id, before, now)
        old = "null" if before is None else _WORDS[type(before)]
        new = _WORDS[type(now)]
        if old != new:
            _log.info(STATE_CHANGE, worker=name, old=old, new=new, thread_name=name)
        if isinstance(now, Stopped):
            self._recovering.discard(worker.worker_id)
            del self._before[worker.worker_id]

    def _tell_recovery(self, worker_id: str, before: WorkerStatus | None, now: WorkerStatus) -> None:
        """Log that a worker is lost, and whether its successors recover."""
        if isinstance(before, (Starting, Ready)) and isinstance(now, _DOWN):
            _log.info(DISCONNECTED, worker_id=worker_id, state=_WORDS[type(before)])
            if worker_id in self._recovering:
                _log.warn(RECOVERY_FAILED)
            else:
                self._recovering.add(worker_id)
                _log.info(RECOVERY_BEGAN, moment=int(now.since.timestamp() * 1000))
        elif isinstance(before, Draining) and isinstance(now, Stopped):
            _log.info(DISCONNECTED, worker_id=worker_id, state=_WORDS[Draining])
        elif isinstance(now, Ready) and worker_id in self._recovering:
            self._recovering.discard(worker_id)
            _log.info(RECOVERED)

    def _tell_ready(self, now: Ready, before: WorkerStatus | None, name: str) -> None:
        printed = {"logger_name": MODEL_LOG, "thread_name": f"{name}-stdout"}
        if now.pid is not None:
            _log.info(WORKER_PID, pid=now.pid, **printed)
        _log.info(WORKER_STARTED, **printed)
        if before is not None:
            self._observer.worker_loaded(name, (now.since - before.since).total_seconds())
