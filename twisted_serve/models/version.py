# SPDX-License-Identifier: Apache-2.0
"""
This module implements what is known of a registered model version: identity, origin and settings.
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
    How a version is run, after all sources have been weighed (``docs/torchserve/config_cli.md`` §6).

    :ivar min_workers: Workers which are kept running.
    :ivar max_workers: The most that may run; at least ``min_workers``.
    :ivar batch_size: The most jobs in one call of the handler.
    :ivar max_batch_delay: Milliseconds that a batch may wait to fill.
    :ivar response_timeout: Seconds that a worker has for each answer.
    :ivar startup_timeout: Seconds that a worker has to load.
    :ivar job_queue_size: Requests that may wait.
    :ivar max_retry_timeout: Seconds after a first failure in which a worker is restarted.
    :ivar client_timeout: Milliseconds that a client waits, 0 for no limit.
    :ivar device_type: ``cpu`` or ``gpu``; ``device_ids``: the GPUs to use, empty for all.
    :ivar asynchronous: Whether a worker gets batches while it has others.
    :ivar continuous: Whether requests stay in the batch, and others join it, until the handler has finished them.
    :ivar sequences: The limits of a stateful model's sequences; ``None`` for a model that is not stateful.
    :ivar batch_policy: When a batch that is not full is closed.
    :ivar scale_up_delay: Seconds that a request waits before another worker is started, if there may be more.
    :ivar scale_idle_time: Seconds that a worker has nothing to do before it is ended, if there may be fewer.
    :ivar circuit_retry: Seconds between attempts to start a worker that was given up, 0 for none.
    :ivar isolate_failures: Whether a batch whose handler raised is split and tried again.
    :ivar retry_on_worker_death: Whether requests of a worker that died are given to another.
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
    One version of a model, as it was registered.

    :ivar url: Where the client said the archive is; ``""`` for a function of a workflow, which has none.
    :ivar location: What a snapshot finds the archive by; ``None`` for ``url``.
    :ivar model_dir: The unpacked archive, or the model's own directory.
    :ivar python: The interpreter of an environment of its own; ``None`` for the server's.
    :ivar packages: A directory of packages of its own; ``None`` for none.
    :ivar loaded_at_startup: Whether it was named in the start-up list.
    :ivar workflow: The workflow of which it is a node; ``None`` for a model in its own right.
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
