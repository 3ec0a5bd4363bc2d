# SPDX-License-Identifier: Apache-2.0
"""
Run blocking work in threads, with waits that can be cancelled.

A thread cannot be cancelled.  Cancelling therefore ends only the wait, and when the thread finishes, its result is
undone.
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

_log = Logger("twisted_serve.eventloop")


class DeferToThread(Protocol):
    """`twisted.internet.threads.deferToThread`, or in tests a direct call."""

    def __call__(self, work: Callable[..., _T], /, *args: object) -> Deferred[_T]:
        """Call ``work(*args)`` in a thread and return a Deferred that fires with its result or failure."""


def abandonable(work: Deferred[_T], undo: Callable[[_T], object]) -> Deferred[_T]:
    """
    Return a Deferred for the result of ``work``; cancelling it does not cancel ``work``.

    :param undo: Called with the result of ``work`` if the wait has been cancelled.
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
    Return a `DeferToThread` that starts a new thread for each call.

    For rare work that must not queue behind other work: the reactor's threads may all be unpacking archives.
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
    Run blocking work in threads, and track the work in progress until it ends, because threads cannot be cancelled.

    Callers that wait for writing work wrap it in `abandonable`: cancelling ends their wait but not this tracking.
    """

    def __init__(self, defer_to_thread: DeferToThread) -> None:
        self._defer_to_thread = defer_to_thread
        self._in_progress: set[Deferred[None]] = set()

    def __call__(self, work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
        """Call ``work(*args)`` in a thread, as `DeferToThread` does."""
        # A thread pool raises when there is no memory or process slot left for a thread.
        result: Deferred[Any] = maybeDeferred(self._defer_to_thread, work, *args)
        ended = end_of(result)
        self._in_progress.add(ended)
        ended.addCallback(lambda _: self._in_progress.discard(ended))
        return result

    async def idle(self) -> None:
        """Wait until no work is in progress."""
        while self._in_progress:
            await DeferredList(list(self._in_progress))


def end_of(work: Deferred[Any]) -> Deferred[None]:
    """Return a Deferred that fires when ``work`` succeeds or fails, without consuming its result."""
    ended: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        ended.callback(None)
        return result

    work.addBoth(tell)
    return ended
