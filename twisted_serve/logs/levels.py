# SPDX-License-Identifier: Apache-2.0
"""
Drop events below the level of their logger.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from twisted.logger import LogLevel

# The informational lines of Twisted itself do not help the operator of a model server.
_QUIET = {"twisted": "warn", "log_legacy": "warn"}

_RANKS = {level: rank for rank, level in enumerate(LogLevel.iterconstants())}

#: Names of levels, with the least rank of an event that is logged.
LEVELS: Mapping[str, int] = {**{level.name: rank for level, rank in _RANKS.items()}, "off": len(_RANKS)}


@frozen
class Levels:
    """
    The levels of all loggers.

    :ivar usual: The level of loggers that are not named.
    :ivar by_logger: The levels of named loggers, which apply to their descendants: ``a`` includes ``a.b``.
    """

    usual: str = "info"
    by_logger: Mapping[str, str] = field(factory=dict)
    _cache: dict[str, int] = field(factory=dict, init=False, eq=False, repr=False)

    def let_through(self, logger: str, level: LogLevel) -> bool:
        """Return whether an event is to be logged."""
        least = self._cache.get(logger)
        if least is None:
            least = LEVELS[self.level_of(logger)]
            # A few dozen loggers are expected, ours and Twisted's; the bound keeps the cache small with any others.
            if len(self._cache) < 1000:
                self._cache[logger] = least
        return _RANKS[level] >= least

    def level_of(self, logger: str) -> str:
        """Return the level of a logger."""
        named = {**_QUIET, **self.by_logger}
        name = logger
        while name not in named and "." in name:
            name = name.rpartition(".")[0]
        return named.get(name, self.usual)
