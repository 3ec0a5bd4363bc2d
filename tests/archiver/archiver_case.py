# SPDX-License-Identifier: Apache-2.0
"""Base class and helpers of the tests for the archiver."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archiver import packing
from twisted_serve.archiver.config import ArchiverError, ModelArchiverConfig
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.manifest import Manifest, read_manifest
from twisted_serve.archives.unpack import unpack


def files_of(root: Path) -> dict[str, bytes]:
    """Return the contents of all files below a directory, by name."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def opened(archive: Path, place: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Return an archive as the server reads it: its manifest, and its other files."""
    model_dir = archive
    if archive.is_file():
        model_dir = place / "unpacked"
        unpack(archive, model_dir, UnpackLimits())
    files = files_of(model_dir)
    del files["MAR-INF/MANIFEST.json"]
    return read_manifest(model_dir), files


class ArchiverTestCase(SynchronousTestCase):
    """A test with a model's files in the working directory."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.root)
        self.warnings: list[str] = []
        self.files = {
            "src/handler.py": b"def entry(data, context): pass\n",
            "src/model.py": b"class Net: pass\n",
            "w.pt": b"weights" * 100,
            "requirements.txt": b"six\n",
            "c.yaml": b"batchSize: 4\n",
            "extra/words.txt": b"a b",
            "extra/deep/more.txt": b"c",
        }
        for name, content in self.files.items():
            self.write(name, content)

    def write(self, name: str, content: bytes = b"") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def config(self, **said: Any) -> ModelArchiverConfig:
        return ModelArchiverConfig(
            **{"model_name": "m", "version": "1.0", "handler": "src/handler.py", "export_path": "out", **said}
        )

    def pack(self, environ: dict[str, str] | None = None, **said: Any) -> Path:
        return packing.pack(self.config(**said), environ or {}, self.warnings.append)

    def names(self, **said: Any) -> list[str]:
        """Return the names of the files that would be packed, without the manifest."""
        return [entry.name for entry in packing.plan(self.config(**said), {}, self.warnings.append).entries[1:]]

    def assertRefused(self, text: str, **said: Any) -> None:
        """The archive cannot be made, for this reason, and no file is left behind."""
        before = files_of(self.root)
        error = self.assertRaises(ArchiverError, self.pack, **said)
        self.assertRegex(str(error), text)
        self.assertEqual(files_of(self.root), before)
