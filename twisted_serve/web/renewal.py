# SPDX-License-Identifier: Apache-2.0
"""
This module implements the renewal of a certificate while connections are open: each new one gets the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.interfaces import IOpenSSLContextFactory, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.interfaces import Now
from twisted_serve.web.tls import TlsFiles, context_factory

# How often the files are looked at, in seconds: whoever renews certificates does it days before they expire.
INTERVAL = 10.0


@implementer(IOpenSSLContextFactory)
class LiveCertificate:
    """
    The TLS side of all listeners of a server.

    :raise ValueError: naming the file which cannot be used.
    """

    _log = Logger()

    def __init__(self, files: TlsFiles, now: Now) -> None:
        self._files = files
        self._now = now
        self._seen = self._state_of_files()
        self._factory = context_factory(files, now())

    def getContext(self) -> SSL.Context:
        """See `IOpenSSLContextFactory`; asked once for each connection."""
        return self._factory.getContext()

    def renew(self) -> bool:
        """
        Read the files again; what cannot be used is said in the log, and the old certificate stays.

        :return: Whether new connections get what is in the files now.
        """
        self._seen = self._state_of_files()
        if not any(self._files):
            # One that was made for this run is as good as another.
            return True
        try:
            self._factory = context_factory(self._files, self._now())
        except ValueError as e:
            self._log.error("The certificate is not renewed: {error}", error=e)
            return False
        self._log.info("The certificate was read again: new connections use it")
        return True

    def look(self) -> None:
        """Renew if a file has changed; a half-written one is tried again when the other half has come."""
        if self._state_of_files() != self._seen:
            self.renew()

    def _state_of_files(self) -> list[tuple[Any, ...] | None]:
        return [_state(path.stat) for path in self._files]


def _state(stat: Callable[[], Any]) -> tuple[Any, ...] | None:
    """Describe a file so that another content has another description; links, as Kubernetes has them, are followed."""
    try:
        found = stat()
    except OSError:
        return None
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size


class CertificateWatch(Service):
    """A look at the files, again and again."""

    _log = Logger()

    def __init__(self, certificate: LiveCertificate, clock: IReactorTime) -> None:
        self._loop = LoopingCall(certificate.look)
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
