# SPDX-License-Identifier: Apache-2.0
"""
Read ``model-config.yaml``, the settings that an archive contains.

See ``docs/torchserve/archives_workers_handlers.md`` §4.  An absent key is ``None``, so that its value can be resolved
from other sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attrs import field, frozen
from attrs.validators import instance_of, optional

from twisted_serve.archives.documents import DocumentError, load_yaml
from twisted_serve.archives.fields import attributes_of, boolean, integer, key, number_of, word
from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.safe_paths import confined
from twisted_serve.archives.sections import CHECKS, Torchrun, unsupported_keys
from twisted_serve.errors import InvalidModel

# Warnings are logged and sent to the client; a hostile file must not be able to flood either.
_MAX_WARNINGS = 10

# Minimum similarity ratio at which an unknown key is reported as a misspelling of a known key.
_SIMILARITY_CUTOFF = 0.9


def _ids(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value)


@frozen
class ModelConfig:
    """
    The settings of an archive; ``None`` for each setting that the file does not contain.

    :ivar max_batch_delay: Milliseconds, like ``client_timeout``, ``sequence_max_idle`` and ``sequence_timeout``.
    :ivar response_timeout: Seconds, like ``startup_timeout`` and ``max_retry_timeout``.
    :ivar device_type: ``cpu`` or ``gpu``.
    :ivar parallel_type: ``pp``, ``tp``, ``pptp`` or ``custom``.
    :ivar raw: The whole document, for the handler.
    :ivar batch_policy: When to dispatch a batch that is not full: ``eager``, ``window`` or ``adaptive``.
    :ivar scale_up_delay: Milliseconds that a request waits in the queue before a worker is added.
    :ivar scale_idle_time: Seconds that a worker is idle before it is removed.
    :ivar open_inference: Whether tensors of the Open Inference Protocol are validated and passed to the handler as
        JSON.
    :ivar isolate_failures: Whether a failed batch is split and retried.
    :ivar retry_on_worker_death: Whether the requests in flight when a worker died are retried.
    """

    min_workers: int | None = integer("minWorkers", 0)
    max_workers: int | None = integer("maxWorkers", 0)
    batch_size: int | None = integer("batchSize", 1)
    max_batch_delay: int | None = integer("maxBatchDelay", 0)
    response_timeout: int | None = integer("responseTimeout", 1)
    startup_timeout: int | None = integer("startupTimeout", 1)
    device_type: str | None = word("deviceType")
    device_ids: tuple[int, ...] | None = key("deviceIds", "a list of integers of at least 0", _ids)
    parallel_type: str | None = word("parallelType")
    parallel_level: int | None = integer("parallelLevel", 0)
    torchrun: Torchrun | None = field(default=None, validator=optional(instance_of(Torchrun)))
    max_retry_timeout: int | None = integer("maxRetryTimeoutInSec", 0)
    client_timeout: int | None = integer("clientTimeoutInMills", 0)
    job_queue_size: int | None = integer("jobQueueSize", 0)
    use_job_ticket: bool | None = boolean("useJobTicket")
    continuous_batching: bool | None = boolean("continuousBatching")
    sequence_batching: bool | None = boolean("sequenceBatching")
    sequence_max_idle: int | None = integer("sequenceMaxIdleMSec", 0)
    sequence_timeout: int | None = integer("sequenceTimeoutMSec", 0)
    max_num_sequence: int | None = integer("maxNumSequence", 1)
    max_sequence_job_queue_size: int | None = integer("maxSequenceJobQueueSize", 1)
    async_communication: bool | None = boolean("asyncCommunication")
    use_venv: bool | None = boolean("useVenv")
    raw: Mapping[str, Any] = field(factory=dict)
    batch_policy: str | None = word("batchPolicy")
    scale_up_delay: int | None = integer("scaleUpDelayInMills", 0)
    scale_idle_time: int | None = integer("scaleIdleTimeInSec", 1)
    isolate_failures: bool | None = boolean("isolateFailures")
    retry_on_worker_death: bool | None = boolean("retryOnWorkerDeath")
    share_weights: bool | None = boolean("shareWeights")
    open_inference: bool | None = boolean("openInference")

    @property
    def workers(self) -> tuple[int, int] | None:
        """
        The minimum and maximum number of workers, if the file contains both and they are consistent.

        See ``docs/torchserve/config_cli.md`` §5.  Unlike in TorchServe, the minimum may be 0: then the first request
        starts a worker.
        """
        if self.min_workers is not None and self.max_workers and self.max_workers >= self.min_workers:
            return self.min_workers, self.max_workers
        return None


_ATTRIBUTES = attributes_of(ModelConfig)

#: All keys that the server uses or whose shape it checks.
CONFIG_KEYS = (*_ATTRIBUTES, "torchrun", *CHECKS)

# Keys with a fixed set of values; any other value is ignored with a warning, as in TorchServe.
_CHOICES = {
    "batchPolicy": ("eager", "window", "adaptive"),
    "deviceType": ("cpu", "gpu"),
    "parallelType": ("pp", "tp", "pptp", "custom"),
}


# Numbers below the minimum: (minimum, the value that TorchServe uses instead, None for its default).
_MINIMUMS: Mapping[str, tuple[int, int | None]] = {
    "minWorkers": (0, 1),
    "maxWorkers": (0, None),
    "batchSize": (1, 1),
    "maxBatchDelay": (0, None),
    "responseTimeout": (1, None),
    "startupTimeout": (1, None),
    "parallelLevel": (0, None),
    "maxRetryTimeoutInSec": (0, 0),
    "clientTimeoutInMills": (0, 0),
    "jobQueueSize": (0, 0),
    "sequenceMaxIdleMSec": (0, 0),
    "sequenceTimeoutMSec": (0, 0),
    "maxNumSequence": (1, 1),
    "maxSequenceJobQueueSize": (1, 1),
}


def read_model_config(model_dir: Path, manifest: Manifest) -> tuple[ModelConfig, tuple[str, ...]]:
    """
    Read the file that the manifest names as ``configFile``, if it names one.

    :return: The settings, and warnings for the client that registers the model.
    :raise InvalidModel: if the file is missing, is not a YAML mapping, or a key has a value of the wrong type.
    """
    name = manifest.config_file
    if name is None:
        return ModelConfig(), ()
    return load_model_config(confined(model_dir, "configFile", name, manifest.links), name)


def load_model_config(path: Path, name: str) -> tuple[ModelConfig, tuple[str, ...]]:
    """
    Read a model configuration from any path.

    :param name: The file's name in warnings and errors.
    :return: As `read_model_config`.
    :raise InvalidModel: as `read_model_config`.
    """
    try:
        document = load_yaml(path)
    except (DocumentError, OSError) as e:
        detail = e.strerror if isinstance(e, OSError) else str(e)
        raise InvalidModel(f"Failed to parse model config file {name}: {detail}") from e
    if document is None:
        document = {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise InvalidModel(f"Failed to parse model config file {name}: expected a mapping with strings as keys")

    warnings = [
        f"Unknown key {key!r} in model config file {name}: did you mean {suggestion!r}?"
        for key in document
        if (suggestion := _similar_key(key)) is not None
    ]
    values = {attribute: document.get(key) for key, attribute in _ATTRIBUTES.items()}
    for setting, choices in _CHOICES.items():
        choice = document.get(setting)
        if isinstance(choice, str):
            values[_ATTRIBUTES[setting]] = choice.lower() if choice.lower() in choices else None
            if choice.lower() not in choices:
                warnings.append(f"Invalid {setting} {choice.lower()!r:.200} in model config file {name}: it is ignored")
    values["device_ids"] = _device_ids(document.get("deviceIds"))
    warnings += _apply_minimums(values, name)
    for section, check in CHECKS.items():
        if document.get(section) is not None:
            try:
                check(document[section])
            except ValueError as e:
                # As in TorchServe, the section is the handler's to interpret, whatever its shape.
                warnings.append(f"{e}, in model config file {name}: it is left to the handler")
    try:
        if document.get("torchrun") is not None:
            torchrun = values["torchrun"] = Torchrun.read(document["torchrun"])
            # With torchrun, a worker has as many processes as torchrun starts, whatever parallelLevel is.
            values["parallel_level"] = torchrun.nproc_per_node
            warnings += [
                f"Unsupported parameter {each!r:.200} of torchrun in model config file {name}: it is ignored"
                for each in unsupported_keys(document["torchrun"])
            ]
        config = ModelConfig(**values, raw=document)
    except ValueError as e:
        raise InvalidModel(f"Invalid model config file {name}: {e}") from e
    warnings += _warnings_of(config)
    return config, tuple(warnings[:_MAX_WARNINGS])


def _apply_minimums(values: dict[str, Any], name: str) -> list[str]:
    """Replace numbers below the minimum as TorchServe does, and return a warning for each."""
    warnings = []
    for setting, (least, replacement) in _MINIMUMS.items():
        number = number_of(values[_ATTRIBUTES[setting]])
        if isinstance(number, int) and not isinstance(number, bool) and number < least:
            values[_ATTRIBUTES[setting]] = replacement
            what = "it is ignored" if replacement is None else f"it counts as {replacement}"
            warnings.append(f"Invalid {setting} {number} in model config file {name}: {what}")
    return warnings


def _device_ids(value: Any) -> Any:
    """Parse device ids: a list of integers or numeric strings, a comma-separated string, or one number."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    return tuple(map(number_of, value)) if isinstance(value, list) else value


def _warnings_of(config: ModelConfig) -> list[str]:
    """List warnings for settings that have no effect or cannot be honoured."""
    warnings = []
    if config.workers is None and config.min_workers != config.max_workers:
        warnings.append(
            f"Invalid model config in mar, minWorkers:{config.min_workers}, maxWorkers:{config.max_workers}"
        )
    if config.continuous_batching and config.async_communication:
        warnings.append("continuousBatching has no effect with asyncCommunication: there the handler does the batching")
    if config.parallel_type is not None or config.torchrun is not None:
        warnings.append("parallelType and torchrun are not there yet: a worker is one process with one device")
    if config.use_job_ticket:
        warnings.append("useJobTicket is not there yet: requests wait in the queue while all workers are busy")
    return warnings


def _similar_key(key: str) -> str | None:
    """Return the known key that a misspelling such as ``BatchSize`` or ``max_workers`` resembles, or None."""
    if key in CONFIG_KEYS or len(key) > 2 * max(map(len, CONFIG_KEYS)):
        return None
    plain = {known.lower().replace("_", ""): known for known in CONFIG_KEYS}
    close = get_close_matches(key.lower().replace("_", "").replace("-", ""), plain, n=1, cutoff=_SIMILARITY_CUTOFF)
    return plain[close[0]] if close else None
