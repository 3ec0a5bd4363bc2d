# SPDX-License-Identifier: Apache-2.0
"""
What the log says, and what it looks like: the predecessor's lines, so that what greps for them still finds them.

``events``         what is said of requests, workers and metrics
``gathering``      many events of one line made into one of many lines
``entries``        one event, ready to be written: no control character that somebody sent, and no live key
``layouts``        the predecessor's two patterns, and JSON
``levels``         what is not worth a line
``router``         which lines go where
``files``          the predecessor's five files, and their rotation
``configuration``  the file of ``--log-config``
"""

from twisted_serve.logs.entries import printable, redact, redacting
from twisted_serve.logs.events import (
    ACCESS_LOG,
    CLIENT_GONE,
    DISCONNECTED,
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
    log_access,
    log_lines,
    log_model_output,
)
from twisted_serve.logs.router import LineObserver, console

__all__ = [
    "ACCESS_LOG",
    "CLIENT_GONE",
    "DISCONNECTED",
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
    "LineObserver",
    "console",
    "log_access",
    "log_lines",
    "log_model_output",
    "printable",
    "redact",
    "redacting",
]
