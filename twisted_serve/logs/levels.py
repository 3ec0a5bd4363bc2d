# SPDX-License-Identifier: Apache-2.0
"""
This module implements levels: which events are worth a line, by the name of their logger.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from twisted.logger import LogLevel

# Twisted's own notes say nothing to somebody who runs a model server.
_QUIET = {"twisted": "warn", "log_legacy": "warn"}

_RANKS = {level: rank for rank, level in enumerate(LogLevel.iterconstants())}

#: What a level is called, and how bad an event has to be to reach it.
LEVELS: Mapping[str, int] = {**{level.name: rank for level, rank in _RANKS.items()}, "off": len(_RANKS)}


@frozen
class Levels:
    """
    The levels of all loggers.

    :ivar usual: That of loggers which are not named.
    :ivar by_logger: Those of others, and of what is below them: ``a`` says it for ``a.b``, too.
    """

    usual: str = "info"
    by_logger: Mapping[str, str] = field(factory=dict)
    _known: dict[str, int] = field(factory=dict, init=False, eq=False, repr=False)

    def let_through(self, logger: str, level: LogLevel) -> bool:
        """Say whether an event is to be written."""
        least = self._known.get(logger)
        if least is None:
            least = LEVELS[self.level_of(logger)]
            # Loggers are ours and Twisted's, a few dozen.
            if len(self._known) < 1000:
                self._known[logger] = least
        return _RANKS[level] >= least

    def level_of(self, logger: str) -> str:
        """Return the level of a logger."""
        named = {**_QUIET, **self.by_logger}
        name = logger
        while name not in named and "." in name:
            name = name.rpartition(".")[0]
        return named.get(name, self.usual)
