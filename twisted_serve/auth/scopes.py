# SPDX-License-Identifier: Apache-2.0
"""
Map the operations of a server to the scopes that keys need for them.

Operations are those of the server, not of a transport: a transport only states which operation a request is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, TypeAlias

from twisted_serve.auth.tokens import TokenKind

#: The operations that one key opens. Today each kind of key opens one fixed set of them.
Scope: TypeAlias = TokenKind


class Operation(Enum):
    """What a client may ask of a server."""

    #: Answer a probe with yes or no.
    PROBE = auto()
    #: Describe the API of a listener.
    DESCRIBE_API = auto()
    #: Read the metrics where they are public but for ``metrics_token_file``, which the metrics routes check.
    SCRAPE_METRICS = auto()

    CHECK_HEALTH = auto()
    #: Read the names, versions and readiness of models, and how to call them.
    INSPECT_MODELS = auto()
    PREDICT = auto()
    EXPLAIN = auto()
    PREDICT_WORKFLOW = auto()

    LIST_MODELS = auto()
    DESCRIBE_MODEL = auto()
    REGISTER_MODEL = auto()
    SCALE_MODEL = auto()
    UNREGISTER_MODEL = auto()
    SET_DEFAULT_VERSION = auto()
    LIST_WORKFLOWS = auto()
    DESCRIBE_WORKFLOW = auto()
    REGISTER_WORKFLOW = auto()
    UNREGISTER_WORKFLOW = auto()
    #: Read the metrics where they are not public.
    READ_METRICS = auto()

    REPLACE_KEY = auto()


_OPERATIONS: Final[Mapping[Scope | None, frozenset[Operation]]] = {
    None: frozenset({Operation.PROBE, Operation.DESCRIBE_API, Operation.SCRAPE_METRICS}),
    TokenKind.INFERENCE: frozenset(
        {
            Operation.CHECK_HEALTH,
            Operation.INSPECT_MODELS,
            Operation.PREDICT,
            Operation.EXPLAIN,
            Operation.PREDICT_WORKFLOW,
        }
    ),
    TokenKind.MANAGEMENT: frozenset(
        {
            Operation.LIST_MODELS,
            Operation.DESCRIBE_MODEL,
            Operation.REGISTER_MODEL,
            Operation.SCALE_MODEL,
            Operation.UNREGISTER_MODEL,
            Operation.SET_DEFAULT_VERSION,
            Operation.LIST_WORKFLOWS,
            Operation.DESCRIBE_WORKFLOW,
            Operation.REGISTER_WORKFLOW,
            Operation.UNREGISTER_WORKFLOW,
            Operation.READ_METRICS,
        }
    ),
    TokenKind.API: frozenset({Operation.REPLACE_KEY}),
}

_REQUIRED: Final = {operation: scope for scope, operations in _OPERATIONS.items() for operation in operations}


def required(operation: Operation) -> Scope | None:
    """
    Return the scope that an operation needs; ``None`` for a public one.

    :raise KeyError: for an operation without an entry, which is never public by omission.
    """
    return _REQUIRED[operation]
