# SPDX-License-Identifier: Apache-2.0
"""
Deliver the events of a server to the application's observers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.interfaces.events import (
    Event,
    KeyExpired,
    KeyExpiring,
    KeyRotated,
    ModelFailed,
    ModelLoaded,
    ServerObserver,
    WorkerDied,
)

_log = Logger("twisted_serve.server")

_METHODS: dict[type[Event], Callable[[ServerObserver], Callable[[Any], object]]] = {
    ModelLoaded: lambda observer: observer.model_loaded,
    ModelFailed: lambda observer: observer.model_failed,
    WorkerDied: lambda observer: observer.worker_died,
    KeyExpiring: lambda observer: observer.key_expiring,
    KeyExpired: lambda observer: observer.key_expired,
    KeyRotated: lambda observer: observer.key_rotated,
}


class Notifier:
    """
    Tells observers of events in the next turn of the reactor.

    An observer that calls the server at once would find it in the middle of a change.
    """

    def __init__(self, observers: Sequence[ServerObserver], clock: IReactorTime) -> None:
        self._observers = tuple(observers)
        self._clock = clock
        self._waiting: list[Event] = []
        self._call: IDelayedCall | None = None
        self._closed = False

    def __call__(self, event: Event) -> None:
        """Deliver an event soon; not after `close`."""
        if self._closed or not self._observers:
            return
        self._waiting.append(event)
        if self._call is None:
            self._call = self._clock.callLater(0, self._deliver)

    def close(self) -> None:
        """Deliver the last events, and none after them."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
            self._deliver()

    def _deliver(self) -> None:
        self._call = None
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            for observer in self._observers:
                maybeDeferred(_METHODS[type(event)](observer), event).addErrback(_failed, observer, event)


def _failed(failure: Failure, observer: ServerObserver, event: Event) -> None:
    _log.failure(
        "The observer {observer} has failed at {event}",
        failure,
        observer=type(observer).__qualname__,
        event=type(event).__name__,
    )
