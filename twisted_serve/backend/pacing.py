# SPDX-License-Identifier: Apache-2.0
"""
Suspend a coroutine at its ``await`` while it is blocked: back-pressure for asynchronous handlers.

A handler that sends chunks faster than the client reads them is not resumed from
its ``await`` until the client has caught up; other tasks run meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeAlias

#: Returns a future to wait for before the next step, or ``None``.
Blocked: TypeAlias = Callable[[], "asyncio.Future[None] | None"]


class Paced:
    """
    An awaitable that runs ``work``.

    :param blocked: Called before each step after the first.
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
                # Cancellation, or closing, is passed on to the coroutine.
                step, argument = self._work.throw, e
