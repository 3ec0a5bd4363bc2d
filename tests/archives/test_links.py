# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.locating`: symbolic links in the store."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from tests.archives.test_locating import NOTHING, LocatingTestCase
from tests.archives.test_store import MAR
from twisted_serve.archives.locating import Source, StoreDirectory, StoreFile
from twisted_serve.errors import InvalidModel


class LinkTests(LocatingTestCase):
    """Symbolic links among the entries of the store, which only the operator can have created."""

    def test_entry(self) -> None:
        """An entry that is a link to a file or directory elsewhere is served, for clients and for the operator."""
        (self.path / "m.mar").symlink_to(self.outside / "x.mar")
        (self.path / "d").symlink_to(self.outside / "model")
        (self.path / "sub").mkdir()
        (self.path / "sub/n.mar").symlink_to("../../outside/x.mar")
        for source in Source:
            self.assertEqual(self.store.locate("m.mar", source), StoreFile(self.path / "m.mar"))
            self.assertEqual(self.store.locate("sub/n.mar", source), StoreFile(self.path / "sub/n.mar"))
            self.assertEqual(self.store.locate("d/", source), StoreDirectory(self.path / "d"))
        self.assertEqual(self.opened("m.mar").manifest.model_name, "m")
        self.assertEqual(self.store.scan_all(), ("d", "m.mar", "sub"))

    def test_volume(self) -> None:
        """Kubernetes mounts a volume as links to links; a store that is itself a link is a store."""
        (self.path / "..2026").mkdir()
        (self.path / "..2026/m.mar").write_bytes(MAR)
        (self.path / "..data").symlink_to("..2026")
        (self.path / "m.mar").symlink_to("..data/m.mar")
        (self.root / "mounted").symlink_to(self.path)
        self.assertEqual(self.opened("m.mar").manifest.model_name, "m")
        store = self.make_store(NOTHING, self.root / "mounted")
        self.assertEqual(store.locate("m.mar"), StoreFile(self.root / "mounted/m.mar"))
        self.assertEqual(store.locate(str(self.path / "m.mar")), StoreFile(self.root / "mounted/m.mar"))

    def test_directory_of_links(self) -> None:
        """A directory of links into a cache is served in place, manifest and settings included."""
        blobs, model = self.root / "blobs", self.path / "m"
        blobs.mkdir()
        for directory in (model, model / "MAR-INF"):
            directory.mkdir()
        manifest = b'{"model": {"modelName": "m", "handler": "h.py", "serializedFile": "w.pt", "configFile": "c.yaml"}}'
        files = {"MAR-INF/MANIFEST.json": manifest, "h.py": b"", "w.pt": b"", "c.yaml": b"batchSize: 3"}
        for number, (name, data) in enumerate(files.items()):
            (blobs / str(number)).write_bytes(data)
            (model / name).symlink_to(blobs / str(number))
        archive = self.opened("m")
        self.assertEqual((archive.manifest.model_name, archive.config.batch_size), ("m", 3))
        self.assertEqual(archive.warnings, ())

    def test_manifest_still_stays_inside(self) -> None:
        """Links are the operator's; a manifest that names a path outside by its name is refused as ever."""
        (self.path / "m/MAR-INF").mkdir(parents=True)
        for name in ("../../outside/x.mar", str(self.outside / "x.mar"), "%2e%2e/x", "."):
            (self.path / "m/MAR-INF/MANIFEST.json").write_text(f'{{"model": {{"modelFile": "{name}"}}}}')
            self.failureResultOf(Deferred.fromCoroutine(self.store.open("m")), InvalidModel)

    def test_nowhere(self) -> None:
        """A link to nothing, to itself, to a FIFO or to a device is not found; the operator gets the reason."""
        os.mkfifo(self.outside / "fifo")
        reasons = {
            "gone": "is a symbolic link that leads nowhere",
            "loop.mar": "Too many levels of symbolic links",
            "fifo": "is neither a file nor a directory",
            "zero": "is neither a file nor a directory",
        }
        for name, target in (
            ("gone", "gone-target"),
            ("loop.mar", "loop.mar"),
            ("fifo", self.outside / "fifo"),
            ("zero", "/dev/zero"),
        ):
            (self.path / name).symlink_to(target)
            self.assertEqual(self.refusal(name).message, f"Model not found at: {name}")
            self.assertIn(reasons[name], str(self.refusal(name, Source.OPERATOR).reason))
