# SPDX-License-Identifier: Apache-2.0
"""
Resolve a version's settings; the first source that has a value wins.

The order is the documented one, which TorchServe does not follow (``docs/torchserve/config_cli.md`` §6): API parameter,
``model-config.yaml``, ``models`` in the configuration, server default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from math import inf
from typing import Any

import attrs
from attrs import field, frozen
from attrs.validators import ge, instance_of

from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.batching.sequences import SequenceLimits
from twisted_serve.models.version import ModelSettings

#: Maximum number of workers per version: a larger number is a typing error and would exhaust the machine.
MOST_WORKERS = 1024

# Seconds without a request after which a sequence expires if the archive sets no limit (``sequenceMaxIdleMSec: 0``).
SEQUENCE_IDLE = 300.0


def _optional_minimum(least: int) -> Any:
    """Declare an optional number; a smaller one counts as not set, like TorchServe's -1."""
    return field(default=None, converter=lambda value: None if value is None or value < least else value)


@frozen
class Layer:
    """
    The values from one source of the settings that every source may set; ``None`` if not set.

    :ivar max_batch_delay: Milliseconds.
    :ivar response_timeout: Seconds, like ``startup_timeout``.
    """

    batch_size: int | None = _optional_minimum(1)
    max_batch_delay: int | None = _optional_minimum(0)
    response_timeout: int | None = _optional_minimum(1)
    startup_timeout: int | None = _optional_minimum(1)

    def over(self, lower: Layer) -> Layer:
        """Return this layer with missing values filled from ``lower``."""
        given = attrs.asdict(self, filter=lambda _, value: value is not None)
        return attrs.evolve(lower, **given)


def merge_layers(layers: Iterable[Layer]) -> Layer:
    """Merge layers, in descending order of precedence."""
    return reduce(Layer.over, layers, Layer())


@frozen
class RequestedSettings:
    """
    The settings in a registration request (``docs/torchserve/rest_api.md`` §8.2).

    :ivar initial_workers: Number of workers to start; none if below 1, ``None`` if not set.
    """

    batch_size: int | None = None
    max_batch_delay: int | None = None
    initial_workers: int | None = None
    response_timeout: int | None = None
    startup_timeout: int | None = None


@frozen
class ServerDefaults:
    """
    The defaults for all models, and the machine's devices.

    :ivar workers: ``default_workers_per_model``; 0 chooses a number for the machine at start-up.
    :ivar response_timeout: Seconds, like ``startup_timeout``.
    :ivar batch_policy: ``default_batch_policy``.
    :ivar retry_on_worker_death: The option of that name.
    :ivar scale_up_delay: Seconds, like ``scale_idle_time`` and ``circuit_retry``.
    :ivar gpus: Number of usable GPUs.
    :ivar cpus: Number of processors.
    """

    workers: int = field(default=0, validator=[instance_of(int), ge(0)])
    response_timeout: int = field(default=120, validator=[instance_of(int), ge(0)])
    startup_timeout: int = field(default=120, validator=[instance_of(int), ge(0)])
    job_queue_size: int = field(default=100, validator=[instance_of(int), ge(1)])
    batch_policy: ClosePolicy = ClosePolicy.EAGER
    retry_on_worker_death: bool = True
    scale_up_delay: float = field(default=1.0, validator=ge(0))
    scale_idle_time: float = field(default=300.0, validator=ge(0))
    circuit_retry: float = field(default=300.0, validator=ge(0))
    gpus: int = field(default=0, validator=[instance_of(int), ge(0)])
    cpus: int = field(default=1, validator=[instance_of(int), ge(1)])


# Defaults of the lowest precedence.
_BATCH_DEFAULTS = Layer(batch_size=1, max_batch_delay=100)


def configured_number(configured: Mapping[str, Any], key: str, least: int = 1) -> int | None:
    """
    Return a number from a version's entry in ``models``; a value below ``least`` counts as not set.

    :raise ValueError: if it is neither an integer nor text that parses as one.
    """
    value = configured.get(key)
    if value is None:
        return None
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"models has {value!r} for {key}, expected an integer") from None
    return number if number >= least else None


def configured_layer(configured: Mapping[str, Any]) -> Layer:
    """
    Parse a version's entry in ``models``.

    :raise ValueError: if a value is not a number.
    """
    return Layer(
        batch_size=configured_number(configured, "batchSize"),
        max_batch_delay=configured_number(configured, "maxBatchDelay", least=0),
        response_timeout=configured_number(configured, "responseTimeout"),
        startup_timeout=configured_number(configured, "startupTimeout"),
    )


def check_configured(name: str, version: str, configured: Mapping[str, Any]) -> None:
    """
    Check a version's entry in ``models`` before the version exists.

    :raise ValueError: naming the version, if a value is not a number.
    """
    try:
        configured_layer(configured)
        for key in ("minWorkers", "maxWorkers"):
            configured_number(configured, key)
    except ValueError as e:
        raise ValueError(f"{e}, for version {version} of model {name}") from e


def check_all_configured(models: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """
    Check all entries of ``models``.

    :raise ValueError: as `check_configured`.
    """
    for name, versions in models.items():
        for version, configured in versions.items():
            check_configured(name, version, configured)


def effective_settings(
    request: RequestedSettings,
    config: ModelConfig,
    configured: Mapping[str, Any],
    defaults: ServerDefaults,
    at_startup: bool,
) -> ModelSettings:
    """
    Resolve the settings from all sources.

    :param config: The archive's ``model-config.yaml``.
    :param configured: The entry for this name and version in ``models``; empty if there is none.
    :param at_startup: Whether the model is loaded through ``load_models`` rather than registered by a request.
    :raise ValueError: if ``configured`` contains a value that is not a number.
    """
    layer = merge_layers(
        (
            Layer(request.batch_size, request.max_batch_delay, request.response_timeout, request.startup_timeout),
            Layer(config.batch_size, config.max_batch_delay, config.response_timeout, config.startup_timeout),
            configured_layer(configured),
            _BATCH_DEFAULTS,
        )
    )
    resolved = attrs.asdict(layer, filter=lambda _, value: value is not None)
    # A server default of 0 is valid, unlike a 0 from any other source.
    timeouts = {"response_timeout": defaults.response_timeout, "startup_timeout": defaults.startup_timeout}
    min_workers, max_workers = _workers(request, config, configured, defaults, at_startup)
    gpu = defaults.gpus > 0 and config.device_type != "cpu"
    return ModelSettings(
        **(timeouts | resolved),
        min_workers=min_workers,
        max_workers=max_workers,
        batch_policy=ClosePolicy(config.batch_policy) if config.batch_policy else defaults.batch_policy,
        scale_up_delay=defaults.scale_up_delay if config.scale_up_delay is None else config.scale_up_delay / 1000,
        scale_idle_time=config.scale_idle_time or defaults.scale_idle_time,
        circuit_retry=defaults.circuit_retry,
        isolate_failures=config.isolate_failures is not False,
        retry_on_worker_death=(
            defaults.retry_on_worker_death if config.retry_on_worker_death is None else config.retry_on_worker_death
        ),
        asynchronous=bool(config.async_communication),
        continuous=bool(config.continuous_batching and not config.async_communication),
        sequences=_sequences(config) if config.sequence_batching else None,
        job_queue_size=config.job_queue_size or defaults.job_queue_size,
        max_retry_timeout=300 if config.max_retry_timeout is None else config.max_retry_timeout,
        client_timeout=config.client_timeout or 0,
        device_type="gpu" if gpu else "cpu",
        device_ids=_devices(config, defaults) if gpu else (),
    )


def _workers(
    request: RequestedSettings,
    config: ModelConfig,
    configured: Mapping[str, Any],
    defaults: ServerDefaults,
    at_startup: bool,
) -> tuple[int, int]:
    """
    Return the minimum and maximum number of workers.

    The only setting in which the archive takes precedence over the request (``docs/torchserve/rest_api.md`` §8.2).
    """
    if config.workers is not None:
        return config.workers
    if request.initial_workers is not None:
        count = max(0, request.initial_workers)
        return count, count
    default = defaults.workers
    if at_startup and default == 0:
        # TorchServe's choice: each worker holds a copy of the model, on a GPU if there are any.
        default = defaults.gpus or defaults.cpus
    minimum = configured_number(configured, "minWorkers")
    maximum = configured_number(configured, "maxWorkers")
    if minimum is None:
        minimum = default if maximum is None else min(default, maximum)
    return minimum, max(minimum, default if maximum is None else maximum)


def _sequences(config: ModelConfig) -> SequenceLimits:
    """
    Return the archive's sequence limits; 0 means no limit, but a sequence without further requests must expire
    eventually.
    """
    life = config.sequence_timeout / 1000 if config.sequence_timeout else inf
    idle = config.sequence_max_idle / 1000 if config.sequence_max_idle else min(SEQUENCE_IDLE, life)
    return SequenceLimits(config.max_num_sequence or 1, config.max_sequence_job_queue_size or 1, idle, life)


def _devices(config: ModelConfig, defaults: ServerDefaults) -> tuple[int, ...]:
    """Return the GPUs chosen by the archive; if any of them does not exist, the choice is ignored."""
    ids = config.device_ids or ()
    return ids if all(i < defaults.gpus for i in ids) else ()
