# SPDX-License-Identifier: Apache-2.0
"""
This module implements a coroutine that takes its next step only when it may.

A handler that sends chunks faster than their client reads them is not resumed from
its ``await`` until the client has caught up; others on the event loop go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeAlias

#: What has to happen before the next step; ``None`` for nothing.
Blocked: TypeAlias = Callable[[], "asyncio.Future[None] | None"]


class Paced:
    """
    Await it to run ``work``.

    :param blocked: Asked before each step after the first.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], blocked: Blocked) -> None:
        self._work = work
        self._blocked = blocked

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = self._work.send
        argument: Any = None
        while True:
            try:
                awaited = step(argument)
            except StopIteration as e:
                return e.value
            try:
                argument = yield awaited
                while (obstacle := self._blocked()) is not None:
                    yield from obstacle
                step = self._work.send
            except BaseException as e:
                # It is the coroutine that is cancelled, or closed.
                step, argument = self._work.throw, e
