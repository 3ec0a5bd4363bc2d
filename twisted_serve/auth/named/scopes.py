# SPDX-License-Identifier: Apache-2.0
"""
Parse the scopes of a named key, and decide which operations they allow.

A scope opens operations of the server, for any transport. None includes another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from attrs import field, frozen

from twisted_serve.auth.needs import Need
from twisted_serve.interfaces import Operation, TokenKind

#: The scope that can be limited to models: ``inference:resnet*``.
INFERENCE: Final = "inference"

#: What each scope allows. Each operation that needs a key is in exactly one of them.
SCOPES: Final[Mapping[str, frozenset[Operation]]] = MappingProxyType(
    {
        INFERENCE: frozenset(
            {
                Operation.CHECK_HEALTH,
                Operation.INSPECT_MODELS,
                Operation.PREDICT,
                Operation.EXPLAIN,
                Operation.PREDICT_WORKFLOW,
            }
        ),
        "models:read": frozenset(
            {
                Operation.LIST_MODELS,
                Operation.DESCRIBE_MODEL,
                Operation.LIST_WORKFLOWS,
                Operation.DESCRIBE_WORKFLOW,
            }
        ),
        "models:write": frozenset(
            {
                Operation.REGISTER_MODEL,
                Operation.SCALE_MODEL,
                Operation.UNREGISTER_MODEL,
                Operation.SET_DEFAULT_VERSION,
                Operation.REGISTER_WORKFLOW,
                Operation.UNREGISTER_WORKFLOW,
            }
        ),
        "metrics": frozenset({Operation.SCRAPE_METRICS, Operation.READ_METRICS}),
        "tokens": frozenset(
            {
                Operation.REPLACE_KEY,
                Operation.LIST_KEYS,
                Operation.CREATE_KEY,
                Operation.CHANGE_KEY,
                Operation.REVOKE_KEY,
            }
        ),
        # There is no console yet.
        "console": frozenset(),
    }
)

_MODELS_OF = f"{INFERENCE}:"

# In characters.
_LONGEST_PATTERN = 256

#: How many scopes a key may have: each request is compared with all of them.
MOST_SCOPES: Final = 64


@lru_cache(1024)
def check_scope(text: str) -> str:
    """
    Return a scope unchanged.

    :raise ValueError: naming what is not a scope.
    """
    if text in SCOPES:
        return text
    pattern = text.removeprefix(_MODELS_OF)
    if pattern == text:
        raise ValueError(f"{text!r} is no scope: there are {', '.join(SCOPES)} and inference:<pattern of model names>")
    if not 0 < len(pattern) <= _LONGEST_PATTERN or not pattern.isprintable() or not pattern.isascii() or " " in pattern:
        raise ValueError(
            f"{text!r} is no scope: a pattern is 1 to {_LONGEST_PATTERN} printable ASCII characters without spaces"
        )
    return text


def _several(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(texts)


@frozen
class KeyScopes:
    """
    The scopes of one key.

    :ivar texts: The scopes as given, from one to `MOST_SCOPES`.
    :raise ValueError: for an unknown scope, for none, and for too many.
    """

    texts: tuple[str, ...] = field(converter=_several)
    _operations: frozenset[Operation] = field(init=False, repr=False, eq=False)
    _patterns: tuple[str, ...] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.texts:
            raise ValueError(f"a key needs a scope: one of {', '.join(SCOPES)} or inference:<pattern of model names>")
        if len(self.texts) > MOST_SCOPES:
            raise ValueError(f"a key has {len(self.texts)} scopes, more than {MOST_SCOPES}")
        for text in self.texts:
            check_scope(text)

    @_operations.default
    def _all_operations(self) -> frozenset[Operation]:
        return _union(tuple(text for text in self.texts if text in SCOPES))

    @_patterns.default
    def _all_patterns(self) -> tuple[str, ...]:
        return tuple(text.removeprefix(_MODELS_OF) for text in self.texts if text.startswith(_MODELS_OF))

    def allows(self, need: Need) -> bool:
        """Return whether a request with this need is allowed; of a listing, whether a part of it is."""
        operation = need.operation
        if operation is None:
            # An unknown path, or a plug-in's endpoint, which may do anything that its listener's key may.
            return need.scope is TokenKind.INFERENCE and Operation.PREDICT in self._operations
        if operation in self._operations:
            return True
        if not self._patterns or operation not in SCOPES[INFERENCE]:
            return False
        return need.model is None or self.sees(need.model)

    def sees(self, model: str) -> bool:
        """Return whether inference with a model, or a workflow, of this name is allowed, and its name may be listed."""
        if Operation.PREDICT in self._operations:
            return True
        return any(fnmatchcase(model, pattern) for pattern in self._patterns)


@lru_cache(64)
def _union(texts: tuple[str, ...]) -> frozenset[Operation]:
    return frozenset().union(*(SCOPES[text] for text in texts))


def unmatched(scopes: KeyScopes, models: Iterable[str]) -> list[str]:
    """Return the scopes of a key whose pattern matches none of these models, for a warning."""
    names = list(models)
    patterns = [text for text in scopes.texts if text.startswith(_MODELS_OF)]
    return [text for text in patterns if not any(fnmatchcase(name, text.removeprefix(_MODELS_OF)) for name in names)]
