# SPDX-License-Identifier: Apache-2.0
"""
Log requests in the access log: as events, or past them in a process whose log is the server's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time

from twisted.logger import Logger, LogLevel

from twisted_serve.logs.access_lines import Request, fields_of, lines_of
from twisted_serve.logs.events import ACCESS_LOG, emit


def log_access(
    log: Logger,
    *,
    peer: tuple[str, int] | None,
    method: bytes,
    target: bytes,
    version: bytes,
    status: int,
    elapsed: float,
    request_id: str | None = None,
    named: bool = False,
    principal: str | None = None,
) -> None:
    """
    Log one request as an event of its own.

    :param peer: Host and port; ``None`` for a client on a UNIX socket.
    :param method: As the client sent it, like ``target`` and ``version``.
    :param elapsed: Seconds.
    :param request_id: The ``X-Request-Id`` of the response: a field in JSON, and appended to the line of a response
        with a status of 400 or above.
    :param named: Whether the client has chosen the id: then it is appended to the line in any case.
    :param principal: The name that an application's authorizer has given the sender: the end of the line, and a field.
    """
    _emit(log, (time(), _as_it_is, peer, method, target, version, status, elapsed, request_id, named, principal))


def _as_it_is(target: bytes) -> bytes:
    return target


def _emit(log: Logger, request: Request) -> None:
    [line] = lines_of([request])
    emit(log, LogLevel.info, line, request[0], logger_name=ACCESS_LOG, fields=fields_of(request))


class _Shortcut:
    """
    The way of requests into the log of this process, past Twisted's publisher.

    :ivar take: Takes a request; ``None`` where the log is another program's, whose observers get an event each.
    """

    take: Callable[[Request], object] | None = None


_shortcut = _Shortcut()


@contextmanager
def shortcut(take: Callable[[Request], object]) -> Iterator[None]:
    """Give the requests of this process to ``take`` and not to Twisted's publisher, while the context is open."""
    before, _shortcut.take = _shortcut.take, take
    try:
        yield
    finally:
        _shortcut.take = before


class AccessLog:
    """
    The access log of one listener.

    :param log: The logger of the events.
    :param redact: Replaces the keys in a request target.
    :param now: Returns the seconds since the epoch.
    """

    __slots__ = ("_log", "_now", "_redact")

    def __init__(self, log: Logger, redact: Callable[[bytes], bytes], now: Callable[[], float] = time) -> None:
        self._log = log
        self._redact = redact
        self._now = now

    def add(
        self,
        peer: tuple[str, int] | None,
        method: bytes,
        target: bytes,
        version: bytes,
        status: int,
        elapsed: float,
        request_id: str | None,
        named: bool,
        principal: str | None,
    ) -> None:
        """
        Log one request, see `log_access`.

        :param target: As the client sent it: the keys in it are redacted when the line is rendered.
        """
        request = (
            self._now(),
            self._redact,
            peer,
            method,
            target,
            version,
            status,
            elapsed,
            request_id,
            named,
            principal,
        )
        take = _shortcut.take
        if take is None:
            _emit(self._log, request)
        else:
            take(request)
