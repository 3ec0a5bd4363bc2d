# SPDX-License-Identifier: Apache-2.0
"""
Define every setting of a server once, with its description, default and limits.

A field's name is the property's key.  Its metadata has ``doc``, its description, and
``env``, the environment variables that can set it (``docs/torchserve/config_cli.md`` §2.6, §3).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from attrs import evolve, field, fields, frozen

from twisted_serve.config.addresses import (
    INFERENCE_PORTS,
    MANAGEMENT_PORTS,
    METRICS_PORTS,
    Address,
    parse_address,
    same_listener,
)
from twisted_serve.config.values import (
    LOG_LEVELS,
    ConfigError,
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
    positive,
    real,
    truth,
    truth_or_oip,
    whole,
    words,
)

# The expiry of a key must be a valid date: these minutes are 7600 years.
MAX_TOKEN_MINUTES = 4e9

# Dates have a resolution of a microsecond.
MIN_SECONDS = 1e-6
MIN_TOKEN_MINUTES = MIN_SECONDS / 60

# No timeout is longer than a year.
MAX_SECONDS = 366 * 24 * 3600.0


def _about(doc: str, env: tuple[str, ...] | None = None) -> Mapping[str, object]:
    """Return a field's metadata; without ``env``, the variable is ``TS_`` and the field's name in capitals."""
    return {"doc": doc, "env": env}


def _inference(value: str | Address) -> Address:
    return value if isinstance(value, Address) else parse_address(value, INFERENCE_PORTS)


def _management(value: str | Address) -> Address:
    return value if isinstance(value, Address) else parse_address(value, MANAGEMENT_PORTS)


def _metrics(value: str | Address) -> Address:
    return value if isinstance(value, Address) else parse_address(value, METRICS_PORTS)


def _mode(value: str) -> str:
    return value.replace(" ", "").lower()


def _word(value: str | bool) -> str:
    return str(value).strip().lower()


def _naming_errors(_cls: type, attributes: list[Any]) -> list[Any]:
    """Make the errors of each field's converter and validator name the setting."""

    def naming(name: str, check: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if check is None:
            return None

        @wraps(check)
        def named(*args: object) -> Any:
            try:
                return check(*args)
            except ValueError as e:
                raise ConfigError(str(e), name) from e

        return named

    return [a.evolve(converter=naming(a.name, a.converter), validator=naming(a.name, a.validator)) for a in attributes]


_seconds = positive(MIN_SECONDS, MAX_SECONDS)


@frozen(field_transformer=_naming_errors)
class ServerOptions:
    """
    All settings of one server.

    In Python, each setting is given as a value or as the text that a file would have::

        ServerOptions(model_store="models", inference_address="http://127.0.0.1:0")

    :raise ConfigError: for an invalid value, naming it and its setting.
    """

    # Listeners.
    inference_address: Address = field(
        default=Address("http", "127.0.0.1", 8080),
        converter=_inference,
        metadata=_about("where the inference API listens; this and the next two may be endpoints: deployment.md"),
    )
    management_address: Address = field(
        default=Address("http", "127.0.0.1", 8081),
        converter=_management,
        metadata=_about("where the management API listens"),
    )
    metrics_address: Address = field(
        default=Address("http", "127.0.0.1", 8082), converter=_metrics, metadata=_about("where the metrics API listens")
    )
    enable_metrics_api: bool = field(default=True, converter=truth, metadata=_about("serve /metrics"))
    keystore: Path | None = field(
        default=None, converter=optional_path, metadata=_about("a key store; its first key is used for https")
    )
    keystore_pass: str = field(default="changeit", repr=False, metadata=_about("the password of keystore"))
    keystore_type: str = field(
        default="PKCS12", metadata=_about("the type of keystore; a PKCS12 file is read regardless of this setting")
    )
    certificate_file: Path | None = field(
        default=None, converter=optional_path, metadata=_about("the certificate chain for https, PEM")
    )
    private_key_file: Path | None = field(
        default=None, converter=optional_path, metadata=_about("the key of certificate_file, PEM")
    )
    client_ca_file: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=_about("the authorities of the clients that https listeners trust, PEM"),
    )
    client_certificate: str = field(
        default="none",
        converter=_mode,
        validator=one_of(("none", "optional", "required")),
        metadata=_about("whether clients of https listeners show a certificate: none, optional or required"),
    )
    cors_allowed_origin: str | None = field(
        default=None, converter=optional_text, metadata=_about("Access-Control-Allow-Origin of every answer")
    )
    cors_allowed_methods: str | None = field(
        default=None, converter=optional_text, metadata=_about("Access-Control-Allow-Methods of every answer")
    )
    cors_allowed_headers: str | None = field(
        default=None, converter=optional_text, metadata=_about("Access-Control-Allow-Headers of every answer")
    )

    plugins_path: Path | None = field(
        default=None,
        converter=plugin_directory,
        metadata=_about("a directory of distributions, all of whose plug-ins are served: plugins.md", env=()),
    )
    plugins: tuple[str, ...] = field(
        default=(),
        converter=words,
        metadata=_about("the plug-ins to serve of those that are installed, by the names of their entry points"),
    )
    ts_open_inference_protocol: bool = field(
        default=False,
        converter=truth_or_oip,
        metadata=_about(
            "serve the extras of the Open Inference Protocol: true or oip", env=("TS_OPEN_INFERENCE_PROTOCOL",)
        ),
    )

    # Limits of a connection.
    max_connections: int = field(
        default=0,
        converter=whole,
        validator=at_least(0),
        metadata=_about(
            "connections of all listeners together, at most the limit of open files less a reserve; 0 for that"
        ),
    )
    max_request_size: int = field(
        default=6553500, converter=whole, validator=at_least(0), metadata=_about("bytes of a request's body")
    )
    max_response_size: int = field(
        default=6553500, converter=whole, validator=at_least(0), metadata=_about("bytes of a worker's answer")
    )
    max_header_size: int = field(
        default=16384, converter=whole, validator=at_least(8192), metadata=_about("bytes of all headers of a request")
    )
    header_timeout: float = field(
        default=30.0, converter=real, validator=_seconds, metadata=_about("seconds for a request's headers to arrive")
    )
    body_timeout: float = field(
        default=300.0, converter=real, validator=_seconds, metadata=_about("seconds for a whole body to arrive")
    )
    keepalive_timeout: float = field(
        default=75.0, converter=real, validator=_seconds, metadata=_about("seconds that an idle connection is kept")
    )
    shutdown_timeout: float = field(
        default=30.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=_about("seconds that requests in progress have at shutdown"),
    )
    shutdown_delay: float = field(
        default=0.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=_about("seconds at shutdown in which the server is unready, and still takes new requests"),
    )

    # Tokens.
    disable_token_authorization: bool = field(
        default=False, converter=truth, metadata=_about("accept every request, without a key")
    )
    token_expiration_min: float = field(
        default=60.0,
        converter=real,
        validator=positive(MIN_TOKEN_MINUTES, MAX_TOKEN_MINUTES),
        metadata=_about(
            "minutes until a management or inference key expires",
            env=("TS_TOKEN_EXPIRATION_TIME_MIN", "TS_TOKEN_EXPIRATION_MIN"),
        ),
    )
    token_key_file: Path = field(
        default=Path("key_file.json"), converter=a_path, metadata=_about("the file which the keys are written to")
    )
    token_refusal_status: int = field(
        default=400,
        converter=whole,
        validator=one_of((400, 401)),
        metadata=_about("the status of a refusal: 400 as in TorchServe, 401 as in RFC 6750"),
    )
    token_exempt_ping: bool = field(default=False, converter=truth, metadata=_about("let /ping answer without a key"))
    token_auto_rotate: bool = field(
        default=False, converter=truth, metadata=_about("replace keys as soon as they have expired")
    )
    token_warning_min: float = field(
        default=5.0,
        converter=real,
        validator=between(0, MAX_TOKEN_MINUTES),
        metadata=_about("minutes before a key expires at which the log warns, and observers are told"),
    )

    # Models.
    model_store: Path | None = field(
        default=None, converter=optional_path, metadata=_about("the directory of archives and models")
    )
    workflow_store: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=_about("the directory of workflow archives; model_store if not set"),
    )
    load_models: str | None = field(
        default=None,
        converter=optional_text,
        metadata=_about("what to load at start: all, or [name=]location,…: archives.md"),
    )
    startup_models_required: bool = field(
        default=False,
        converter=truth,
        metadata=_about("end with status 1 when a model that is to be loaded at start fails"),
    )
    models: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(
        factory=dict,
        converter=per_version,
        metadata=_about("settings by model and version, as JSON, also without quotes or with single ones", env=()),
    )
    model_snapshot: Mapping[str, Any] | None = field(
        default=None,
        converter=optional_object,
        metadata=_about("models to restore at start instead of load_models, as JSON: snapshots.md", env=()),
    )
    snapshots_kept: int = field(
        default=20, converter=whole, validator=at_least(1), metadata=_about("how many snapshots stay, the newest")
    )
    enable_model_api: bool = field(
        default=False, converter=truth, metadata=_about("let clients register and unregister models")
    )
    allowed_urls: tuple[str, ...] = field(
        default=(),
        converter=patterns,
        metadata=_about(
            "regular expressions of the URLs, as a whole and in any case, or paths, that clients may name: archives.md"
        ),
    )
    max_archive_size: int = field(
        default=32 << 30, converter=whole, validator=at_least(1), metadata=_about("bytes of an archive, unpacked")
    )
    max_archive_ratio: int = field(
        default=200,
        converter=whole,
        validator=at_least(1),
        metadata=_about("how many times larger than packed an archive may be"),
    )
    download_timeout: float = field(
        default=600.0, converter=real, validator=_seconds, metadata=_about("seconds to fetch an archive")
    )
    install_py_dep_per_model: bool = field(
        default=False,
        converter=truth,
        metadata=_about("install what an archive's requirements file names, for that model alone"),
    )
    install_py_dep_timeout: float = field(
        default=1800.0,
        converter=real,
        validator=_seconds,
        metadata=_about("seconds that such an installation may take"),
    )
    temp_directory: Path = field(
        factory=lambda: Path(tempfile.gettempdir()),
        converter=a_path,
        metadata=_about("where archives are unpacked", env=("TEMP",)),
    )

    # Workers.
    default_workers_per_model: int = field(
        default=0,
        converter=whole,
        validator=at_least(0),
        metadata=_about("workers of a model loaded at start; 0 for one per GPU, or per CPU without GPU"),
    )
    job_queue_size: int = field(
        default=100, converter=whole, validator=at_least(1), metadata=_about("requests that may wait for a model")
    )
    default_batch_policy: str = field(
        default="eager",
        converter=_mode,
        validator=one_of(("eager", "window", "adaptive")),
        metadata=_about("when a batch that is not full leaves, unless the model says so itself: scheduling.md"),
    )
    default_response_timeout: int = field(
        default=120, converter=whole, validator=at_least(0), metadata=_about("seconds that a worker has for an answer")
    )
    default_startup_timeout: int = field(
        default=120, converter=whole, validator=at_least(0), metadata=_about("seconds that a worker has to load")
    )
    retry_on_worker_death: bool = field(
        default=True,
        converter=truth,
        metadata=_about("give requests of a worker that died to another, once, unless the model says so itself"),
    )
    scale_up_delay: float = field(
        default=1.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=_about("seconds that a request waits before one more worker is started, up to maxWorkers"),
    )
    scale_idle_time: float = field(
        default=300.0,
        converter=real,
        validator=_seconds,
        metadata=_about("seconds that a worker has nothing to do before it is ended, down to minWorkers"),
    )
    circuit_retry_time: float = field(
        default=300.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=_about("seconds between attempts to start a worker that has failed for too long; 0 for none"),
    )
    unregister_model_timeout: int = field(
        default=120, converter=whole, validator=at_least(0), metadata=_about("seconds that a worker has to end")
    )
    initial_worker_port: int = field(
        default=9000, converter=whole, validator=at_least(0), metadata=_about("the number of the first worker")
    )
    number_of_gpu: int | None = field(
        default=None, converter=optional_whole, validator=at_least(0), metadata=_about("how many GPUs to use at most")
    )
    python: str = field(factory=lambda: sys.executable, metadata=_about("the interpreter which workers run in", env=()))
    worker_user: str | None = field(
        default=None,
        converter=optional_text,
        metadata=_about("the user, or user:group, that models' code runs as, for a server that root starts"),
    )
    worker_start: str = field(
        default="fork",
        converter=_mode,
        validator=one_of(("fork", "spawn")),
        metadata=_about(
            "how workers start: fork, from a template, which is quick and shares weights; or spawn, a new interpreter"
        ),
    )
    default_service_handler: str | None = field(
        default=None, converter=optional_text, metadata=_about("the handler of archives that name none")
    )
    service_envelope: str | None = field(
        default=None,
        converter=optional_text,
        metadata=_about(
            "the request envelope of every model: `body`, `json`, `kserve`, `kservev2`, or a module that has one"
        ),
    )
    ts_header_key_sequence_id: str = field(
        default="ts_request_sequence_id",
        validator=header_name,
        metadata=_about("the header that names a request's sequence", env=("TS_HEADER_KEY_SEQUENCE_ID",)),
    )
    ts_header_key_sequence_start: str = field(
        default="ts_request_sequence_start",
        validator=header_name,
        metadata=_about("the header that tells a handler of a new sequence", env=("TS_HEADER_KEY_SEQUENCE_START",)),
    )
    ts_header_key_sequence_end: str = field(
        default="ts_request_sequence_end",
        validator=header_name,
        metadata=_about("the header that ends a sequence, as handlers know it", env=("TS_HEADER_KEY_SEQUENCE_END",)),
    )
    limit_max_image_pixels: bool = field(
        default=True, converter=truth, metadata=_about("let handlers refuse images of absurd size")
    )
    allow_pickled_weights: bool = field(
        default=False,
        converter=truth,
        metadata=_about("load weights that hold more than tensors; doing so runs code which the file brings"),
    )
    decode_input_request: bool = field(
        default=True, converter=truth, metadata=_about("decode JSON and text for handlers")
    )
    ipex_enable: bool = field(
        default=False,
        converter=truth,
        metadata=_about("have handlers use Intel's extension where it is installed (TS_IPEX_ENABLE for workers)"),
    )
    ipex_gpu_enable: bool = field(
        default=False, converter=truth, metadata=_about("the same for Intel's GPUs (TS_IPEX_GPU_ENABLE for workers)")
    )
    blacklist_env_vars: str | None = field(
        default=None,
        converter=optional_pattern,
        metadata=_about("a regular expression of the environment variables, by whole name, kept from workers"),
    )

    # Metrics and logs.
    metrics_mode: str = field(
        default="log",
        converter=_mode,
        validator=one_of(("log", "prometheus", "legacy")),
        metadata=_about("where TorchServe's metrics go: log, prometheus or legacy; see observability.md"),
    )
    metrics_config: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=_about("a metrics.yaml, which defines TorchServe's metrics"),
    )
    model_metrics_auto_detect: bool = field(
        default=False,
        converter=truth,
        metadata=_about("accept metrics of handlers that metrics_config does not define"),
    )
    metrics_token_file: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=_about("a file with the bearer token that /metrics requires; it is read for each request"),
    )
    disable_system_metrics: bool = field(
        default=False, converter=truth, metadata=_about("do not read the machine's processors, memory, disk and GPUs")
    )
    metric_time_interval: int = field(
        default=60,
        converter=whole,
        validator=between(1, MAX_SECONDS),
        metadata=_about("seconds from one reading of the machine to the next", env=()),
    )
    debug_turn_limit_ms: float = field(
        default=0.0,
        converter=real,
        validator=at_least(0),
        metadata=_about(
            "log an error, with the stack, for each turn of the reactor that takes more than so many milliseconds of "
            "processor time; 0: do not measure"
        ),
    )
    server_timing: bool = field(
        default=False, converter=truth, metadata=_about("say in a Server-Timing header where a prediction's time went")
    )
    prediction_error_detail: str = field(
        default="auto",
        converter=_word,
        validator=one_of(("auto", "true", "false")),
        metadata=_about(
            "say in the answer to a prediction that failed what the handler raised, and where; auto: to listeners that "
            "only this machine can reach"
        ),
    )
    tracing: bool = field(
        default=False,
        converter=truth,
        metadata=_about("send a trace of each prediction, as OpenTelemetry's variables say: observability.md"),
    )

    log_files: bool = field(
        default=True, converter=truth, metadata=_about("write the five log files besides the console, not under twistd")
    )
    log_location: Path | None = field(
        default=Path("logs"),
        converter=optional_path,
        metadata=_about("the directory of access_log.log, ts_log.log and model_log.log", env=("LOG_LOCATION",)),
    )
    metrics_location: Path | None = field(
        default=Path("logs"),
        converter=optional_path,
        metadata=_about("the directory of ts_metrics.log and model_metrics.log", env=("METRICS_LOCATION",)),
    )
    log_format: str = field(
        default="text",
        converter=_mode,
        validator=one_of(("text", "json")),
        metadata=_about("the format of log lines: text, as TorchServe's, or json"),
    )
    log_level: str = field(
        default="info",
        converter=_mode,
        validator=one_of(LOG_LEVELS),
        metadata=_about("the least level that is logged: debug, info, warn, error, critical, or off"),
    )
    log_levels: Mapping[str, str] = field(
        factory=dict,
        converter=levels_by_name,
        metadata=_about("other levels for some loggers, such as ACCESS_LOG=off,TS_METRICS=off"),
    )
    log_rotate_size: int = field(
        default=100 << 20,
        converter=whole,
        validator=at_least(1),
        metadata=_about("bytes at which a log file is rotated; each file is also rotated daily"),
    )
    log_rotate_keep: int = field(
        default=5, converter=whole, validator=at_least(1), metadata=_about("how many old log files of each are kept")
    )
    log_config: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=_about(
            "a dictConfig of Python's logging, which decides alone, or log4j2's XML or properties, whose levels count"
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Refuse combinations of settings that are valid only separately."""
        if self.secure and (self.certificate_file is None) != (self.private_key_file is None):
            raise ConfigError("certificate_file and private_key_file need each other; only one is set")
        if (self.client_certificate == "none") != (self.client_ca_file is None):
            raise ConfigError("client_certificate and client_ca_file need each other; only one is set")
        listeners = self._listeners
        for at, (key, address) in enumerate(listeners):
            for other_key, other in listeners[:at]:
                if same_listener(address, other) and address.scheme != other.scheme:
                    raise ConfigError(f"{other_key} {other} and {key} {address} share a port; only one is https")

    @property
    def secure(self) -> bool:
        """Whether any listener uses TLS."""
        return any(address.secure for _key, address in self._listeners)

    @property
    def _listeners(self) -> list[tuple[str, Address]]:
        listeners = [("inference_address", self.inference_address), ("management_address", self.management_address)]
        if self.enable_metrics_api:
            listeners.append(("metrics_address", self.metrics_address))
        return listeners


#: Variables that are effective without being enabled by the file (``docs/torchserve/config_cli.md`` §1.6, §2.6).
ALWAYS_READ = frozenset(("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TS_OPEN_INFERENCE_PROTOCOL"))

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
