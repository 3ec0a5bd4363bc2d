# SPDX-License-Identifier: Apache-2.0
"""
Find, read and discard the model archives of the model store.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

from twisted_serve.archives.extraction import Reading, not_read
from twisted_serve.archives.intake import Intake, OpenedArchive, Places
from twisted_serve.archives.locating import Remote, Source, StoreDirectory, StoreErrors, StoreFile
from twisted_serve.archives.manifest import Manifest, read_manifest
from twisted_serve.archives.model_config import ModelConfig, read_model_config
from twisted_serve.archives.safe_paths import inside
from twisted_serve.errors import ModelNotFound

# Suffixes of the files that ``load_models=all`` loads.
_SUFFIXES = (".mar", ".model", ".tar.gz", ".tgz")

_ERRORS = StoreErrors(ModelNotFound, "Model not found at", "Model store has not been configured.")


@frozen
class ModelArchive:
    """
    A model's files, ready to be registered.

    :ivar url: The location as the client sent it.
    :ivar model_dir: The model's directory.
    :ivar warnings: Configuration warnings for the client that registers the model.
    :ivar files: The files to delete on discard; ``None`` if the directory must be kept.
    """

    url: str
    model_dir: Path
    manifest: Manifest
    config: ModelConfig
    warnings: tuple[str, ...] = ()
    files: OpenedArchive | None = None


@define(eq=False)
class ModelStore:
    """
    The directory in which models are found by name and into which they are fetched.

    :ivar path: The directory, or ``None`` if none is configured.
    """

    path: Path | None
    intake: Intake
    _places: Places = field(init=False)

    @_places.default
    def _of_models(self) -> Places:
        return Places(self.path, "models", _ERRORS, self.intake)

    def locate(self, url: str, source: Source = Source.CLIENT) -> StoreFile | StoreDirectory | Remote:
        """Return what ``url`` refers to, as `Places.locate`."""
        return self._places.locate(url, source)

    def scan_all(self) -> tuple[str, ...]:
        """
        List the entries that ``load_models=all`` loads, sorted by name.

        :raise ModelNotFound: if there is no store.
        :raise InternalError: if the store cannot be read.
        """
        if self.path is None:
            raise ModelNotFound("Model store is not configured.")
        if not os.path.isdir(self.path):
            raise ModelNotFound(f"Model store path is not found: {self.path}")
        with Reading(f"the model store {self.path}"):
            visible = [entry for entry in self.path.iterdir() if not entry.name.startswith(".")]
        return tuple(sorted(entry.name for entry in visible if _is_model(entry)))

    async def open(self, url: str, source: Source = Source.CLIENT) -> ModelArchive:
        """
        Locate, fetch and unpack a model, and read its manifest and configuration.

        After any error, cancellation included, no files are left behind.

        :param source: Where ``url`` was specified, which decides what it may refer to.
        :raise ServeError: as `Places.open`, `read_manifest` and `read_model_config` do.
        """
        return await self._places.open(url, self._read, source)

    def empty_directory(self) -> Path:
        """Return the directory of models that have no files, which must not be written to; made on first use."""
        path = self.intake.work_dir / "no_files"
        if not path.exists():
            path.mkdir(mode=0o700)
            self.intake.made(path)
        return path

    async def discard(self, archive: ModelArchive, keep_download: bool = False) -> None:
        """
        Delete the files that `open` created for a model; a model that is served in place is kept.

        :param keep_download: Keep the fetched file, because another version may be created from it.
        """
        if archive.files is not None:
            await self._places.give_back(archive.files, keep_download)

    def _read(self, files: OpenedArchive) -> ModelArchive:
        model_dir = files.directory
        if files.lease is None:
            try:
                model_dir = _only_subdirectory(model_dir, files.links)
            except FileNotFoundError as e:
                raise _ERRORS.nothing_at(files.url) from e
            except OSError as e:
                raise not_read(files.url, e) from e
        manifest = read_manifest(model_dir, files.links)
        config, warnings = read_model_config(model_dir, manifest)
        return ModelArchive(
            files.url, model_dir, manifest, config, (*warnings, *_missing_file_warnings(model_dir, manifest)), files
        )


def _is_model(entry: Path) -> bool:
    """Return whether ``load_models=all`` loads an entry of the store, which may also contain workflows."""
    # Unlike Path.is_dir, os.path.isdir returns false for an inaccessible path instead of raising.
    return not os.path.isdir(entry / "WAR-INF") if os.path.isdir(entry) else entry.name.endswith(_SUFFIXES)


def _only_subdirectory(path: Path, links: bool) -> Path:
    """Return the only subdirectory of a directory that contains nothing else, SageMaker's layout of a model."""
    entries = list(path.iterdir())
    if len(entries) != 1 or entries[0].name == "MAR-INF" or not entries[0].is_dir():
        return path
    return entries[0] if links or inside(path, entries[0]) else path


def _missing_file_warnings(model_dir: Path, manifest: Manifest) -> Iterator[str]:
    """Yield a warning for each missing file of the manifest; not an error, because not all handlers need them."""
    for entry, name in (("serializedFile", manifest.serialized_file), ("modelFile", manifest.model_file)):
        if name is not None and not (model_dir / name).exists():
            yield f"Manifest entry {entry} is {name!r:.200}, and there is no such file"
