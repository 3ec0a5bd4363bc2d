# SPDX-License-Identifier: Apache-2.0
"""
Download an allowed URL to a new file, completely or not at all.

Redirects are followed here rather than by the agent, because each target must be allowed, too (TorchServe checks only
the first URL: ``docs/torchserve/config_cli.md`` §8.3).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

from attrs import define, field, frozen
from attrs.validators import ge, gt, instance_of
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IResponse

from twisted_serve.archives.atomic import give_name, reopen
from twisted_serve.archives.extraction import Saving, write_all
from twisted_serve.archives.orphans import create_locked_file
from twisted_serve.archives.urls import AllowedUrls, decoded_path, url_problem
from twisted_serve.errors import DownloadFailed, InternalError, ServeError
from twisted_serve.eventloop.threads import DeferToThread, abandonable

_log = Logger("twisted_serve.archives")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_CHUNK = 1 << 20


@frozen
class FetchLimits:
    """
    Limits on the size and duration of a download.

    :ivar max_size: Bytes.
    :ivar timeout: Seconds, from the first request to the last byte, redirects included.
    :ivar head_timeout: Seconds, from a request until the response's headers are complete.
    :ivar stall_timeout: Seconds without a byte of the body.
    :ivar max_redirects: Maximum number of redirects.
    """

    max_size: int = field(default=64 << 30, validator=[instance_of(int), ge(1)])
    timeout: float = field(default=600.0, validator=gt(0))
    head_timeout: float = field(default=60.0, validator=gt(0))
    stall_timeout: float = field(default=60.0, validator=gt(0))
    max_redirects: int = field(default=5, validator=[instance_of(int), ge(0)])


def _timeout_error(what: str) -> Callable[[Any, float], Any]:
    """Return an ``onTimeoutCancel`` callback that replaces the failure of timed-out work with a description."""

    def problem(outcome: Any, seconds: float) -> Any:
        return Failure(_FetchError(f"{what} within {seconds:g} seconds")) if isinstance(outcome, Failure) else outcome

    return problem


class _FetchError(Exception):
    """The reason that a download failed, for the log only; the client learns only that it failed."""


@define(eq=False)
class Fetcher:
    """
    Fetches archives to files.

    :ivar agent: The HTTP client; it must not follow redirects itself.
    """

    agent: IAgent
    clock: IReactorTime
    allowed: AllowedUrls
    limits: FetchLimits
    defer_to_thread: DeferToThread
    _in_progress: set[Path] = field(factory=set, init=False)

    async def fetch(self, url: str, target: Path, trusted: bool = False) -> None:
        """
        Download ``url`` to the new file ``target``.

        :param trusted: Whether ``url`` comes from the operator; any other URL must be allowed.
        :raise InternalError: if ``target`` exists, is already being fetched, or cannot be written.
        :raise DownloadFailed: if the download fails: not allowed, missing, too large, or too slow.
        """
        if target in self._in_progress or os.path.lexists(target):
            raise _exists(target)
        partial = target.with_name(f".{uuid4().hex}.part")
        self._in_progress.add(target)
        try:
            work = Deferred.fromCoroutine(self._fetch(url, partial, target, trusted))
            await work.addTimeout(self.limits.timeout, self.clock, _timeout_error("the archive did not come"))
        except (ServeError, CancelledError):
            raise
        # The agent, its endpoints and TLS have no common base class for their errors.
        except Exception as e:
            # Without the query, which is the password of a pre-signed URL.
            _log.warn("Cannot fetch {url}: {reason}", url=urlsplit(url)._replace(query="").geturl(), reason=str(e))
            raise DownloadFailed(f"Failed to download archive from: {url}") from e
        finally:
            self._in_progress.discard(target)
            partial.unlink(missing_ok=True)

    async def _fetch(self, url: str, partial: Path, target: Path, trusted: bool) -> None:
        if not trusted and not self.allowed.permit(url):
            raise _FetchError("it is not allowed")
        source = decoded_path(url)
        response = None if source is not None else await self._get(url, trusted)
        with Saving(target.name):
            claim = create_locked_file(partial)
        try:
            if response is not None:
                with Saving(target.name):
                    file = reopen(partial)
                with file:
                    await _save_body(response, file, target.name, self.limits, self.clock)
            else:
                copying = self.defer_to_thread(_copy_permitted, source, self.allowed, partial, self.limits.max_size)
                await abandonable(copying, lambda _: None)
            # The partial file is removed in any case; the published file only if the wait was cancelled.
            publishing = self.defer_to_thread(_publish, partial, target)
            await abandonable(publishing, lambda _: target.unlink(missing_ok=True))
        finally:
            os.close(claim)

    async def _get(self, url: str, trusted: bool) -> IResponse:
        """Request ``url`` and follow redirects until a response contains an archive."""
        for _ in range(self.limits.max_redirects + 1):
            request = self.agent.request(b"GET", url.encode("ascii"), Headers({b"User-Agent": [b"twisted-serve"]}))
            slow = _timeout_error("the head of the answer did not come")
            response = await request.addTimeout(self.limits.head_timeout, self.clock, slow)
            if response.code == 200:
                return response
            response.deliverBody(_BodyDiscarder())
            if response.code not in _REDIRECTS:
                raise _FetchError(f"the answer was {response.code}")
            url = self._redirected(url, response.headers.getRawHeaders(b"location", []), trusted)
        raise _FetchError(f"more than {self.limits.max_redirects} redirects")

    def _redirected(self, url: str, locations: list[bytes], trusted: bool) -> str:
        if len(locations) != 1:
            raise _FetchError("a redirect to nowhere")
        target = urljoin(url, locations[0].decode("latin-1"))
        # The server of an allowed URL must still not redirect to local files.
        if url_problem(target) is not None or decoded_path(target) is not None:
            raise _FetchError(f"a redirect to {target!r}, which is not allowed")
        # A URL named by the operator implies trust in its own server only.
        if not (trusted and _origin(target) == _origin(url)) and not self.allowed.permit(target):
            raise _FetchError(f"a redirect to {target!r}, which is not allowed")
        return target


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


class _BodyDiscarder(Protocol):
    """Discards the body of a response by aborting its connection."""

    def connectionMade(self) -> None:
        _abort(self)


@define(eq=False)
class _BodyWriter(Protocol):
    """
    Writes a body to a file as it arrives.

    Writes happen in the reactor's thread: a write into the page cache is cheaper than a round trip to another thread
    for each chunk.  Nothing is flushed to disk here.
    """

    file: FileIO
    title: str
    limits: FetchLimits
    clock: IReactorTime
    done: Deferred[None] = field(init=False)
    _size: int = field(default=0, init=False)
    _stalled: IDelayedCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(lambda _: _abort(self))
        self._stalled = self.clock.callLater(self.limits.stall_timeout, self._stall)
        self.done.addBoth(self._stop_timer)

    def _stop_timer(self, result: Any) -> Any:
        if self._stalled.active():
            self._stalled.cancel()
        return result

    def _stall(self) -> None:
        self.done.errback(_FetchError(f"no byte came for {self.limits.stall_timeout:g} seconds"))
        _abort(self)

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._stalled.reset(self.limits.stall_timeout)
        self._size += len(data)
        try:
            if self._size > self.limits.max_size:
                raise _FetchError(f"larger than {self.limits.max_size} bytes")
            with Saving(self.title):
                write_all(self.file, data)
        except (_FetchError, InternalError):
            self.done.errback(Failure())
            _abort(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # A body that ends with its connection may be truncated; the archive's checksums detect that.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(reason)


def _abort(protocol: Protocol) -> None:
    transport: Any = protocol.transport
    # Only newer versions of Twisted let the agent's transport proxy abort its connection.
    getattr(transport, "abortConnection", transport.loseConnection)()


def _save_body(
    response: IResponse, file: FileIO, title: str, limits: FetchLimits, clock: IReactorTime
) -> Deferred[None]:
    if response.length is not UNKNOWN_LENGTH and response.length > limits.max_size:
        response.deliverBody(_BodyDiscarder())
        raise _FetchError(f"larger than {limits.max_size} bytes")
    saving = _BodyWriter(file, title, limits, clock)
    response.deliverBody(saving)
    return saving.done


def _copy_permitted(text: str, allowed: AllowedUrls, partial: Path, max_size: int) -> None:
    source = allowed.resolve(text)
    if source is None:
        raise _FetchError("a link in its path leads to what is not allowed")
    _copy(source, partial, max_size)


def _open_without_links(path: Path) -> int:
    """
    Open a file for reading through a path without links.

    :raise OSError: if a component of the path has meanwhile become a link.
    """
    links_not = os.O_NOFOLLOW | os.O_CLOEXEC
    above = os.open(path.anchor, os.O_RDONLY | links_not)
    try:
        for part in path.parts[1:-1]:
            below = os.open(part, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | links_not, dir_fd=above)
            os.close(above)
            above = below
        # Non-blocking, so that a FIFO or device cannot block the thread.
        return os.open(path.name, os.O_RDONLY | os.O_NONBLOCK | links_not, dir_fd=above)
    finally:
        os.close(above)


def _copy(source: Path, partial: Path, max_size: int) -> None:
    """Copy a local regular file."""
    with open(_open_without_links(source), "rb") as original:
        if not stat.S_ISREG(os.fstat(original.fileno()).st_mode):
            raise _FetchError("not a regular file")
        with Saving(source.name):
            copy = reopen(partial)
        with copy:
            size = 0
            while chunk := original.read(_CHUNK):
                size += len(chunk)
                if size > max_size:
                    raise _FetchError(f"larger than {max_size} bytes")
                with Saving(source.name):
                    write_all(copy, chunk)


def _publish(partial: Path, target: Path) -> None:
    """Give a complete file its final name, without replacing a file."""
    with Saving(target.name):
        try:
            give_name(partial, target)
        except FileExistsError:
            raise _exists(target) from None


def _exists(target: Path) -> InternalError:
    return InternalError(f"Model file already exists {target.name}")
