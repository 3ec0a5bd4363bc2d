# SPDX-License-Identifier: Apache-2.0
"""Base class and helpers of the tests for unpacking."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.unpack import unpack
from twisted_serve.errors import InvalidModel
from twisted_serve.testing.strategies.archives import (
    ArchiveEntry,
    tar_archive,
    zip_archive,
)

SMALL = UnpackLimits(max_size=1 << 20, max_entries=50, max_ratio=20, free_size=1 << 16)


def tree_of(root: Path) -> dict[str, bytes | None]:
    """Return the paths below a directory: the contents of files, ``None`` for directories."""
    return {
        str(path.relative_to(root)): None if path.is_dir() and not path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
    }


class UnpackTestCase(SynchronousTestCase):
    """A test with a directory of its own."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.target = self.root / "target"

    def archive(self, name: str, data: bytes) -> Path:
        path = self.root / name
        path.write_bytes(data)
        return path

    def unpacked(self, name: str, data: bytes, limits: UnpackLimits = SMALL) -> dict[str, bytes | None]:
        unpack(self.archive(name, data), self.target, limits)
        return tree_of(self.target)

    def assertRefused(self, name: str, data: bytes, text: str, limits: UnpackLimits = SMALL) -> None:
        """The archive is an invalid model for this reason, and leaves no files behind."""
        error = self.assertRaises(InvalidModel, self.unpacked, name, data, limits)
        self.assertIn(text, error.message)
        self.assertEqual([path.name for path in self.root.iterdir()], [name])

    def assertBothRefused(self, entries: list[ArchiveEntry], text: str, limits: UnpackLimits = SMALL) -> None:
        self.assertRefused("m.mar", zip_archive(entries), text, limits)
        (self.root / "m.mar").unlink()
        self.assertRefused("m.tar.gz", tar_archive(entries), text, limits)
