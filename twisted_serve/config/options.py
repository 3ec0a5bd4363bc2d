# SPDX-License-Identifier: Apache-2.0
"""
Define every setting of a server once, with its description, default and limits.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, fields, frozen

from twisted_serve.config.setting import MAX_SECONDS, about, mode, naming_errors, seconds, word
from twisted_serve.config.token_options import TokenOptions
from twisted_serve.config.values import (
    LOG_LEVELS,
    a_path,
    at_least,
    between,
    header_name,
    levels_by_name,
    one_of,
    optional_object,
    optional_path,
    optional_pattern,
    optional_text,
    optional_whole,
    patterns,
    per_version,
    plugin_directory,
    real,
    truth,
    whole,
    words,
)


@frozen(field_transformer=naming_errors)
class ServerOptions(TokenOptions):
    """
    All settings of one server.

    In Python, each setting is given as a value or as the text that a file would have::

        ServerOptions(model_store="models", inference_address="http://127.0.0.1:0")

    :raise ConfigError: for an invalid value, naming it and its setting.
    """

    shutdown_timeout: float = field(
        default=30.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=about("seconds that requests in progress have at shutdown"),
    )
    shutdown_delay: float = field(
        default=0.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=about("seconds at shutdown in which the server is unready, and still takes new requests"),
    )

    plugins_path: Path | None = field(
        default=None,
        converter=plugin_directory,
        metadata=about("a directory of distributions, all of whose plug-ins are served: plugins.md", env=()),
    )
    plugins: tuple[str, ...] = field(
        default=(),
        converter=words,
        metadata=about("the plug-ins to serve of those that are installed, by the names of their entry points"),
    )
    # Models.
    model_store: Path | None = field(
        default=None, converter=optional_path, metadata=about("the directory of archives and models")
    )
    workflow_store: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=about("the directory of workflow archives; model_store if not set"),
    )
    load_models: str | None = field(
        default=None,
        converter=optional_text,
        metadata=about("what to load at start: all, or [name=]location,…: archives.md"),
    )
    startup_models_required: bool = field(
        default=False,
        converter=truth,
        metadata=about("end with status 1 when a model that is to be loaded at start fails"),
    )
    models: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(
        factory=dict,
        converter=per_version,
        metadata=about("settings by model and version, as JSON, also without quotes or with single ones", env=()),
    )
    model_snapshot: Mapping[str, Any] | None = field(
        default=None,
        converter=optional_object,
        metadata=about("models to restore at start instead of load_models, as JSON: snapshots.md", env=()),
    )
    snapshots_kept: int = field(
        default=20, converter=whole, validator=at_least(1), metadata=about("how many snapshots stay, the newest")
    )
    enable_model_api: bool = field(
        default=False, converter=truth, metadata=about("let clients register and unregister models")
    )
    allowed_urls: tuple[str, ...] = field(
        default=(),
        converter=patterns,
        metadata=about(
            "regular expressions of the URLs, as a whole and in any case, or paths, that clients may name: archives.md"
        ),
    )
    max_archive_size: int = field(
        default=32 << 30, converter=whole, validator=at_least(1), metadata=about("bytes of an archive, unpacked")
    )
    max_archive_ratio: int = field(
        default=200,
        converter=whole,
        validator=at_least(1),
        metadata=about("how many times larger than packed an archive may be"),
    )
    download_timeout: float = field(
        default=600.0, converter=real, validator=seconds, metadata=about("seconds to fetch an archive")
    )
    install_py_dep_per_model: bool = field(
        default=False,
        converter=truth,
        metadata=about("install what an archive's requirements file names, for that model alone"),
    )
    install_py_dep_timeout: float = field(
        default=1800.0,
        converter=real,
        validator=seconds,
        metadata=about("seconds that such an installation may take"),
    )
    temp_directory: Path = field(
        factory=lambda: Path(tempfile.gettempdir()),
        converter=a_path,
        metadata=about("where archives are unpacked", env=("TEMP",)),
    )

    # Workers.
    default_workers_per_model: int = field(
        default=0,
        converter=whole,
        validator=at_least(0),
        metadata=about("workers of a model loaded at start; 0 for one per GPU, or per CPU without GPU"),
    )
    job_queue_size: int = field(
        default=100, converter=whole, validator=at_least(1), metadata=about("requests that may wait for a model")
    )
    default_batch_policy: str = field(
        default="eager",
        converter=mode,
        validator=one_of(("eager", "window", "adaptive")),
        metadata=about("when a batch that is not full leaves, unless the model says so itself: scheduling.md"),
    )
    default_response_timeout: int = field(
        default=120, converter=whole, validator=at_least(0), metadata=about("seconds that a worker has for an answer")
    )
    default_startup_timeout: int = field(
        default=120, converter=whole, validator=at_least(0), metadata=about("seconds that a worker has to load")
    )
    retry_on_worker_death: bool = field(
        default=True,
        converter=truth,
        metadata=about("give requests of a worker that died to another, once, unless the model says so itself"),
    )
    scale_up_delay: float = field(
        default=1.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=about("seconds that a request waits before one more worker is started, up to maxWorkers"),
    )
    scale_idle_time: float = field(
        default=300.0,
        converter=real,
        validator=seconds,
        metadata=about("seconds that a worker has nothing to do before it is ended, down to minWorkers"),
    )
    circuit_retry_time: float = field(
        default=300.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=about("seconds between attempts to start a worker that has failed for too long; 0 for none"),
    )
    unregister_model_timeout: int = field(
        default=120, converter=whole, validator=at_least(0), metadata=about("seconds that a worker has to end")
    )
    initial_worker_port: int = field(
        default=9000, converter=whole, validator=at_least(0), metadata=about("the number of the first worker")
    )
    number_of_gpu: int | None = field(
        default=None, converter=optional_whole, validator=at_least(0), metadata=about("how many GPUs to use at most")
    )
    python: str = field(factory=lambda: sys.executable, metadata=about("the interpreter which workers run in", env=()))
    worker_user: str | None = field(
        default=None,
        converter=optional_text,
        metadata=about("the user, or user:group, that models' code runs as, for a server that root starts"),
    )
    worker_start: str = field(
        default="fork",
        converter=mode,
        validator=one_of(("fork", "spawn")),
        metadata=about(
            "how workers start: fork, from a template, which is quick and shares weights; or spawn, a new interpreter"
        ),
    )
    default_service_handler: str | None = field(
        default=None, converter=optional_text, metadata=about("the handler of archives that name none")
    )
    service_envelope: str | None = field(
        default=None,
        converter=optional_text,
        metadata=about(
            "the request envelope of every model: `body`, `json`, `kserve`, `kservev2`, or a module that has one"
        ),
    )
    ts_header_key_sequence_id: str = field(
        default="ts_request_sequence_id",
        validator=header_name,
        metadata=about("the header that names a request's sequence", env=("TS_HEADER_KEY_SEQUENCE_ID",)),
    )
    ts_header_key_sequence_start: str = field(
        default="ts_request_sequence_start",
        validator=header_name,
        metadata=about("the header that tells a handler of a new sequence", env=("TS_HEADER_KEY_SEQUENCE_START",)),
    )
    ts_header_key_sequence_end: str = field(
        default="ts_request_sequence_end",
        validator=header_name,
        metadata=about("the header that ends a sequence, as handlers know it", env=("TS_HEADER_KEY_SEQUENCE_END",)),
    )
    limit_max_image_pixels: bool = field(
        default=True, converter=truth, metadata=about("let handlers refuse images of absurd size")
    )
    allow_pickled_weights: bool = field(
        default=False,
        converter=truth,
        metadata=about("load weights that hold more than tensors; doing so runs code which the file brings"),
    )
    decode_input_request: bool = field(
        default=True, converter=truth, metadata=about("decode JSON and text for handlers")
    )
    ipex_enable: bool = field(
        default=False,
        converter=truth,
        metadata=about("have handlers use Intel's extension where it is installed (TS_IPEX_ENABLE for workers)"),
    )
    ipex_gpu_enable: bool = field(
        default=False, converter=truth, metadata=about("the same for Intel's GPUs (TS_IPEX_GPU_ENABLE for workers)")
    )
    blacklist_env_vars: str | None = field(
        default=None,
        converter=optional_pattern,
        metadata=about("a regular expression of the environment variables, by whole name, kept from workers"),
    )

    # Metrics and logs.
    metrics_mode: str = field(
        default="log",
        converter=mode,
        validator=one_of(("log", "prometheus", "legacy")),
        metadata=about("where TorchServe's metrics go: log, prometheus or legacy; see observability.md"),
    )
    metrics_config: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=about("a metrics.yaml, which defines TorchServe's metrics"),
    )
    model_metrics_auto_detect: bool = field(
        default=False,
        converter=truth,
        metadata=about("accept metrics of handlers that metrics_config does not define"),
    )
    disable_system_metrics: bool = field(
        default=False, converter=truth, metadata=about("do not read the machine's processors, memory, disk and GPUs")
    )
    metric_time_interval: int = field(
        default=60,
        converter=whole,
        validator=between(1, MAX_SECONDS),
        metadata=about("seconds from one reading of the machine to the next", env=()),
    )
    debug_turn_limit_ms: float = field(
        default=0.0,
        converter=real,
        validator=at_least(0),
        metadata=about(
            "log an error, with the stack, for each turn of the reactor that takes more than so many milliseconds of "
            "processor time; 0: do not measure"
        ),
    )
    server_timing: bool = field(
        default=False, converter=truth, metadata=about("say in a Server-Timing header where a prediction's time went")
    )
    prediction_error_detail: str = field(
        default="auto",
        converter=word,
        validator=one_of(("auto", "true", "false")),
        metadata=about(
            "say in the answer to a prediction that failed what the handler raised, and where; auto: to listeners that "
            "only this machine can reach"
        ),
    )
    tracing: bool = field(
        default=False,
        converter=truth,
        metadata=about("send a trace of each prediction, as OpenTelemetry's variables say: observability.md"),
    )

    log_files: bool = field(
        default=True, converter=truth, metadata=about("write the five log files besides the console, not under twistd")
    )
    log_location: Path | None = field(
        default=Path("logs"),
        converter=optional_path,
        metadata=about("the directory of access_log.log, ts_log.log and model_log.log", env=("LOG_LOCATION",)),
    )
    metrics_location: Path | None = field(
        default=Path("logs"),
        converter=optional_path,
        metadata=about("the directory of ts_metrics.log and model_metrics.log", env=("METRICS_LOCATION",)),
    )
    log_format: str = field(
        default="text",
        converter=mode,
        validator=one_of(("text", "json")),
        metadata=about("the format of log lines: text, as TorchServe's, or json"),
    )
    log_level: str = field(
        default="info",
        converter=mode,
        validator=one_of(LOG_LEVELS),
        metadata=about("the least level that is logged: debug, info, warn, error, critical, or off"),
    )
    log_levels: Mapping[str, str] = field(
        factory=dict,
        converter=levels_by_name,
        metadata=about("other levels for some loggers, such as ACCESS_LOG=off,TS_METRICS=off"),
    )
    log_rotate_size: int = field(
        default=100 << 20,
        converter=whole,
        validator=at_least(1),
        metadata=about("bytes at which a log file is rotated; each file is also rotated daily"),
    )
    log_rotate_keep: int = field(
        default=5, converter=whole, validator=at_least(1), metadata=about("how many old log files of each are kept")
    )
    log_config: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=about(
            "a dictConfig of Python's logging, which decides alone, or log4j2's XML or properties, whose levels count"
        ),
    )


#: Variables that are effective without being enabled by the file (``docs/torchserve/config_cli.md`` §1.6, §2.6).
ALWAYS_READ = frozenset(
    (
        "LOG_LOCATION",
        "METRICS_LOCATION",
        "TEMP",
        "TS_OPEN_INFERENCE_PROTOCOL",
        # As the variables with keys are, which an image sets without a configuration file.
        "TS_TOKEN_API_KEY_FILE",
        "TS_TOKEN_INFERENCE_KEY_FILE",
        "TS_TOKEN_MANAGEMENT_KEY_FILE",
    )
)

_FIELDS: Mapping[str, Any] = {a.name: a for a in fields(ServerOptions)}

#: The keys of all settings.
KEYS = frozenset(_FIELDS)

#: The keys of secret settings, which are never shown.
SECRETS = frozenset(a.name for a in fields(ServerOptions) if not a.repr)

#: The keys of all switches.
SWITCHES = frozenset(a.name for a in fields(ServerOptions) if a.type in (bool, "bool"))


def environment_names(key: str) -> tuple[str, ...]:
    """Return the environment variables that can set ``key``; the first one that is set is used."""
    names: tuple[str, ...] | None = _FIELDS[key].metadata["env"]
    return (f"TS_{key.upper()}",) if names is None else names


def read_setting(key: str, text: str) -> Any:
    """
    Parse the value of one setting.

    :raise ConfigError: for an invalid value, naming ``key`` and ``text``.
    """
    attribute = _FIELDS[key]
    value = text if attribute.converter is None else attribute.converter(text)
    if attribute.validator is not None:
        attribute.validator(None, attribute, value)
    return value


def with_absolute_paths(options: ServerOptions, directory: Path) -> ServerOptions:
    """Return settings with absolute paths; relative paths are resolved against ``directory``."""
    values = {key: getattr(options, key) for key in KEYS}
    absolute: dict[str, Any] = {key: directory / value for key, value in values.items() if isinstance(value, Path)}
    return evolve(options, **absolute)
