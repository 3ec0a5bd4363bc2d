# SPDX-License-Identifier: Apache-2.0
"""
Logging: TorchServe's lines in TorchServe's patterns, so that scripts that grep for them still find them.

``events``         the fixed log lines, and the events of workers and metrics
``access``         log requests in the access log: as events, or past them
``access_lines``   render the lines of the access log, of many requests at once
``characters``     escape characters that could forge a line
``coalescing``     coalesce events of one line into events of many lines
``records``        an event ready to be rendered, without control characters and live keys
``layouts``        render a record: TorchServe's two patterns, and JSON
``levels``         drop events below the level of their logger
``router``         dispatch events to console and files
``files``          TorchServe's five files, and their rotation
``configuration``  read the file of ``--log-config``
``setup``          set up the log of a server
``host_log``       prepare events for the log of another program
"""

from twisted_serve.logs.access import AccessLog, log_access, shortcut
from twisted_serve.logs.characters import printable
from twisted_serve.logs.events import (
    ACCESS_LOG,
    CLIENT_GONE,
    DISCONNECTED,
    GRPC_INFERENCE_BOUND,
    GRPC_MANAGEMENT_BOUND,
    INFERENCE_BOUND,
    MANAGEMENT_BOUND,
    METRICS_BOUND,
    MODEL_LOADED,
    MODEL_LOG,
    MODEL_METRICS,
    MODEL_NOT_LOADED,
    NO_RESPONSE,
    RECOVERED,
    RECOVERY_BEGAN,
    RECOVERY_FAILED,
    RETRY,
    SERVER_STARTED,
    SERVER_STOPPED,
    STATE_CHANGE,
    TOKEN_BLOCK,
    TOKEN_DISABLED,
    TOKEN_ENABLED,
    TS_METRICS,
    UNANSWERED,
    WORKER_ERROR,
    WORKER_ERROR_CAUSE,
    WORKER_PID,
    WORKER_STARTED,
    RenderedLines,
    log_lines,
    log_model_output,
    log_no_response,
)
from twisted_serve.logs.records import redact, redacting
from twisted_serve.logs.router import LineObserver, console

__all__ = [
    "ACCESS_LOG",
    "CLIENT_GONE",
    "DISCONNECTED",
    "GRPC_INFERENCE_BOUND",
    "GRPC_MANAGEMENT_BOUND",
    "INFERENCE_BOUND",
    "MANAGEMENT_BOUND",
    "METRICS_BOUND",
    "MODEL_LOADED",
    "MODEL_LOG",
    "MODEL_METRICS",
    "MODEL_NOT_LOADED",
    "NO_RESPONSE",
    "RECOVERED",
    "RECOVERY_BEGAN",
    "RECOVERY_FAILED",
    "RETRY",
    "SERVER_STARTED",
    "SERVER_STOPPED",
    "STATE_CHANGE",
    "TOKEN_BLOCK",
    "TOKEN_DISABLED",
    "TOKEN_ENABLED",
    "TS_METRICS",
    "UNANSWERED",
    "WORKER_ERROR",
    "WORKER_ERROR_CAUSE",
    "WORKER_PID",
    "WORKER_STARTED",
    "AccessLog",
    "LineObserver",
    "RenderedLines",
    "console",
    "log_access",
    "log_lines",
    "log_model_output",
    "log_no_response",
    "printable",
    "redact",
    "redacting",
    "shortcut",
]
