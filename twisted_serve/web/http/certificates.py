# SPDX-License-Identifier: Apache-2.0
"""
This module implements the renewal of a certificate while connections are open: each new one gets the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import frozen
from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IOpenSSLContextFactory, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.interfaces import Now
from twisted_serve.web.http.tls import TlsFiles, context_factory

# How often the files are looked at, in seconds: whoever renews certificates does it days before they expire.
INTERVAL = 10.0


# Seconds in which the files have been read, or something is wrong with their file system.
LIMIT = 10.0


@frozen
class _Read:
    """What was read of the files: their state before, and a factory or what is wrong with them."""

    seen: list[tuple[Any, ...] | None]
    factory: IOpenSSLContextFactory | None = None
    error: ValueError | None = None


@implementer(IOpenSSLContextFactory)
class LiveCertificate:
    """
    The TLS side of all listeners of a server.

    The files are read in a thread, one reading at a time: a file system may hang.

    :param clock: Measures how long that takes.
    :param defer_to_thread: Where it is done.
    :raise ValueError: naming the file which cannot be used.
    """

    _log = Logger("twisted_serve.web")

    def __init__(self, files: TlsFiles, now: Now, clock: IReactorTime, defer_to_thread: DeferToThread) -> None:
        self._files = files
        self._now = now
        self._clock = clock
        self._defer_to_thread = defer_to_thread
        self._reading: Deferred[bool] | None = None
        self._asked = False
        self._seen = _state_of(files)
        self._factory = context_factory(files, now())

    def getContext(self) -> SSL.Context:
        """See `IOpenSSLContextFactory`; asked once for each connection."""
        return self._factory.getContext()

    def renew(self) -> Deferred[bool]:
        """
        Read the files again; what cannot be used is said in the log, and the old certificate stays.

        :return: Fires with whether new connections get what is in the files now.
        """
        if not any(self._files):
            # One that was made for this run is as good as another.
            return succeed(True)
        return self._begin(True)

    def look(self) -> Deferred[bool]:
        """Renew if a file has changed; a half-written one is tried again when the other half has come."""
        return self._begin(False) if any(self._files) else succeed(True)

    def _begin(self, asked: bool) -> Deferred[bool]:
        waiting: Deferred[bool] = Deferred()
        if self._reading is not None:
            # The files may have changed since; they are read again afterwards.
            self._asked = self._asked or asked
            self._reading.addBoth(_passing(waiting))
            return waiting
        seen = None if asked else self._seen
        reading = self._reading = self._defer_to_thread(_read, self._files, self._now(), seen).addCallback(self._take)
        late = self._clock.callLater(LIMIT, self._say_late)
        reading.addBoth(self._read_once, late)
        reading.addBoth(_passing(waiting))
        return waiting

    def _take(self, read: _Read) -> bool:
        self._seen = read.seen
        if read.error is not None:
            self._log.error("The certificate is not renewed: {error}", error=read.error)
            return False
        if read.factory is not None:
            self._factory = read.factory
            self._log.info("The certificate was read again: new connections use it")
        return True

    def _read_once(self, result: bool | Failure, late: IDelayedCall) -> bool | Deferred[bool]:
        self._reading = None
        if late.active():
            late.cancel()
        if isinstance(result, Failure):
            self._log.failure("The certificate is not renewed", result)
            result = False
        if self._asked:
            self._asked = False
            return self._begin(True)
        return result

    def _say_late(self) -> None:
        self._log.error(
            "The certificate is not renewed: its files are not read after {limit:.0f} s; the old one stays until then",
            limit=LIMIT,
        )


def _read(files: TlsFiles, now: datetime, seen: list[tuple[Any, ...] | None] | None) -> _Read:
    """Read the files, unless they are as they were ``seen``; this may block."""
    state = _state_of(files)
    if state == seen:
        return _Read(state)
    try:
        return _Read(state, context_factory(files, now))
    except ValueError as e:
        return _Read(state, error=e)


def _passing(waiting: Deferred[bool]) -> Callable[[bool], bool]:
    """Return a callback that passes a result on to one more Deferred."""

    def tell(result: bool) -> bool:
        waiting.callback(result)
        return result

    return tell


def _state_of(files: TlsFiles) -> list[tuple[Any, ...] | None]:
    return [_state(path.stat) for path in files]


def _state(stat: Callable[[], Any]) -> tuple[Any, ...] | None:
    """Describe a file so that another content has another description; links, as Kubernetes has them, are followed."""
    try:
        found = stat()
    except OSError:
        return None
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size


class CertificateWatch(Service):
    """A look at the files, again and again."""

    _log = Logger("twisted_serve.web")

    def __init__(self, certificate: LiveCertificate, clock: IReactorTime) -> None:
        # Not what it returns: a loop that waits would wait for a file system that hangs.
        self._loop = LoopingCall(lambda: certificate.look() and None)
        self._loop.clock = clock

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._loop.start(INTERVAL, now=False).addErrback(self._ended)

    def stopService(self) -> None:
        """Stop looking."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _ended(self, failure: Failure) -> None:
        self._log.failure("The certificate is not watched any more", failure)
