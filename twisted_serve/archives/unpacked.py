# SPDX-License-Identifier: Apache-2.0
"""
This module implements the sharing of what was unpacked: one directory for all models that are made of the same bytes.

A directory belongs to those who hold a lease of it, and goes with the last of them.
It is named by chance and known by content: what is being deleted is never what
somebody else has just been given.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.archives.removal import remove_tree
from twisted_serve.archives.threads import DeferToThread, abandonable
from twisted_serve.archives.tree import Reading, Saving, UnpackLimits
from twisted_serve.archives.unpack import is_zip, unpack
from twisted_serve.errors import InvalidModel

_CHUNK = 1 << 20


@frozen(eq=False)
class Lease:
    """
    Somebody's share of an unpacked archive.

    :ivar directory: Where it is; nobody is to write to it.
    """

    directory: Path


@frozen
class Content:
    """
    What an archive is.

    :ivar key: The same for the same bytes in the same form.
    :ivar identity: Which file it is in, and when that was changed.
    """

    key: str
    identity: tuple[int, ...]


@define(eq=False)
class _Unpacked:
    """
    A directory, or one that is being made.

    :ivar leases: How many there are.
    :ivar waiting: Who gets one when the directory is there.
    """

    key: str
    directory: Path
    ready: bool = False
    leases: int = 0
    waiting: list[Deferred[Lease]] = field(factory=list)


@define(eq=False)
class UnpackedArchives:
    """
    The archives that are unpacked at the moment.

    :ivar root: The directory, to be made when it is needed, below which they are.
    :ivar made: Called in a thread with each directory that has been filled.
    """

    root: Path
    limits: UnpackLimits
    defer_to_thread: DeferToThread
    made: Callable[[Path], None] = lambda directory: None
    _by_content: dict[str, _Unpacked] = field(factory=dict, init=False)
    _by_lease: dict[Lease, _Unpacked] = field(factory=dict, init=False)
    _log = Logger()

    async def take(self, archive: Path) -> Lease:
        """
        Unpack an archive, unless the same bytes are unpacked already.

        :raise ServeError: as `unpack`.
        """
        content = await abandonable(self.defer_to_thread(content_of, archive), lambda _: None)
        unpacked = self._by_content.get(content.key)
        if unpacked is not None and unpacked.ready:
            return self._lease(unpacked)
        lease: Deferred[Lease] = Deferred()
        if unpacked is not None:
            unpacked.waiting.append(lease)
        else:
            unpacked = _Unpacked(content.key, self.root / uuid4().hex, waiting=[lease])
            self._by_content[content.key] = unpacked
            self._unpack(unpacked, archive, content)
        return await lease

    async def give_back(self, lease: Lease) -> None:
        """End a lease; the last one takes the directory with it.  Doing it twice is harmless."""
        unpacked = self._by_lease.pop(lease, None)
        if unpacked is not None:
            unpacked.leases -= 1
            if not unpacked.leases:
                await self._forget(unpacked)

    def _unpack(self, unpacked: _Unpacked, archive: Path, content: Content) -> None:
        """Fill the directory.  Who does not wait any more does not stop that: others may wait, too."""
        work = self.defer_to_thread(_unpack_unchanged, archive, unpacked.directory, self.limits, content, self.made)
        work.addCallbacks(lambda _: self._there(unpacked), lambda failure: self._failed(unpacked, failure))
        work.addErrback(lambda failure: self._log.failure("Cannot remove what nobody waited for", failure))

    def _there(self, unpacked: _Unpacked) -> Deferred[None] | None:
        unpacked.ready = True
        # All leases before the first is used: it may be given back at once, and is not to be the last one then.
        waiting = [(each, self._lease(unpacked)) for each in unpacked.waiting if not each.called]
        unpacked.waiting.clear()
        for each, lease in waiting:
            each.callback(lease)
        return None if waiting else self._forget(unpacked)

    def _failed(self, unpacked: _Unpacked, failure: Failure) -> None:
        del self._by_content[unpacked.key]
        for each in unpacked.waiting:
            # Those that were cancelled have had their answer.
            if not each.called:
                each.errback(Failure(failure.value))

    def _lease(self, unpacked: _Unpacked) -> Lease:
        lease = Lease(unpacked.directory)
        self._by_lease[lease] = unpacked
        unpacked.leases += 1
        return lease

    def _forget(self, unpacked: _Unpacked) -> Deferred[None]:
        del self._by_content[unpacked.key]
        return self.defer_to_thread(remove_tree, unpacked.directory)


def content_of(archive: Path) -> Content:
    """
    Read a whole archive for what it is.

    :raise InternalError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with Reading(archive.name), open(archive, "rb", buffering=0) as file:
        identity = _identity(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    # The same bytes under another name can be another thing.
    return Content(f"{'zip' if is_zip(archive) else 'tar'}:{digest.hexdigest()}", identity)


def _identity(file: int | Path) -> tuple[int, ...]:
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _unpack_unchanged(
    archive: Path, directory: Path, limits: UnpackLimits, content: Content, made: Callable[[Path], None]
) -> None:
    """
    Unpack an archive that was looked at before.

    :raise InvalidModel: if it has changed since: the directory would be taken for something else.
    """
    with Saving(archive.name):
        directory.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        unpack(archive, directory, limits)
        if _identity_now(archive) != content.identity:
            raise InvalidModel(f"{archive.name} changed while it was read.")
        with Saving(archive.name):
            made(directory)
    except BaseException:
        remove_tree(directory)
        raise


def _identity_now(archive: Path) -> tuple[int, ...] | None:
    """Return the identity of an archive, or None if it is gone."""
    try:
        return _identity(archive)
    except OSError:
        return None
