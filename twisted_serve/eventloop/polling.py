# SPDX-License-Identifier: Apache-2.0
"""
Handle the events of a poll without a log context for each.

Twisted's epoll reactor makes a dictionary with the log prefix of a connection before each read and write, for
`twisted.python.log.msg` to find.  That takes as long as a fifth of what this server does for a request, and neither
this server nor its log uses the prefix.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger("twisted_serve.eventloop")


def without_log_context(reactor: IReactorTime) -> bool:
    """
    Make our reactor call connections directly.

    :return: Whether it does now; not if the reactor is not Twisted's epoll reactor itself.
    """
    try:
        from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 - there is none on macOS
    except ImportError:
        return False
    if type(reactor) is not EPollReactor:
        return False
    reactor.doIteration = MethodType(_iterate, reactor)  # type: ignore[method-assign]
    return True


def _iterate(reactor: Any, timeout: float | None) -> None:
    """Do as ``doPoll`` of the epoll reactor, without the log context."""
    try:
        events = reactor._poller.poll(-1 if timeout is None else timeout, len(reactor._selectables))
    except InterruptedError:
        return
    selectables, handle = reactor._selectables, reactor._doReadOrWrite
    for descriptor, event in events:
        # One that was closed by an event before it is there no more.
        selectable = selectables.get(descriptor)
        if selectable is not None:
            try:
                handle(selectable, descriptor, event)
            except Exception:
                # What a connection raises is handled before; this is the handling itself.
                _log.failure("An event could not be handled")
