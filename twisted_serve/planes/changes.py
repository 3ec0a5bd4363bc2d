# SPDX-License-Identifier: Apache-2.0
"""
Complete changes of the server whose clients have left, the same for every transport.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_T = TypeVar("_T")

_log = Logger("twisted_serve.planes")


def shielded(change: Coroutine[Deferred[Any], Any, _T]) -> Deferred[_T]:
    """
    Return a Deferred for the outcome of a change; cancelling it ends the wait, not the change.

    A failure that is not awaited any longer is logged.
    """
    outcome: Deferred[_T] = Deferred()

    def settle(result: _T | Failure) -> None:
        if not outcome.called:
            outcome.callback(result)
        elif isinstance(result, Failure):
            _log.warn("A change whose client had left failed: {error}", error=result.value)

    Deferred.fromCoroutine(change).addBoth(settle)
    return outcome
