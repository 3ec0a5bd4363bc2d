# SPDX-License-Identifier: Apache-2.0
"""
This module implements the model store: what a client's ``url`` may mean, and the archive which it names.

``spec/config_cli.md`` §8.1 and ``spec/rest_api.md`` §8.2 have the order of the checks
and the texts; unlike the predecessor, a name means a file of the store and no other.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

from twisted_serve.archives.confinement import climbs, inside, nameable
from twisted_serve.archives.fetch import Fetcher
from twisted_serve.archives.manifest import Manifest, read_manifest
from twisted_serve.archives.model_config import ModelConfig, read_model_config
from twisted_serve.archives.threads import DeferToThread
from twisted_serve.archives.tree import UnpackLimits
from twisted_serve.archives.unpacked import Lease, UnpackedArchives
from twisted_serve.archives.urls import basename, has_scheme, is_remote, local_path
from twisted_serve.errors import DownloadFailed, ModelNotFound

# What ``load_models=all`` takes a plain file of the store for.
_SUFFIXES = (".mar", ".model", ".tar.gz", ".tgz")


@frozen
class StoreFile:
    """An archive that is to be unpacked."""

    path: Path


@frozen
class StoreDirectory:
    """A model that is a directory already, and is served where it is."""

    path: Path


@frozen
class Remote:
    """An archive that is to be fetched into the store under ``basename``."""

    url: str
    basename: str


@frozen
class ModelArchive:
    """
    A model's files, ready to be registered.

    :ivar url: As the client gave it.
    :ivar model_dir: The model's directory.
    :ivar warnings: What whoever registers the model should know of its configuration.
    :ivar downloaded: The file in the store that was fetched for it, if one was.
    :ivar lease: Its share of the directory that was made for it; ``None`` for a model which is served in place.
    """

    url: str
    model_dir: Path
    manifest: Manifest
    config: ModelConfig
    warnings: tuple[str, ...] = ()
    downloaded: Path | None = None
    lease: Lease | None = None


@define(eq=False)
class ModelStore:
    """
    The directory in which models are found by name, and into which they are fetched.

    :ivar path: The directory, or ``None`` while none is configured.
    :ivar work_dir: A directory of our own, mode 0700, below which archives are unpacked.
    """

    path: Path | None
    work_dir: Path
    fetcher: Fetcher
    limits: UnpackLimits
    defer_to_thread: DeferToThread
    _archives: UnpackedArchives = field(init=False)

    @_archives.default
    def _below_work_dir(self) -> UnpackedArchives:
        return UnpackedArchives(self.work_dir / "models", self.limits, self.defer_to_thread)

    def locate(self, url: str) -> StoreFile | StoreDirectory | Remote:
        """
        Decide what ``url`` means.  It looks at the file system, and so may block.

        :raise ModelNotFound: if it means nothing, or nothing that may be served.
        :raise DownloadFailed: if it is an allowed URL whose path ends in no usable file name.
        """
        store = self._configured()
        if not url:
            raise ModelNotFound("empty url")
        if climbs(url):
            raise ModelNotFound(f"Relative path is not allowed in url: {url}")
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
        raise ModelNotFound(f"Model not found at: {url}")

    def scan_all(self) -> tuple[str, ...]:
        """
        List what ``load_models=all`` loads, in order of name.

        :raise ModelNotFound: if there is no store.
        """
        if self.path is None:
            raise ModelNotFound("Model store is not configured.")
        if not self.path.is_dir():
            raise ModelNotFound(f"Model store path is not found: {self.path}")
        visible = (entry for entry in self.path.iterdir() if not entry.name.startswith("."))
        return tuple(sorted(entry.name for entry in visible if entry.is_dir() or entry.name.endswith(_SUFFIXES)))

    async def open(self, url: str) -> ModelArchive:
        """
        Find, fetch and unpack a model, and read what it says of itself.

        Whatever goes wrong, cancelling included, nothing stays behind.

        :raise ServeError: as `locate`, `Fetcher.fetch`, `unpack`, `read_manifest` and `read_model_config` do.
        """
        located = await self.defer_to_thread(self.locate, url)
        if isinstance(located, StoreDirectory):
            return await self.defer_to_thread(_in_place, url, located.path)
        if isinstance(located, StoreFile):
            return await self._unpacked(url, located.path, None)
        target = self._configured() / located.basename
        await self.fetcher.fetch(located.url, target)
        try:
            return await self._unpacked(url, target, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    async def discard(self, archive: ModelArchive, keep_download: bool = False) -> None:
        """
        Delete the files that `open` made for a model; a model that was served in place is left as it is.

        :param keep_download: Leave the fetched file: another version may be made of it.
        """
        if archive.lease is not None:
            await self._archives.give_back(archive.lease)
        if archive.downloaded is not None and not keep_download:
            await self.defer_to_thread(_delete, archive.downloaded)

    def _configured(self) -> Path:
        if self.path is None:
            raise ModelNotFound("Model store has not been configured.")
        return self.path

    def _remote(self, url: str) -> StoreDirectory | Remote:
        if not self.fetcher.allowed.permit(url):
            raise ModelNotFound(f"Given URL {url} does not match any allowed URL(s)")
        path = local_path(url)
        if path is not None and os.path.isdir(path):
            return StoreDirectory(path)
        name = basename(url)
        if name is None:
            raise DownloadFailed(f"Failed to download archive from: {url}")
        return Remote(url, name)

    async def _unpacked(self, url: str, path: Path, downloaded: Path | None) -> ModelArchive:
        lease = await self._archives.take(path)
        try:
            return await self.defer_to_thread(_read, url, lease.directory, downloaded, lease)
        except BaseException:
            await self._archives.give_back(lease)
            raise


def _in_place(url: str, path: Path) -> ModelArchive:
    try:
        model_dir = _entered(path)
    except OSError as e:
        raise ModelNotFound(f"Model not found at: {url}") from e
    return _read(url, model_dir)


def _read(url: str, model_dir: Path, downloaded: Path | None = None, lease: Lease | None = None) -> ModelArchive:
    manifest = read_manifest(model_dir)
    config, warnings = read_model_config(model_dir, manifest)
    return ModelArchive(
        url, model_dir, manifest, config, (*warnings, *_missing(model_dir, manifest)), downloaded, lease
    )


def _entered(path: Path) -> Path:
    """Go into the only sub-directory of a directory with nothing else in it, as SageMaker lays models out."""
    entries = list(path.iterdir())
    if len(entries) == 1 and entries[0].name != "MAR-INF" and entries[0].is_dir() and inside(path, entries[0]):
        return entries[0]
    return path


def _missing(model_dir: Path, manifest: Manifest) -> Iterator[str]:
    """Say which files of the manifest are not there: not all handlers want them, so it is no error yet."""
    for entry, name in (("serializedFile", manifest.serialized_file), ("modelFile", manifest.model_file)):
        if name is not None and not (model_dir / name).exists():
            yield f"Manifest entry {entry} is {name!r:.200}, and there is no such file"


def _delete(file: Path) -> None:
    file.unlink(missing_ok=True)
