# SPDX-License-Identifier: Apache-2.0
"""Threads in memory, for what takes a `twisted_serve.eventloop.threads.DeferToThread`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred


class Threads:
    """
    Threads that work when they are told to; unless they are holding, at once.

    :ivar held: The work to be done, and what fires with its result.
    """

    def __init__(self, holding: bool = False) -> None:
        self.holding = holding
        self.held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
        if not self.holding:
            return maybeDeferred(work, *args)
        done: Deferred[Any] = Deferred()
        self.held.append((lambda: work(*args), done))
        return done

    def work(self, steps: int = 1000) -> None:
        """Do what is held, and what comes of it, at most so many steps."""
        while self.held and steps:
            steps -= 1
            work, done = self.held.pop(0)
            maybeDeferred(work).chainDeferred(done)

    def work_once(self) -> None:
        """Do what is held, and not what comes of it."""
        self.work(len(self.held))
