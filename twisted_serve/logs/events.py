# SPDX-License-Identifier: Apache-2.0
"""
Define the log lines that scripts wait for, and log the events of requests, workers and metrics.

An event may have a ``logger_name`` and a ``thread_name`` for its line
(``docs/torchserve/config_cli.md`` §9), and ``fields``, which only the JSON layout shows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from time import time
from typing import Literal

from twisted.logger import Logger, LogLevel

# Lines that operators and launchers look for.
SERVER_STARTED = "Model server started."
INFERENCE_BOUND = "Inference API bind to: {address}"
MANAGEMENT_BOUND = "Management API bind to: {address}"
METRICS_BOUND = "Metrics API bind to: {address}"
GRPC_INFERENCE_BOUND = "gRPC inference API bind to: {address}"
GRPC_MANAGEMENT_BOUND = "gRPC management API bind to: {address}"
TOKEN_ENABLED = "Token Authorization Enabled"  # noqa: S105
TOKEN_BLOCK = (
    "######",
    "TorchServe now enforces token authorization by default.",
    "This requires the correct token to be provided when calling an API.",
    "Key file located at {path}",
    "See docs/tokens.md for how to use, replace and disable tokens.",
    "######",
)
TOKEN_DISABLED = "Token Authorization is disabled: whoever can reach {address} can use it"  # noqa: S105
MODEL_LOADED = "Model {name} loaded."
MODEL_NOT_LOADED = "Failed to load model: {url}"
SERVER_STOPPED = "Torchserve stopped."
WORKER_PID = "[PID]{pid}"
WORKER_STARTED = "Torch worker started."
STATE_CHANGE = "{worker} State change {old} -> {new}"
NO_RESPONSE = "Backend worker did not respond in given time"
UNANSWERED = "Number or consecutive unsuccessful inference {count}"
WORKER_ERROR = "Backend worker error"
# As TorchServe's tests look for it: a Java class's name and message, on a line of its own.
WORKER_ERROR_CAUSE = f"org.pytorch.serve.wlm.WorkerInitializationException: {NO_RESPONSE}"
RECOVERY_BEGAN = "Auto recovery start timestamp: {moment}"
RECOVERY_FAILED = "Auto recovery failed again"
RECOVERED = "Auto recovery succeeded, reset recoveryStartTS"
DISCONNECTED = "{worker_id} Worker disconnected. {state}"
RETRY = "Retry worker: {worker_id} in {delay:g} seconds. {reason}"
CLIENT_GONE = "Connection to client got closed; Removing job: {request_id}"

# Names of loggers.
ACCESS_LOG = "ACCESS_LOG"
MODEL_LOG = "MODEL_LOG"
TS_METRICS = "TS_METRICS"
MODEL_METRICS = "MODEL_METRICS"

# The format of an event whose text is already rendered: formatting would slow down every request.
READY = "{line}"


def log_model_output(log: Logger, worker: str, stream: Literal["stdout", "stderr"], line: str) -> None:
    """
    Log one line of a worker's output.

    :param worker: The name of the worker, such as ``W-9000-resnet_1.0``.
    """
    level = LogLevel.info if stream == "stdout" else LogLevel.warn
    emit(log, level, line, time(), logger_name=MODEL_LOG, thread_name=f"{worker}-{stream}")


class RenderedLines(list[str]):
    """
    Lines of an event that need no change: without control characters.

    :ivar texts: The texts that the event is made of, its fields included, without numbers and the server's own words:
        no key can be anywhere else.
    """

    def __init__(self, lines: Iterable[str], texts: Collection[str]) -> None:
        super().__init__(lines)
        self.texts = texts


def log_lines(log: Logger, logger_name: str, lines: Sequence[str]) -> None:
    """Log several lines of one logger as one event; none of them contains a line end."""
    log.info(READY, line="\n".join(lines), lines=lines, logger_name=logger_name)


def emit(log: Logger, level: LogLevel, line: str, moment: float, **more: object) -> None:
    """Emit an event as `Logger.emit` does, without its validation of the level, which takes longer than the rest."""
    log.observer(
        {
            **more,
            "line": line,
            "log_format": READY,
            "log_level": level,
            "log_logger": log,
            "log_namespace": log.namespace,
            "log_source": log.source,
            "log_time": moment,
        }
    )


def log_no_response(log: Logger) -> None:
    """Write that a worker did not answer in its time, or did not load in it."""
    log.error(WORKER_ERROR)
    log.error(WORKER_ERROR_CAUSE)
