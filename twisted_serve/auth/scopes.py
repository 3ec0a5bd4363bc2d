# SPDX-License-Identifier: Apache-2.0
"""
Map the operations of a server to the scopes that keys need for them.

Operations are those of the server, not of a transport: a transport only states which operation a request is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from twisted_serve.interfaces import Operation, TokenKind

__all__ = ["Operation", "Scope", "required"]

#: The operations that one key opens. Today each kind of key opens one fixed set of them.
Scope: TypeAlias = TokenKind


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
    TokenKind.API: frozenset(
        {
            Operation.REPLACE_KEY,
            Operation.LIST_KEYS,
            Operation.CREATE_KEY,
            Operation.CHANGE_KEY,
            Operation.REVOKE_KEY,
        }
    ),
}

_REQUIRED: Final = {operation: scope for scope, operations in _OPERATIONS.items() for operation in operations}


def required(operation: Operation) -> Scope | None:
    """
    Return the scope that an operation needs; ``None`` for a public one.

    :raise KeyError: for an operation without an entry, which is never public by omission.
    """
    return _REQUIRED[operation]
