# SPDX-License-Identifier: Apache-2.0
"""
This module implements the record of workers: the lines of the log that scripts wait for, and what is counted.

The words are the predecessor's (``spec/config_cli.md`` §9).
"""

from __future__ import annotations

from typing import TypeAlias

from twisted.logger import Logger

from twisted_serve.logs import MODEL_LOG, STATE_CHANGE, WORKER_PID, WORKER_STARTED
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.workers.status import (
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

_Kind: TypeAlias = type[WorkerStatus]

# What the predecessor called them; "null" is before there was a worker.
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

#: Every state of a worker, as metrics call it.
STATES: dict[_Kind, str] = {
    Idle: "idle",
    Starting: "starting",
    Ready: "ready",
    Failing: "failing",
    BackingOff: "backing_off",
    GivenUp: "given_up",
    Draining: "draining",
    Stopped: "stopped",
}


class Chronicle:
    """
    The record of the workers of one pool.

    :param model: Name and version, as ``resnet_1.0``.
    """

    _log = Logger()

    def __init__(self, model: str, observer: PoolObserver) -> None:
        self._model = model
        self._observer = observer
        self._before: dict[str, WorkerStatus] = {}

    def changed(self, worker: WorkerInfo) -> None:
        """Record that a worker has another status."""
        before, now = self._before.get(worker.worker_id), worker.status
        self._before[worker.worker_id] = now
        name = f"W-{worker.worker_id}-{self._model}"
        if isinstance(now, Ready):
            self._tell_ready(now, before, name)
        elif isinstance(now, Starting) and isinstance(before, (BackingOff, GivenUp)):
            self._observer.worker_restarted()
        elif isinstance(now, (Failing, BackingOff, GivenUp)) and isinstance(before, (Ready, Starting)):
            self._observer.worker_died()
        old = "null" if before is None else _WORDS[type(before)]
        new = _WORDS[type(now)]
        if old != new:
            self._log.info(STATE_CHANGE, worker=name, old=old, new=new, thread_name=name)
        if isinstance(now, Stopped):
            del self._before[worker.worker_id]

    def _tell_ready(self, now: Ready, before: WorkerStatus | None, name: str) -> None:
        printed = {"logger_name": MODEL_LOG, "thread_name": f"{name}-stdout"}
        if now.pid is not None:
            self._log.info(WORKER_PID, pid=now.pid, **printed)
        self._log.info(WORKER_STARTED, **printed)
        if before is not None:
            self._observer.worker_loaded(name, (now.since - before.since).total_seconds())
