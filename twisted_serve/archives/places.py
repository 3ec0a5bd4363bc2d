# SPDX-License-Identifier: Apache-2.0
"""
This module implements a store of archives: what a client's ``url`` may mean, and how what it names becomes a directory.

``spec/config_cli.md`` §8.1 and ``spec/rest_api.md`` §8.2 have the order of the checks
and the texts; unlike the predecessor, a name means a file of the store and no other.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from attrs import define, field, frozen

from twisted_serve.archives.confinement import climbs, inside, nameable
from twisted_serve.archives.fetch import Fetcher
from twisted_serve.archives.threads import DeferToThread
from twisted_serve.archives.tree import UnpackLimits
from twisted_serve.archives.unpacked import Lease, UnpackedArchives
from twisted_serve.archives.urls import basename, has_scheme, is_remote, local_path
from twisted_serve.errors import DownloadFailed, ServeError

_T = TypeVar("_T")


@frozen
class StoreFile:
    """An archive that is to be unpacked."""

    path: Path


@frozen
class StoreDirectory:
    """An archive that is a directory already, and is served where it is."""

    path: Path


@frozen
class Remote:
    """An archive that is to be fetched into the store under ``basename``."""

    url: str
    basename: str


@frozen
class Words:
    """
    How a store says that it has not what it is asked for.

    :ivar absent: The error.
    :ivar not_found: Its text, to which the URL is added.
    :ivar unconfigured: Its text for a store that there is not.
    """

    absent: type[ServeError]
    not_found: str
    unconfigured: str


@frozen
class Taken:
    """
    An archive's files, for as long as somebody needs them.

    :ivar url: As the client gave it.
    :ivar downloaded: The file in the store that was fetched for it, if one was.
    :ivar lease: A share of the directory that was made for it; ``None`` for one that is served in place.
    """

    url: str
    directory: Path
    downloaded: Path | None = None
    lease: Lease | None = None


@frozen
class Intake:
    """
    How archives come in: what fetches them, and where and within which limits they are unpacked.

    :ivar work_dir: A directory of our own, mode 0700, below which archives are unpacked.
    """

    work_dir: Path
    fetcher: Fetcher
    limits: UnpackLimits
    defer_to_thread: DeferToThread


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
        return UnpackedArchives(intake.work_dir / self.unpacked, intake.limits, intake.defer_to_thread)

    def locate(self, url: str) -> StoreFile | StoreDirectory | Remote:
        """
        Decide what ``url`` means.  It looks at the file system, and so may block.

        :raise ServeError: as :ivar:`words` has it, if it means nothing, or nothing that may be served.
        :raise DownloadFailed: if it is an allowed URL whose path ends in no usable file name.
        """
        store = self._configured()
        if not url:
            raise self.words.absent("empty url")
        if climbs(url):
            raise self.words.absent(f"Relative path is not allowed in url: {url}")
        # A name without a scheme is the store's, whatever the expressions of allowed_urls match.
        if is_remote(url):
            return self._remote(url)
        path = store / url
        if not has_scheme(url) and nameable(url) and inside(store, path):
            # Unlike Path.is_file, these take a name that is too long for one of nothing.
            if os.path.isfile(path):
                return StoreFile(path)
            if os.path.isdir(path):
                return StoreDirectory(path)
        raise self.not_found(url)

    def not_found(self, url: str) -> ServeError:
        """Make the error for a URL that means nothing."""
        return self.words.absent(f"{self.words.not_found}: {url}")

    async def open(self, url: str, read: Callable[[Taken], _T]) -> _T:
        """
        Find, fetch and unpack an archive, and read what it says of itself.

        Whatever goes wrong, cancelling included, nothing stays behind.

        :param read: Called in a thread.
        :raise ServeError: as `locate`, `Fetcher.fetch`, `unpack` and ``read`` do.
        """
        taken = await self._take(url)
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
        if taken.lease is not None:
            await self._archives.give_back(taken.lease)
        if taken.downloaded is not None and not keep_download:
            await self.intake.defer_to_thread(_delete, taken.downloaded)

    async def _take(self, url: str) -> Taken:
        located = await self.intake.defer_to_thread(self.locate, url)
        if isinstance(located, StoreDirectory):
            return Taken(url, located.path)
        if isinstance(located, StoreFile):
            lease = await self._archives.take(located.path)
            return Taken(url, lease.directory, lease=lease)
        target = self._configured() / located.basename
        await self.intake.fetcher.fetch(located.url, target)
        try:
            lease = await self._archives.take(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return Taken(url, lease.directory, target, lease)

    def _configured(self) -> Path:
        if self.path is None:
            raise self.words.absent(self.words.unconfigured)
        return self.path

    def _remote(self, url: str) -> StoreDirectory | Remote:
        if not self.intake.fetcher.allowed.permit(url):
            raise self.words.absent(f"Given URL {url} does not match any allowed URL(s)")
        path = local_path(url)
        if path is not None and os.path.isdir(path):
            return StoreDirectory(path)
        name = basename(url)
        if name is None:
            raise DownloadFailed(f"Failed to download archive from: {url}")
        return Remote(url, name)


def _delete(file: Path) -> None:
    file.unlink(missing_ok=True)
