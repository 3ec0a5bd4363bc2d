# SPDX-License-Identifier: Apache-2.0
"""
Renew the certificate of a running server: each new connection uses the newest one.
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
from twisted_serve.listening.tls import TlsFiles, context_factory
from twisted_serve.system.small_files import state_of

_log = Logger("twisted_serve.listening")

# How often the files are checked, in seconds; certificates are renewed days before they expire.
INTERVAL = 10.0


# Seconds after which reading the files is reported as late: their file system may hang.
LIMIT = 10.0


@frozen
class _Read:
    """The outcome of reading the files: their state before, and a context factory or an error."""

    seen: list[tuple[Any, ...] | None]
    factory: IOpenSSLContextFactory | None = None
    error: ValueError | None = None


@implementer(IOpenSSLContextFactory)
class LiveCertificate:
    """
    The TLS context factory that all listeners of a server share.

    The files are read in a thread, one read at a time, because a file system may hang.

    :param clock: Times the reads.
    :param defer_to_thread: Runs the reads.
    :raise ValueError: naming the file that cannot be used.
    """

    def __init__(self, files: TlsFiles, now: Now, clock: IReactorTime, defer_to_thread: DeferToThread) -> None:
        self._files = files
        self._now = now
        self._clock = clock
        self._defer_to_thread = defer_to_thread
        self._reading: Deferred[bool] | None = None
        self._forced = False
        self._seen = _state_of(files)
        self._factory = context_factory(files, now())

    def getContext(self) -> SSL.Context:
        """Return the newest TLS context; called once per connection (`IOpenSSLContextFactory`)."""
        return self._factory.getContext()

    def renew(self) -> Deferred[bool]:
        """
        Read the files again; an error is logged, and the old certificate stays in use.

        :return: A Deferred that fires with whether new connections use the current files.
        """
        if not any(self._files):
            # A self-signed certificate need not be renewed.
            return succeed(True)
        return self._begin(True)

    def look(self) -> Deferred[bool]:
        """Renew if a file has changed; a half-written file is read again when it changes once more."""
        return self._begin(False) if any(self._files) else succeed(True)

    def _begin(self, forced: bool) -> Deferred[bool]:
        waiting: Deferred[bool] = Deferred()
        if self._reading is not None:
            # The files may have changed since the current read began, so they are read again after it.
            self._forced = self._forced or forced
            self._reading.addBoth(_also_fire(waiting))
            return waiting
        seen = None if forced else self._seen
        reading = self._reading = self._defer_to_thread(_read, self._files, self._now(), seen).addCallback(self._take)
        late = self._clock.callLater(LIMIT, self._log_late)
        reading.addBoth(self._read_once, late)
        reading.addBoth(_also_fire(waiting))
        return waiting

    def _take(self, read: _Read) -> bool:
        self._seen = read.seen
        if read.error is not None:
            _log.error("The certificate is not renewed: {error}", error=read.error)
            return False
        if read.factory is not None:
            self._factory = read.factory
            _log.info("The certificate was read again: new connections use it")
        return True

    def _read_once(self, result: bool | Failure, late: IDelayedCall) -> bool | Deferred[bool]:
        self._reading = None
        if late.active():
            late.cancel()
        if isinstance(result, Failure):
            _log.failure("The certificate is not renewed", result)
            result = False
        if self._forced:
            self._forced = False
            return self._begin(True)
        return result

    def _log_late(self) -> None:
        _log.error(
            "The certificate is not renewed: its files are not read after {limit:.0f} s; the old one stays until then",
            limit=LIMIT,
        )


def _read(files: TlsFiles, now: datetime, seen: list[tuple[Any, ...] | None] | None) -> _Read:
    """Read the files unless their state equals ``seen``; this may block."""
    state = _state_of(files)
    if state == seen:
        return _Read(state)
    try:
        return _Read(state, context_factory(files, now))
    except ValueError as e:
        return _Read(state, error=e)


def _also_fire(waiting: Deferred[bool]) -> Callable[[bool], bool]:
    """Return a callback that also passes its result to another Deferred."""

    def fire(result: bool) -> bool:
        waiting.callback(result)
        return result

    return fire


def _state_of(files: TlsFiles) -> list[tuple[int, ...] | None]:
    return [state_of(path) for path in files]


class CertificateWatch(Service):
    """A service that checks the files periodically."""

    def __init__(self, certificate: LiveCertificate, clock: IReactorTime) -> None:
        # Discard the Deferred: the loop would wait for it, and a file system may hang.
        self._loop = LoopingCall(lambda: certificate.look() and None)
        self._loop.clock = clock

    def startService(self) -> None:
        """Start the periodic checks."""
        super().startService()
        self._loop.start(INTERVAL, now=False).addErrback(self._ended)

    def stopService(self) -> None:
        """Stop the periodic checks."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _ended(self, failure: Failure) -> None:
        _log.failure("The certificate is not watched any more", failure)
