# SPDX-License-Identifier: Apache-2.0
"""Tests for publishing an archive, for TorchServe's names of the library, and for round trips through the server."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.archiver.archiver_case import ArchiverTestCase, files_of, opened
from twisted_serve.archiver import packing, writing
from twisted_serve.archiver.config import FORMATS, ArchiverError, ModelArchiverConfig
from twisted_serve.archiver.handlers import HandlerName
from twisted_serve.archiver.model_archiver import ModelArchiver, ModelArchiverError, generate_model_archive
from twisted_serve.archives import atomic
from twisted_serve.archives.names import version_flaw
from twisted_serve.testing.strategies.archives import path_components, safe_names


class PublishingTests(ArchiverTestCase):
    """Tests for when an archive is published."""

    def left(self) -> list[str]:
        return sorted(path.name for path in (self.root / "out").iterdir())

    def test_export_path(self) -> None:
        """The directory is created, with a warning; a path that is not a directory is an error."""
        self.pack(export_path="new/deep")
        self.assertEqual(self.warnings, ["Export directory (new/deep) does not exist. Creating..."])
        self.assertRefused("^Cannot make w.pt/m.mar: ", export_path="w.pt")

    def test_exists(self) -> None:
        """An archive is not replaced without ``--force``; the error has TorchServe's hint."""
        for form, name in zip(FORMATS, ("m.mar", "m.mar", "m.tar.gz", "m"), strict=True):
            self.pack(archive_format=form, force=True)
            self.assertRefused(f"^out/{name} already exists.\nPlease specify --force/-f", archive_format=form)
            self.write("src/handler.py", f"form = {form!r}".encode())
            self.warnings.clear()
            path = self.pack(archive_format=form, force=True)
            self.assertEqual(self.warnings, [f"Overwriting {path} ..."])
        self.assertEqual(self.left(), ["m", "m.mar", "m.tar.gz"])

    def test_not_ours(self) -> None:
        """What is no archive is not replaced, not even with ``--force``."""
        self.write("out/m/precious.txt")
        self.write("out/m.mar/precious.txt")
        self.assertRefused("is not the directory of a model", archive_format="no-archive", force=True)
        self.assertRefused("is not a file", force=True)

    def test_nothing_is_deleted(self) -> None:
        """No existing directory is emptied; TorchServe emptied ``<tmp>/<model name>``."""
        precious = self.write("tmp/m/precious.txt")
        with mock.patch.dict(os.environ, {"TMPDIR": str(self.root / "tmp")}), mock.patch("tempfile.tempdir", None):
            self.pack()
        self.assertTrue(precious.exists())

    def test_disk_full(self) -> None:
        """A full disk is reported, and no file is left behind."""
        (self.root / "out").mkdir()
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for form in FORMATS:
            with mock.patch("twisted_serve.archiver.writing.write_archive", side_effect=full):
                self.assertRefused("No space left on device", archive_format=form)
        with mock.patch("os.fsync", side_effect=full):
            for form in FORMATS:
                self.assertRefused("No space left on device", archive_format=form)
        self.assertEqual(self.left(), [])

    def test_shrinking_file(self) -> None:
        """A file that changes while it is packed is an error, or is packed as it is then."""
        entries = packing.plan(self.config(archive_format="tgz", serialized_file="w.pt"), {})
        with mock.patch("twisted_serve.archiver.forms.Entry.size", 10_000):
            self.assertRaises(ArchiverError, writing.write, entries)
        self.assertEqual(self.left(), [])

    def test_directory_is_put_back(self) -> None:
        """A model directory that cannot be replaced is left unchanged."""
        old = files_of(self.pack(archive_format="no-archive"))
        self.write("src/handler.py", b"x = 1")
        rename = os.rename

        def unwilling(source: Path, target: Path) -> None:
            if target.name == "m" and source.suffix == ".part":
                raise OSError(errno.EIO, "no")
            rename(source, target)

        with mock.patch("os.rename", unwilling):
            self.assertRaises(ArchiverError, self.pack, archive_format="no-archive", force=True)
        self.assertEqual(files_of(self.root / "out/m"), old)
        self.assertEqual(self.left(), ["m"])

    def test_two_at_once(self) -> None:
        """Of two concurrent packers without ``--force``, the second is refused, however late the conflict shows."""
        for form in ("default", "no-archive"):
            planned = packing.plan(self.config(archive_format=form), {})
            self.pack(archive_format=form)
            error = self.assertRaises(ArchiverError, writing.write, planned)
            self.assertIn("already exists", str(error))
        planned = packing.plan(self.config(model_name="n"), {})
        real = atomic.give_name

        def too_late(written: Path, target: Path) -> None:
            target.write_bytes(b"theirs")
            real(written, target)

        with mock.patch("twisted_serve.archiver.writing.give_name", too_late):
            self.assertRaises(ArchiverError, writing.write, planned)
        self.assertEqual((self.root / "out/n.mar").read_bytes(), b"theirs")
        self.assertEqual(self.left(), ["m", "m.mar", "n.mar"])


class PredecessorsNamesTests(ArchiverTestCase):
    """Tests for the names that scripts for ``model_archiver`` use."""

    def test_class(self) -> None:
        """``ModelArchiver.generate_model_archive(config)``."""
        ModelArchiver.generate_model_archive(self.config())
        self.assertTrue((self.root / "out/m.mar").exists())
        self.assertRaises(ModelArchiverError, generate_model_archive, self.config())

    def test_positional(self) -> None:
        """The fields have TorchServe's order and defaults."""
        config = ModelArchiverConfig("m", "src/handler", "1", "w.pt", "src/model.py", "extra")
        self.assertEqual((config.runtime, config.export_path, config.archive_format), ("python", self.root, "default"))
        self.assertEqual((config.force, config.requirements_file, config.config_file), (False, None, None))
        self.assertEqual(config.extra_files, ("extra",))


@st.composite
def models(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Generate archiver configurations with the model's files by name."""
    reserved = {"handler.py", "model.py", "c.yaml", "r.txt", "w.pt", "MAR-INF"}
    names: Iterable[str] = draw(st.lists(safe_names(), max_size=4, unique=True))
    extra: dict[str, bytes] = {}
    for name in names:
        parts = name.split("/")
        above = {"/".join(parts[:end]) for end in range(1, len(parts))}
        hidden = any(part.startswith(".") or part in ("__MACOSX", "__pycache__") for part in parts[:-1])
        clash = above & extra.keys() or any(other.startswith(f"{name}/") for other in extra)
        if parts[0] not in reserved and not hidden and not clash:
            extra[name] = draw(st.binary(max_size=50))
    said: dict[str, Any] = {
        "model_name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_\-.]{0,20}", fullmatch=True)),
        "version": draw(st.text(min_size=1, max_size=10).filter(lambda text: version_flaw(text) is None)),
        "handler": draw(
            st.sampled_from(["handler.py", "handler", "handler:entry", "handler.py:entry", "base_handler"])
        ),
        "runtime": draw(st.sampled_from(["python", "python3"])),
        "archive_format": draw(st.sampled_from(FORMATS)),
    }
    files = dict(extra)
    if said["handler"] != "base_handler":
        files["handler.py"] = b"def entry(data, context): pass"
    for argument, name, contents in (
        ("serialized_file", "w.pt", st.binary(max_size=200)),
        ("model_file", "model.py", st.just(b"class Net: pass")),
        ("config_file", "c.yaml", st.integers(1, 9).map(lambda n: b"batchSize: %d" % n)),
        ("requirements_file", "r.txt", st.just(b"six")),
    ):
        if draw(st.booleans()):
            said[argument] = name
            files[name] = draw(contents)
    return {**said, "extra_files": ["extra"] if extra else None}, files


class RoundTripProperties(SynchronousTestCase):
    """The server reads every archive that the archiver makes."""

    @given(models())
    @settings(deadline=None)
    def test_round_trip(self, model: tuple[dict[str, Any], dict[str, bytes]]) -> None:
        """Files come out as they went in, in every form, and the manifest says what was said."""
        said, files = model
        with TemporaryDirectory() as directory:
            root = Path(directory)
            (root / "extra").mkdir()
            own = {"handler.py", "model.py", "c.yaml", "r.txt", "w.pt"}
            for name, content in files.items():
                path = root / name if name in own else root / "extra" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            paths = {key: str(root / said[key]) for key in said if key.endswith("_file")}
            handler = said["handler"] if said["handler"] == "base_handler" else str(root / said["handler"])
            extra = [str(root / "extra")] if said["extra_files"] else None
            config = ModelArchiverConfig(
                **{**said, **paths, "handler": handler, "extra_files": extra, "export_path": root / "out"}
            )
            manifest, found = opened(packing.pack(config, {}), root)
            self.assertEqual(found, files)
            self.assertEqual(
                (manifest.model_name, manifest.model_version, manifest.handler, manifest.runtime),
                (said["model_name"], said["version"], said["handler"], said["runtime"]),
            )
            for key in ("serialized_file", "model_file", "config_file", "requirements_file"):
                self.assertEqual(getattr(manifest, key), said.get(key))

    @given(path_components())
    def test_handler_names(self, name: str) -> None:
        """Any file name is a handler's, and the manifest has it without its directory."""
        parsed = HandlerName.parse(f"some/where/{name}.py", "python")
        self.assertEqual((parsed.name, parsed.path), (f"{name}.py", Path(f"some/where/{name}.py")))
