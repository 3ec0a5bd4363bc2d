# SPDX-License-Identifier: Apache-2.0
"""
Describe a model version, member by member in TorchServe's order (``docs/torchserve/rest_api.md`` §8.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.models.version import ModelVersion
from twisted_serve.scheduling.pool import Pool
from twisted_serve.scheduling.status import BackingOff, Failing, GivenUp, WorkerStatus


def _instant(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trouble(status: WorkerStatus) -> dict[str, Any]:
    """Return the failure reason and restart time of a worker, as far as they are known."""
    if not isinstance(status, (Failing, BackingOff, GivenUp)):
        return {}
    shown: dict[str, Any] = {"reason": status.reason}
    if not isinstance(status, Failing) and status.until is not None:
        shown["retryAt"] = _instant(status.until)
    return shown


def _sequences(config: ModelConfig) -> dict[str, int]:
    """Return the sequence limits; like TorchServe, all are 0 for a model without sequences."""
    idle = config.sequence_max_idle or 0
    there = bool(config.sequence_batching or idle)
    return {
        "sequenceMaxIdleMSec": idle,
        "sequenceTimeoutMSec": (config.sequence_timeout or 0) if there else 0,
        "maxNumSequence": (config.max_num_sequence or 1) if there else 0,
        "maxSequenceJobQueueSize": (config.max_sequence_job_queue_size or 1) if there else 0,
    }


def pids(pools: Iterable[Pool]) -> list[int]:
    """Return the process ids of all workers."""
    return [worker.pid for pool in pools for worker in pool.status().workers if worker.pid is not None]


def describe(model: ModelVersion, pool: Pool, memory: Mapping[int, int]) -> dict[str, Any]:
    """
    Return the description of one version.

    :param memory: Memory in bytes by process id; see `pids`.
    """
    settings, config = model.settings, model.config
    status = pool.status()
    shown: dict[str, Any] = {
        "modelName": model.name,
        "modelVersion": model.version,
        "modelUrl": model.url,
        "runtime": model.runtime,
        "minWorkers": pool.min_workers,
        "maxWorkers": pool.max_workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": settings.max_batch_delay,
        "responseTimeout": settings.response_timeout,
        "startupTimeout": settings.startup_timeout,
        "maxRetryTimeoutInSec": settings.max_retry_timeout,
        "clientTimeoutInMills": settings.client_timeout,
        "parallelType": config.parallel_type or "",
        "parallelLevel": config.parallel_level or 0,
        "deviceType": settings.device_type,
    }
    if settings.device_ids:
        shown["deviceIds"] = list(settings.device_ids)
    shown |= {
        "continuousBatching": bool(config.continuous_batching),
        "useJobTicket": bool(config.use_job_ticket),
        "useVenv": bool(config.use_venv),
        "stateful": bool(config.sequence_batching),
        **_sequences(config),
        "loadedAtStartup": model.loaded_at_startup,
        "workers": [
            {
                "id": worker.worker_id,
                "startTime": _instant(worker.started),
                "status": worker.status.word,
                "memoryUsage": 0 if worker.pid is None else memory.get(worker.pid, 0),
                "pid": worker.pid if worker.pid is not None else -1,
                "gpu": worker.gpu_id is not None,
                "gpuUsage": "N/A",
                # Not in TorchServe.
                "statusSince": _instant(worker.since),
                "sharesWeights": worker.shares_weights,
                **_trouble(worker.status),
            }
            for worker in status.workers
        ],
        "jobQueueStatus": {
            "remainingCapacity": status.remaining,
            "pendingRequests": status.pending,
        },
        "batchPolicy": settings.batch_policy.value,
    }
    if status.circuit is not None:
        shown["circuit"] = {
            "state": "half-open" if status.circuit.trying else "open",
            "reason": status.circuit.reason,
            "retryAt": None if status.circuit.until is None else _instant(status.circuit.until),
        }
    return shown
