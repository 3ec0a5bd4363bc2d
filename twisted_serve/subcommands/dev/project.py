# SPDX-License-Identifier: Apache-2.0
"""
Collect the files of a model that is not packed, and lay them out as an unpacked archive.

The files are those that an archive would have, and the local modules that they import, which an archive must be given.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from twisted_serve.archiver.checks import check, check_entry_point
from twisted_serve.archiver.config import ModelArchiverConfig
from twisted_serve.archiver.contents import gather
from twisted_serve.archiver.forms import EPOCH
from twisted_serve.archiver.handlers import HandlerName
from twisted_serve.archiver.imports import missing_modules
from twisted_serve.archiver.packing import manifest_of
from twisted_serve.archives.manifest import MANIFEST_PATH

# Modules may import modules; more rounds than any sound project needs.
_MAX_ROUNDS = 50

# Bytes of a Python file that is copied; other files are linked, since weights are large.
_MAX_COPIED = 1 << 20


@frozen
class Project:
    """
    A model as its author has it.

    :ivar config: The files, under the names of the archiver's flags.
    """

    config: ModelArchiverConfig
    handler: HandlerName = field(init=False)

    @handler.default
    def _parsed(self) -> HandlerName:
        return HandlerName.parse(self.config.handler, self.config.runtime)

    @property
    def directory(self) -> Path:
        """The directory in which modules of the project may appear."""
        return (Path.cwd() if self.handler.path is None else self.handler.path).absolute().parent

    def named(self) -> list[Path]:
        """Return the files that have a role of their own, whether they exist or not."""
        config = self.config
        named = (self.handler.path, config.model_file, config.serialized_file, config.config_file)
        return [Path(path).absolute() for path in named if path is not None]

    def collect(self, warn: Callable[[str], object]) -> Mapping[str, Path]:
        """
        Return the file for each name in the model's directory.

        :param warn: Called with each doubtful finding.
        :raise ArchiverError: if a file is missing, or the handler cannot be one.
        """
        self.handler.check_exists()
        files = dict(gather(self.named(), self.config.extra_files, MANIFEST_PATH, warn))
        check(self.config, self.handler, warn)
        if self.handler.path is not None and self.handler.function is None:
            check_entry_point(self.handler.path, warn)
        for _ in range(_MAX_ROUNDS):
            found = {each.name: each.path for each in missing_modules(files, self.directory)}
            if not found:
                break
            files |= found
        return {name: path.absolute() for name, path in files.items()}

    def lay_out(self, files: Mapping[str, Path], directory: Path, version: str) -> None:
        """
        Make a model's directory of collected files.

        Python files are copied: a worker that is started again must not load what has been written since.

        :param directory: A directory that does not exist.
        :raise OSError: if a file cannot be read, or the directory not be written.
        """
        for name, path in files.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".py") and path.stat().st_size <= _MAX_COPIED:
                shutil.copyfile(path, target)
            else:
                target.symlink_to(path)
        manifest = directory / MANIFEST_PATH
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps(manifest_of(evolve(self.config, version=version), self.handler, EPOCH)))
