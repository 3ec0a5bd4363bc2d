# SPDX-License-Identifier: Apache-2.0
"""
Share one unpacked directory among all models with the same archive content.

A directory exists while leases of it are held, and is removed with the last one.  Directories have random names and are
looked up by content hash, so a removal cannot race with a new lease.
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

from twisted_serve.archives.extraction import Reading, Saving, UnpackLimits
from twisted_serve.archives.removal import remove_tree
from twisted_serve.archives.unpack import is_zip, unpack
from twisted_serve.errors import InvalidModel
from twisted_serve.eventloop.threads import DeferToThread, abandonable

_log = Logger("twisted_serve.archives")

_CHUNK = 1 << 20


@frozen(eq=False)
class Lease:
    """
    A share of an unpacked archive.

    :ivar directory: The unpacked archive, which must not be written to.
    """

    directory: Path


@frozen
class Fingerprint:
    """
    The identity of an archive's content.

    :ivar key: Equal for the same bytes in the same format.
    :ivar identity: The device, inode, size and modification time of the file.
    """

    key: str
    identity: tuple[int, ...]


@define(eq=False)
class _CacheEntry:
    """
    An unpacked directory, or one that is being unpacked.

    :ivar leases: Number of leases held.
    :ivar waiting: Deferreds to fire with a lease when the directory is ready.
    """

    key: str
    directory: Path
    ready: bool = False
    leases: int = 0
    waiting: list[Deferred[Lease]] = field(factory=list)


@define(eq=False)
class UnpackedArchives:
    """
    The archives that are currently unpacked.

    :ivar root: The parent of all unpacked directories, created on first use.
    :ivar made: Called in a thread with each directory that has been unpacked.
    """

    root: Path
    limits: UnpackLimits
    defer_to_thread: DeferToThread
    made: Callable[[Path], None] = lambda directory: None
    _by_content: dict[str, _CacheEntry] = field(factory=dict, init=False)
    _by_lease: dict[Lease, _CacheEntry] = field(factory=dict, init=False)

    async def take(self, archive: Path) -> Lease:
        """
        Return a lease, unpacking the archive unless the same content is already unpacked.

        :raise ServeError: as `unpack`.
        """
        content = await abandonable(self.defer_to_thread(fingerprint, archive), lambda _: None)
        unpacked = self._by_content.get(content.key)
        if unpacked is not None and unpacked.ready:
            return self._lease(unpacked)
        lease: Deferred[Lease] = Deferred()
        if unpacked is not None:
            unpacked.waiting.append(lease)
        else:
            unpacked = _CacheEntry(content.key, self.root / uuid4().hex, waiting=[lease])
            self._by_content[content.key] = unpacked
            self._unpack(unpacked, archive, content)
        return await lease

    async def give_back(self, lease: Lease) -> None:
        """End a lease, and remove the directory with the last one.  Ending a lease twice is harmless."""
        unpacked = self._by_lease.pop(lease, None)
        if unpacked is not None:
            unpacked.leases -= 1
            if not unpacked.leases:
                await self._remove(unpacked)

    def _unpack(self, unpacked: _CacheEntry, archive: Path, content: Fingerprint) -> None:
        """Fill the directory.  A cancelled wait does not stop this, since others may be waiting, too."""
        work = self.defer_to_thread(_unpack_unchanged, archive, unpacked.directory, self.limits, content, self.made)
        work.addCallbacks(lambda _: self._on_unpacked(unpacked), lambda failure: self._on_failure(unpacked, failure))
        work.addErrback(lambda failure: _log.failure("Cannot remove an unneeded unpacked archive", failure))

    def _on_unpacked(self, unpacked: _CacheEntry) -> Deferred[None] | None:
        unpacked.ready = True
        # Create all leases before firing: a callback may return its lease immediately, and must not be the last holder
        # then.
        waiting = [(each, self._lease(unpacked)) for each in unpacked.waiting if not each.called]
        unpacked.waiting.clear()
        for each, lease in waiting:
            each.callback(lease)
        return None if waiting else self._remove(unpacked)

    def _on_failure(self, unpacked: _CacheEntry, failure: Failure) -> None:
        del self._by_content[unpacked.key]
        for each in unpacked.waiting:
            # Deferreds that were cancelled have already fired.
            if not each.called:
                each.errback(Failure(failure.value))

    def _lease(self, unpacked: _CacheEntry) -> Lease:
        lease = Lease(unpacked.directory)
        self._by_lease[lease] = unpacked
        unpacked.leases += 1
        return lease

    def _remove(self, unpacked: _CacheEntry) -> Deferred[None]:
        del self._by_content[unpacked.key]
        return self.defer_to_thread(remove_tree, unpacked.directory)


def fingerprint(archive: Path) -> Fingerprint:
    """
    Hash the content of an archive.

    :raise InternalError: if the archive cannot be read.
    """
    digest = hashlib.sha256()
    with Reading(archive.name), open(archive, "rb", buffering=0) as file:
        identity = _identity(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    # The format is part of the key, because the file's name decides how the same bytes are read.
    return Fingerprint(f"{'zip' if is_zip(archive) else 'tar'}:{digest.hexdigest()}", identity)


def _identity(file: int | Path) -> tuple[int, ...]:
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _unpack_unchanged(
    archive: Path, directory: Path, limits: UnpackLimits, content: Fingerprint, made: Callable[[Path], None]
) -> None:
    """
    Unpack an archive after its content has been hashed.

    :raise InvalidModel: if the file has changed since: the directory would be filed under the wrong hash.
    """
    with Saving(archive.name):
        directory.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        unpack(archive, directory, limits)
        if _current_identity(archive) != content.identity:
            raise InvalidModel(f"{archive.name} changed while it was read.")
        with Saving(archive.name):
            made(directory)
    except BaseException:
        remove_tree(directory)
        raise


def _current_identity(archive: Path) -> tuple[int, ...] | None:
    """Return the identity of an archive, or None if it is gone."""
    try:
        return _identity(archive)
    except OSError:
        return None
