# SPDX-License-Identifier: Apache-2.0
"""
Locate, fetch and unpack an archive of a store, and remove its files later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from attrs import define, field, frozen

from twisted_serve.archives.cache import Lease, UnpackedArchives
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.fetch import Fetcher
from twisted_serve.archives.locating import Locator, Remote, Source, StoreDirectory, StoreErrors, StoreFile, at_path
from twisted_serve.archives.urls import file_url, is_remote
from twisted_serve.eventloop.threads import DeferToThread

_T = TypeVar("_T")


@frozen
class OpenedArchive:
    """
    The files of an archive in use.

    :ivar url: The location as it was requested.
    :ivar location: The location that finds the same archive again with `Source.SNAPSHOT`.
    :ivar downloaded: The file in the store that was fetched for it, if any.
    :ivar lease: A lease of the unpacked directory; ``None`` for a directory that is served in place.
    :ivar links: Whether symbolic links in the directory may lead out of it.
    """

    url: str
    location: str
    directory: Path
    downloaded: Path | None = None
    lease: Lease | None = None
    links: bool = False


@frozen
class Intake:
    """
    How archives are fetched and unpacked.

    :ivar work_dir: A directory of this server, mode 0700, below which archives are unpacked.
    :ivar made: Called in a thread with each directory that an archive has been unpacked to.
    """

    work_dir: Path
    fetcher: Fetcher
    limits: UnpackLimits
    defer_to_thread: DeferToThread
    made: Callable[[Path], None] = lambda directory: None


@define(eq=False)
class Places:
    """
    The directory in which archives are found by name and into which they are fetched.

    :ivar path: The directory, or ``None`` if none is configured.
    :ivar unpacked: The name of the subdirectory for unpacked archives, created on first use.
    """

    path: Path | None
    unpacked: str
    words: StoreErrors
    intake: Intake
    _archives: UnpackedArchives = field(init=False)

    @_archives.default
    def _below_work_dir(self) -> UnpackedArchives:
        intake = self.intake
        return UnpackedArchives(intake.work_dir / self.unpacked, intake.limits, intake.defer_to_thread, intake.made)

    def locate(self, url: str, source: Source = Source.CLIENT) -> StoreFile | StoreDirectory | Remote:
        """
        Return what ``url`` refers to, as `Locator.locate`.  Blocking, because it accesses the file system.

        :raise ServeError: as `Locator.locate`, or if no store is configured.
        """
        if source is Source.APPLICATION:
            if (own := at_path(url)) is not None:
                return own
            if self.path is None and not is_remote(url):
                raise self.words.nothing_at(url)
        return Locator(self._require_path(), self.words, self.intake.fetcher.allowed).locate(url, source)

    async def open(self, url: str, read: Callable[[OpenedArchive], _T], source: Source = Source.CLIENT) -> _T:
        """
        Locate, fetch and unpack an archive, and read its contents.

        After any error, cancellation included, no files are left behind.

        :param read: Reads the contents; called in a thread.
        :raise ServeError: as `locate`, `Fetcher.fetch`, `unpack` and ``read`` do.
        """
        taken = await self._open_located(url, source)
        try:
            return await self.intake.defer_to_thread(read, taken)
        except BaseException:
            await self.give_back(taken)
            raise

    async def give_back(self, taken: OpenedArchive, keep_download: bool = False) -> None:
        """
        Delete the files that `open` created, unless they are shared; a directory that is served in place is kept.

        :param keep_download: Keep the fetched file, because another version may be created from it.
        """
        try:
            if taken.lease is not None:
                await self._archives.give_back(taken.lease)
        finally:
            if taken.downloaded is not None and not keep_download:
                await self.intake.defer_to_thread(_delete, taken.downloaded)

    async def _open_located(self, url: str, source: Source) -> OpenedArchive:
        located = await self.intake.defer_to_thread(self.locate, url, source)
        if isinstance(located, Remote):
            return await self._fetch(url, located)
        location = self._location(url, located, source)
        if isinstance(located, StoreDirectory):
            return OpenedArchive(url, location, located.path, links=located.links)
        lease = await self._archives.take(located.path)
        return OpenedArchive(url, location, lease.directory, lease=lease)

    async def _fetch(self, url: str, remote: Remote) -> OpenedArchive:
        target = self._require_path() / remote.basename
        await self.intake.fetcher.fetch(remote.url, target, remote.trusted)
        try:
            lease = await self._archives.take(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        # A snapshot restores from the copy in the store.
        return OpenedArchive(url, remote.basename, lease.directory, target, lease)

    def _location(self, url: str, located: StoreFile | StoreDirectory, source: Source) -> str:
        """Return the location to store in a snapshot; a client's location remains subject to ``allowed_urls``."""
        path = located.path
        if self.path is not None and path.is_relative_to(self.path):
            return str(path.relative_to(self.path))
        if source in (Source.OPERATOR, Source.APPLICATION):
            return str(path)
        return file_url(url) if source is Source.CLIENT and not is_remote(url) else url

    def _require_path(self) -> Path:
        if self.path is None:
            raise self.words.absent(self.words.unconfigured)
        return self.path


def _delete(file: Path) -> None:
    file.unlink(missing_ok=True)
