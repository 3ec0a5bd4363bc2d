# SPDX-License-Identifier: Apache-2.0
"""
This module implements blocking work in a thread for which one may stop to wait.

A thread cannot be cancelled.  So cancelling ends the wait at once, and what the
thread still brings about is undone when it is done.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

_T = TypeVar("_T")

_log = Logger()


class DeferToThread(Protocol):
    """`twisted.internet.threads.deferToThread`, or in tests a direct call."""

    def __call__(self, work: Callable[..., _T], /, *args: object) -> Deferred[_T]:
        """Call ``work(*args)`` elsewhere and fire with what it returns or raises."""


def abandonable(work: Deferred[_T], undo: Callable[[_T], object]) -> Deferred[_T]:
    """
    Wait for ``work`` so that cancelling ends the wait alone.

    :param undo: Called with what ``work`` fires with if nobody waits for it any more.
    """
    abandoned = False

    def abandon(_wait: Deferred[_T]) -> None:
        nonlocal abandoned
        abandoned = True

    wait: Deferred[_T] = Deferred(abandon)

    def done(result: _T) -> object:
        if abandoned:
            return undo(result)
        wait.callback(result)
        return None

    def failed(failure: Failure) -> None:
        if abandoned:
            _log.debug("Abandoned work failed: {reason}", reason=failure.value)
        else:
            wait.errback(failure)

    work.addCallbacks(done, failed).addErrback(lambda f: _log.failure("Cannot undo abandoned work", f))
    return wait


def in_own_thread(reactor: IReactorFromThreads) -> DeferToThread:
    """
    Run work in a thread that is made for it.

    For what is rare and must not wait behind other work: the reactor's threads may all be unpacking archives.
    """

    def defer(work: Callable[..., _T], /, *args: object) -> Deferred[_T]:
        done: Deferred[_T] = Deferred()

        def run() -> None:
            try:
                result = work(*args)
            except Exception:
                reactor.callFromThread(done.errback, Failure())
            else:
                reactor.callFromThread(done.callback, result)

        Thread(target=run, name=getattr(work, "__name__", "work")).start()
        return done

    return defer


class Threads:
    """
    Runs what blocks in threads, and knows when the last has come back: none can be called off.

    What writes is waited for by way of `abandonable`, so that to cancel it ends that wait and not this one.
    """

    def __init__(self, defer_to_thread: DeferToThread) -> None:
        self._defer_to_thread = defer_to_thread
        self._under_way: set[Deferred[None]] = set()

    def __call__(self, work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
        """Call ``work(*args)`` in a thread; see `DeferToThread`."""
        # With no memory or no processes left, a thread pool raises.
        result: Deferred[Any] = maybeDeferred(self._defer_to_thread, work, *args)
        ended = end_of(result)
        self._under_way.add(ended)
        ended.addCallback(lambda _: self._under_way.discard(ended))
        return result

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await DeferredList(list(self._under_way))


def end_of(work: Deferred[Any]) -> Deferred[None]:
    """Fire when ``work``, which is somebody else's to wait for, is done in one way or another."""
    ended: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        ended.callback(None)
        return result

    work.addBoth(tell)
    return ended
