# SPDX-License-Identifier: Apache-2.0
"""
Start services in order, and stop them one after the other in the reverse order.

Twisted's `MultiService` stops all its children at the same time.  The children of a server depend on each other: no
worker may end while a request is in flight, and no file may be removed while a thread writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, runtime_checkable

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger("twisted_serve.server")


@runtime_checkable
class Hurried(Protocol):
    """A service with a stop that can be shortened."""

    def hurry(self) -> None:
        """Finish the stop as soon as possible; has no effect on a service that is not being stopped."""


class ServiceTree(MultiService):
    """
    Children that are started in order, and stopped in the reverse order.

    A child is an `IService` with a name.  `privilegedStartService` acquires what can be refused (ports, files), and
    `startService` starts timers and work.  Each child's stop is awaited before the next child's stop begins.
    """

    def privilegedStartService(self) -> None:
        """
        Prepare all children in order; if one raises, stop those before it, and raise.

        The stops are not awaited: a caller without a running reactor sees that nothing is left.
        """
        prepared: list[IService] = []
        try:
            for service in self:
                service.privilegedStartService()
                prepared.append(service)
        except BaseException:
            _stop_now(reversed(prepared))
            raise

    def startService(self) -> None:
        """Start all children in order; if one raises, stop all as `privilegedStartService` does, and raise."""
        try:
            super().startService()
        except BaseException:
            Service.stopService(self)
            _stop_now(reversed(list(self)))
            raise

    def stopService(self) -> Deferred[None]:
        """
        Stop the children one after the other, the last one first.

        A child that fails does not keep the others from being stopped.  Cancelling ends the waiting: the children that
        are left are stopped without being awaited.

        :return: Fires when all have been stopped; with the first failure if there is one.  The others are logged.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop_in_order())

    def hurry(self) -> None:
        """Shorten the stop of each child that supports it, in the order of the stops."""
        for service in reversed(list(self)):
            if isinstance(service, Hurried):
                service.hurry()

    async def _stop_in_order(self) -> None:
        first: BaseException | None = None
        left = list(self)
        while left:
            service = left.pop()
            try:
                await maybeDeferred(service.stopService)
            except CancelledError as e:
                _stop_now(reversed(left))
                raise first or e from None
            except Exception as e:
                if first is None:
                    first = e
                else:
                    _log_failure(Failure(), service)
        if first is not None:
            raise first


def _stop_now(services: Iterable[IService]) -> None:
    """Stop services without awaiting any of them."""
    for service in services:
        maybeDeferred(service.stopService).addErrback(_log_failure, service)


def _log_failure(failure: Failure, service: IService) -> None:
    _log.failure("Cannot stop {name}", failure, name=service.name)


class Closing(Service):
    """
    A child that does nothing but close a resource when it is stopped; not if it was never started.

    :param close: Closes the resource; its Deferred or coroutine is awaited.
    """

    def __init__(self, name: str, close: Callable[[], Deferred[Any] | Coroutine[Any, Any, Any] | None]) -> None:
        self.setName(name)
        self._close = close

    def stopService(self) -> Deferred[Any]:
        """Close the resource if the service was started."""
        started = self.running
        super().stopService()
        return maybeDeferred(self._close if started else lambda: None)


class Deadline:
    """
    The time that the children of one server have together to finish the requests in flight.

    :param seconds: How long it lasts once it has begun.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._end: float | None = None

    def begin(self) -> None:
        """Set the end; later calls have no effect."""
        if self._end is None:
            self._end = self._clock.seconds() + self._seconds

    def left(self) -> float:
        """Return the seconds that are left, zero after the end."""
        return self._seconds if self._end is None else max(0.0, self._end - self._clock.seconds())
