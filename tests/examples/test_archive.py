# SPDX-License-Identifier: Apache-2.0
"""Tests for ``examples/archive.py``."""

from __future__ import annotations

import json
import runpy
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

MODULE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "archive.py"))


class WriteArchiveTests(SynchronousTestCase):
    """Small archives."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "store" / "m.mar"
        self.source = Path(self.mktemp())
        self.source.write_bytes(b"from a file")

    def _write(self) -> bytes:
        manifest = MODULE["manifest_of"]("m", "h.py", serializedFile="m.pt")
        self.assertEqual(
            MODULE["write_archive"](self.path, {"h.py": b"pass", "m.pt": self.source}, manifest), self.path
        )
        return self.path.read_bytes()

    def test_content(self) -> None:
        """The archive has the files and the manifest, and is readable by others."""
        self._write()
        with zipfile.ZipFile(self.path) as archive:
            self.assertEqual(archive.read("h.py"), b"pass")
            self.assertEqual(archive.read("m.pt"), b"from a file")
            model = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
        self.assertEqual(model, {"modelName": "m", "modelVersion": "1.0", "handler": "h.py", "serializedFile": "m.pt"})
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o644)

    def test_same_bytes(self) -> None:
        """The same files make the same archive, over an older one too."""
        self.assertEqual(self._write(), self._write())

    def test_nothing_left(self) -> None:
        """A file that cannot be read leaves neither an archive nor half of one."""
        files = {"gone": Path(self.mktemp())}
        self.assertRaises(FileNotFoundError, MODULE["write_archive"], self.path, files, {})
        self.assertEqual(list(self.path.parent.iterdir()), [])
