# SPDX-License-Identifier: Apache-2.0
"""
Define a registered model version: identity, origin and settings.
"""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen
from attrs.validators import ge, instance_of, min_len

from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.batching.sequences import SequenceLimits


@frozen
class ModelSettings:
    """
    The effective settings of a version (``docs/torchserve/config_cli.md`` §6).

    :ivar min_workers: Minimum number of running workers.
    :ivar max_workers: Maximum number of running workers; at least ``min_workers``.
    :ivar batch_size: Maximum number of jobs in one call of the handler.
    :ivar max_batch_delay: Milliseconds that a batch may wait to fill.
    :ivar response_timeout: Seconds that a worker has for each response.
    :ivar startup_timeout: Seconds that a worker has to load.
    :ivar job_queue_size: Maximum number of queued requests.
    :ivar max_retry_timeout: Seconds after a first failure during which a worker is restarted.
    :ivar client_timeout: Milliseconds that a client waits, 0 for no limit.
    :ivar device_type: ``cpu`` or ``gpu``.
    :ivar device_ids: The GPUs to use, empty for all.
    :ivar asynchronous: Whether a worker receives further batches while others are in flight.
    :ivar continuous: Whether requests stay in the batch, and others join it, until the handler completes them.
    :ivar sequences: The limits of a stateful model's sequences; ``None`` for a stateless model.
    :ivar batch_policy: When to dispatch a batch that is not full.
    :ivar scale_up_delay: Seconds that a request waits in the queue before a worker is added, up to ``max_workers``.
    :ivar scale_idle_time: Seconds that a worker is idle before it is removed, down to ``min_workers``.
    :ivar circuit_retry: Seconds between attempts to start a worker after its restarts are exhausted, 0 for no attempts.
    :ivar isolate_failures: Whether a batch is split and retried after its handler raised.
    :ivar retry_on_worker_death: Whether the requests of a worker that died are retried on another worker.
    """

    min_workers: int = field(default=1, validator=[instance_of(int), ge(0)])
    max_workers: int = field(default=1, validator=[instance_of(int), ge(0)])
    batch_size: int = field(default=1, validator=[instance_of(int), ge(1)])
    max_batch_delay: int = field(default=100, validator=[instance_of(int), ge(0)])
    response_timeout: int = field(default=120, validator=[instance_of(int), ge(0)])
    startup_timeout: int = field(default=120, validator=[instance_of(int), ge(0)])
    job_queue_size: int = field(default=100, validator=[instance_of(int), ge(1)])
    max_retry_timeout: int = field(default=300, validator=[instance_of(int), ge(0)])
    client_timeout: int = field(default=0, validator=[instance_of(int), ge(0)])
    device_type: str = "cpu"
    device_ids: tuple[int, ...] = ()
    batch_policy: ClosePolicy = ClosePolicy.EAGER
    scale_up_delay: float = field(default=1.0, validator=ge(0))
    scale_idle_time: float = field(default=300.0, validator=ge(0))
    circuit_retry: float = field(default=300.0, validator=ge(0))
    isolate_failures: bool = True
    retry_on_worker_death: bool = True
    asynchronous: bool = False
    continuous: bool = False
    sequences: SequenceLimits | None = None

    @max_workers.validator
    def _not_below_min(self, _attribute: object, value: int) -> None:
        if value < self.min_workers:
            raise ValueError(f"max_workers is {value}, below min_workers, which is {self.min_workers}")


@frozen
class ModelVersion:
    """
    One registered version of a model.

    :ivar url: The location of the archive in the client's request; ``""`` for a function of a workflow, which has none.
    :ivar import_path: Directories of the application that the handler's modules are imported from, besides
        ``model_dir``; only for a handler that the application has named.
    :ivar location: The location stored in a snapshot; ``None`` for ``url``.
    :ivar model_dir: The unpacked archive, or the model's original directory.
    :ivar python: The interpreter of the model's virtual environment; ``None`` for the server's interpreter.
    :ivar packages: The directory of the model's packages; ``None`` for none.
    :ivar loaded_at_startup: Whether the version was in the start-up list.
    :ivar workflow: The workflow that contains this node; ``None`` for a standalone model.
    """

    name: str = field(validator=min_len(1))
    version: str = field(validator=min_len(1))
    url: str
    model_dir: Path
    manifest: Manifest
    config: ModelConfig
    handler: str
    settings: ModelSettings
    runtime: str = "python"
    loaded_at_startup: bool = False
    python: str | None = None
    packages: Path | None = None
    workflow: str | None = None
    location: str | None = None
    import_path: tuple[str, ...] = ()
