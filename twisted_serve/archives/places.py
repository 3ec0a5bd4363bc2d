# SPDX-License-Identifier: Apache-2.0
"""
Turn the location of an archive into a directory: look it up, fetch it, unpack it, and remove what was made for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from attrs import define, field, frozen

from twisted_serve.archives.fetch import Fetcher
from twisted_serve.archives.locating import Locator, Remote, Source, StoreDirectory, StoreFile, Words
from twisted_serve.archives.threads import DeferToThread
from twisted_serve.archives.tree import UnpackLimits
from twisted_serve.archives.unpacked import Lease, UnpackedArchives
from twisted_serve.archives.urls import file_url, is_remote

_T = TypeVar("_T")


@frozen
class Taken:
    """
    An archive's files, for as long as somebody needs them.

    :ivar url: As it was given.
    :ivar location: What names the same archive when it is looked up as `Source.SNAPSHOT`.
    :ivar downloaded: The file in the store that was fetched for it, if one was.
    :ivar lease: A share of the directory that was made for it; ``None`` for one that is served in place.
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
    How archives come in: what fetches them, and where and within which limits they are unpacked.

    :ivar work_dir: A directory of our own, mode 0700, below which archives are unpacked.
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
    The directory in which archives are found by name, and into which they are fetched.

    :ivar path: The directory, or ``None`` while none is configured.
    :ivar unpacked: The name of the directory, to be made when it is needed, in which archives are unpacked.
    """

    path: Path | None
    unpacked: str
    words: Words
    intake: Intake
    _archives: UnpackedArchives = field(init=False)

    @_archives.default
    def _below_work_dir(self) -> UnpackedArchives:
        intake = self.intake
        return UnpackedArchives(intake.work_dir / self.unpacked, intake.limits, intake.defer_to_thread, intake.made)

    def locate(self, url: str, source: Source = Source.CLIENT) -> StoreFile | StoreDirectory | Remote:
        """
        Decide what ``url`` means: `Locator.locate`.  It looks at the file system, and so may block.

        :raise ServeError: as `Locator.locate`, or if there is no store.
        """
        return Locator(self._configured(), self.words, self.intake.fetcher.allowed).locate(url, source)

    async def open(self, url: str, read: Callable[[Taken], _T], source: Source = Source.CLIENT) -> _T:
        """
        Find, fetch and unpack an archive, and read what it says of itself.

        Whatever goes wrong, cancelling included, nothing stays behind.

        :param read: Called in a thread.
        :raise ServeError: as `locate`, `Fetcher.fetch`, `unpack` and ``read`` do.
        """
        taken = await self._take(url, source)
        try:
            return await self.intake.defer_to_thread(read, taken)
        except BaseException:
            await self.give_back(taken)
            raise

    async def give_back(self, taken: Taken, keep_download: bool = False) -> None:
        """
        Delete the files that `take` made, unless others have them too; what is served in place is left as it is.

        :param keep_download: Leave the fetched file: another version may be made of it.
        """
        try:
            if taken.lease is not None:
                await self._archives.give_back(taken.lease)
        finally:
            if taken.downloaded is not None and not keep_download:
                await self.intake.defer_to_thread(_delete, taken.downloaded)

    async def _take(self, url: str, source: Source) -> Taken:
        located = await self.intake.defer_to_thread(self.locate, url, source)
        if isinstance(located, Remote):
            return await self._fetch(url, located)
        location = self._location(url, located, source)
        if isinstance(located, StoreDirectory):
            return Taken(url, location, located.path, links=located.links)
        lease = await self._archives.take(located.path)
        return Taken(url, location, lease.directory, lease=lease)

    async def _fetch(self, url: str, remote: Remote) -> Taken:
        target = self._configured() / remote.basename
        await self.intake.fetcher.fetch(remote.url, target, remote.trusted)
        try:
            lease = await self._archives.take(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        # The copy in the store is what a snapshot restores.
        return Taken(url, remote.basename, lease.directory, target, lease)

    def _location(self, url: str, located: StoreFile | StoreDirectory, source: Source) -> str:
        """Name an archive for a snapshot; what a client has named stays subject to ``allowed_urls``."""
        path, store = located.path, self._configured()
        if path.is_relative_to(store):
            return str(path.relative_to(store))
        if source is Source.OPERATOR:
            return str(path)
        return file_url(url) if source is Source.CLIENT and not is_remote(url) else url

    def _configured(self) -> Path:
        if self.path is None:
            raise self.words.absent(self.words.unconfigured)
        return self.path


def _delete(file: Path) -> None:
    file.unlink(missing_ok=True)
