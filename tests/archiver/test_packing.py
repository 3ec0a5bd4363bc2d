# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archiver`: from a config to an archive which the server reads."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve import __version__
from twisted_serve.archiver import packing, writing
from twisted_serve.archiver.config import FORMATS, ArchiverError, ModelArchiverConfig
from twisted_serve.archiver.handlers import BUILT_IN, HandlerName
from twisted_serve.archiver.model_archiver import ModelArchiver, ModelArchiverError, generate_model_archive
from twisted_serve.archives import publishing
from twisted_serve.archives.manifest import Manifest, read_manifest
from twisted_serve.archives.tree import UnpackLimits
from twisted_serve.archives.unpack import unpack
from twisted_serve.backend.ts_names import BUILT_IN_HANDLERS
from twisted_serve.testing.strategies.archives import path_components, safe_names


def files_of(root: Path) -> dict[str, bytes]:
    """All files below a directory, by name."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def opened(archive: Path, place: Path) -> tuple[Manifest, dict[str, bytes]]:
    """What the server finds in an archive: its manifest, and its other files."""
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
        """Names of the files that would go in, the manifest left out."""
        return [entry.name for entry in packing.plan(self.config(**said), {}, self.warnings.append).entries[1:]]

    def assertRefused(self, text: str, **said: Any) -> None:
        """There is no such archive, for this reason; and nothing is left of the attempt."""
        before = files_of(self.root)
        error = self.assertRaises(ArchiverError, self.pack, **said)
        self.assertRegex(str(error), text)
        self.assertEqual(files_of(self.root), before)


class FormsTests(ArchiverTestCase):
    """What is in an archive, in each of its forms."""

    def everything(self, **said: Any) -> dict[str, Any]:
        return {
            "serialized_file": "w.pt",
            "model_file": "src/model.py",
            "extra_files": "extra",
            "requirements_file": "requirements.txt",
            "config_file": "c.yaml",
            **said,
        }

    def test_manifest(self) -> None:
        """The manifest has the predecessor's fields in its order."""
        with zipfile.ZipFile(self.pack(**self.everything(handler="src/handler.py:entry", version="2.1"))) as archive:
            manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
            names = archive.namelist()
        self.assertEqual(
            list(manifest.items()),
            [
                ("createdOn", "01/01/1980 00:00:00"),
                ("runtime", "python"),
                ("model", manifest["model"]),
                ("archiverVersion", __version__),
            ],
        )
        self.assertEqual(
            list(manifest["model"].items()),
            [
                ("modelName", "m"),
                ("serializedFile", "w.pt"),
                ("handler", "handler.py:entry"),
                ("modelFile", "model.py"),
                ("modelVersion", "2.1"),
                ("requirementsFile", "requirements.txt"),
                ("configFile", "c.yaml"),
            ],
        )
        self.assertEqual(names[0], "MAR-INF/MANIFEST.json")
        self.assertEqual(
            names[1:],
            ["c.yaml", "deep/more.txt", "handler.py", "model.py", "requirements.txt", "w.pt", "words.txt"],
        )

    def test_forms(self) -> None:
        """Each form has its name, and its way of storing files."""
        self.assertEqual(
            [self.config(archive_format=form).target.name for form in FORMATS], ["m.mar", "m.mar", "m.tar.gz", "m"]
        )
        sizes = {}
        for form in ("default", "zip-store"):
            with zipfile.ZipFile(self.pack(force=True, archive_format=form, serialized_file="w.pt")) as archive:
                sizes[form] = archive.getinfo("w.pt").compress_size
        self.assertLess(sizes["default"], 700)
        self.assertEqual(sizes["zip-store"], 700)

    def test_same_bytes(self) -> None:
        """The same files make the same bytes, whatever their times and the order in which they are listed."""
        for form in FORMATS[:3]:
            with self.subTest(form):
                first = self.pack(
                    **self.everything(archive_format=form, extra_files="extra,src/*", force=True)
                ).read_bytes()
                for path in self.root.rglob("*"):
                    os.utime(path, (1e9, 1e9))
                os.chmod(self.root / "w.pt", 0o600)
                second = self.pack(**self.everything(archive_format=form, extra_files=["src/*", "extra"], force=True))
                self.assertEqual(second.read_bytes(), first)

    def test_source_date_epoch(self) -> None:
        """``SOURCE_DATE_EPOCH`` is the time of everything, as far as a zip can say it."""
        for text, shown in (("1000000000", "09/09/2001 01:46:40"), ("0", "01/01/1980 00:00:00")):
            path = self.pack({"SOURCE_DATE_EPOCH": text}, force=True)
            with zipfile.ZipFile(path) as archive:
                self.assertEqual(json.loads(archive.read("MAR-INF/MANIFEST.json"))["createdOn"], shown)
                year, month, day, *_time = archive.infolist()[1].date_time
                self.assertEqual(f"{day:02}/{month:02}/{year}", shown[:10])
        for form in FORMATS:
            self.pack({"SOURCE_DATE_EPOCH": "99999999999"}, force=True, archive_format=form)
        error = self.assertRaises(ArchiverError, self.pack, {"SOURCE_DATE_EPOCH": "soon"})
        self.assertEqual(str(error), "SOURCE_DATE_EPOCH is 'soon', expected seconds since 1970.")

    def test_executable(self) -> None:
        """A program stays one."""
        os.chmod(self.write("tool.sh", b"#!/bin/sh"), 0o700)
        for form in FORMATS:
            place = self.root / form
            path = self.pack(archive_format=form, extra_files="tool.sh", export_path=place)
            model_dir = path
            if path.is_file():
                model_dir = place / "unpacked"
                unpack(path, model_dir, UnpackLimits())
            self.assertTrue(os.access(model_dir / "tool.sh", os.X_OK))
            self.assertFalse(os.access(model_dir / "handler.py", os.X_OK))

    def test_umask(self) -> None:
        """Who keeps files to themselves keeps archives, too."""
        self.addCleanup(os.umask, os.umask(0o077))
        for form in FORMATS:
            path = self.pack(archive_format=form, force=True)
            self.assertEqual(path.stat().st_mode & 0o077, 0)

    def test_tar_is_read_by_all(self) -> None:
        """Everything in a tar lies in a directory with the model's name, which the predecessor takes away."""
        data = gzip.decompress(self.pack(archive_format="tgz").read_bytes())
        self.assertIn(b"m/MAR-INF/MANIFEST.json\0", data)
        self.assertIn(b"m/handler.py\0", data)


class HandlerTests(ArchiverTestCase):
    """Which file a handler's name means."""

    def assertHandler(self, text: str, name: str, path: str | None, function: str | None = None) -> None:
        expected = HandlerName(name, None if path is None else Path(path), function)
        self.assertEqual(HandlerName.parse(text, "python"), expected)

    def test_names(self) -> None:
        """With and without ``.py``, with and without a function, with and without a directory."""
        self.assertHandler("src/handler.py", "handler.py", "src/handler.py")
        self.assertHandler("src/handler", "handler", "src/handler.py")
        self.assertHandler("src/handler:entry", "handler:entry", "src/handler.py", "entry")
        self.assertHandler("src/handler.py:entry", "handler.py:entry", "src/handler.py", "entry")
        self.assertHandler("./a:b/handler.py", "handler.py", "./a:b/handler.py")
        self.assertHandler("handler:", "handler", "handler.py")

    def test_built_in(self) -> None:
        """Of a built-in handler nothing is packed; those that this server has are all known."""
        for name in BUILT_IN:
            self.assertHandler(name, name, None)
            self.assertEqual(self.names(handler=name), [])
        self.assertLessEqual(set(BUILT_IN_HANDLERS), BUILT_IN)
        self.assertEqual(self.names(handler="src/handler"), ["handler.py"])

    def test_cpp(self) -> None:
        """For C++ workers a library goes in; a warning says that they are not ours."""
        library = self.write("src/libmine.so")
        with mock.patch("twisted_serve.archiver.handlers._LIBRARY", ".so"):
            path = self.pack(handler="src/libmine:Mine", runtime="LSP")
            self.assertEqual(self.names(handler="BaseHandler", runtime="LSP", force=True), [])
        manifest, files = opened(path, self.root)
        self.assertEqual((manifest.handler, manifest.runtime), ("libmine:Mine", "LSP"))
        self.assertEqual(files, {library.name: b""})
        self.assertIn("C++", self.warnings[-1])


class ContentsTests(ArchiverTestCase):
    """Which files go in."""

    def test_extra_files(self) -> None:
        """Files, what is in directories, and what globs match; blanks and tools' directories do not count."""
        for name in ("extra/__pycache__/x.pyc", "extra/.git/config", "extra/.hidden", "a1.txt", "a2.txt", "[x].txt"):
            self.write(name)
        self.assertEqual(
            self.names(extra_files=" extra , a?.txt,, [x].txt"),
            [".hidden", "[x].txt", "a1.txt", "a2.txt", "deep/more.txt", "handler.py", "words.txt"],
        )
        self.assertEqual(self.names(extra_files=["ex*"]), self.names(extra_files="extra/"))

    def test_no_match(self) -> None:
        """A glob that matches nothing is a warning, a file that is missing is an error."""
        self.assertEqual(self.names(extra_files="none*"), ["handler.py"])
        self.assertEqual(self.warnings, ["No file matches none*."])
        self.assertRefused("^File does not exist: gone.txt$", extra_files="w.pt,gone.txt")

    def test_missing(self) -> None:
        """Whatever file is missing is named."""
        for argument in ("serialized_file", "model_file", "requirements_file", "config_file", "handler"):
            self.assertRefused("^File does not exist: gone.py$", **{argument: "gone.py"})

    def test_not_a_file(self) -> None:
        """A directory is no weights, and nobody waits for a pipe."""
        os.mkfifo("pipe")
        self.assertRefused("^Not a file: extra$", serialized_file="extra")
        self.assertRefused("^Not a file: pipe$", extra_files="pipe")

    def test_links(self) -> None:
        """What a link leads to goes in; a link to a directory above itself is an error and no endless work."""
        os.symlink("../w.pt", "extra/link.pt")
        os.symlink("../src", "extra/code")
        self.assertIn("code/handler.py", self.names(extra_files="extra"))
        os.symlink("..", "extra/deep/up")
        self.assertRefused("^The link extra/deep/up leads to a directory above itself.$", extra_files="extra")

    def test_same_name(self) -> None:
        """Two files of one name must be the same; a handler may well lie among the extra files."""
        self.assertEqual(self.names(extra_files="src"), ["handler.py", "model.py"])
        self.write("other/handler.py", b"pass")
        self.assertRefused("would both be handler.py in the archive", extra_files="other")
        self.write("third/handler.py/x", b"")
        self.assertRefused("^handler.py would be a file and a directory in the archive.$", extra_files="third")

    def test_names_that_no_server_takes(self) -> None:
        """A name that the server refuses to unpack, or that is the manifest's, is refused at once."""
        self.write("odd/a\\b")
        self.assertRefused("unsafe name", extra_files="odd")
        self.write("mar/MAR-INF/MANIFEST.json", b"{}")
        self.assertRefused("where its manifest is", extra_files="mar")

    def test_too_many(self) -> None:
        """More files than the server unpacks are refused."""
        with mock.patch("twisted_serve.archiver.contents._MOST_FILES", 3):
            self.assertRefused("^More than 3 files and directories.$", extra_files="extra")


class ChecksTests(ArchiverTestCase):
    """What is found before anything is written."""

    def test_python(self) -> None:
        """Handler and model file must be Python."""
        for content, text in (
            (b"def (", r"src/bad.py is not valid Python: .* \(line 1\)"),
            (b"a\0b", "src/bad.py is not valid Python"),
            (b"# coding: none-such", "src/bad.py is not valid Python"),
            (b"(" * 2000 + b")" * 2000, "src/bad.py is not valid Python"),
        ):
            self.write("src/bad.py", content)
            self.assertRefused(f"^The handler {text}", handler="src/bad.py")
            self.assertRefused(f"^The model file {text}", model_file="src/bad.py")

    def test_entry_point(self) -> None:
        """A function that the handler's file does not have is refused; one that it may get from elsewhere is not."""
        self.assertRefused("^The handler src/handler.py has no 'run'.$", handler="src/handler:run")
        for content in (
            b"async def run(d, c): pass",
            b"from x import run",
            b"from x import *",
            b"run = print",
            b"import x as run",
            b"class run: pass",
            b"try:\n def run(): pass\nfinally: pass",
        ):
            self.write("src/handler.py", content)
            self.assertEqual(self.names(handler="src/handler:run"), ["handler.py"])

    def test_config(self) -> None:
        """The server's own reader reads the configuration: errors are errors, slips are warnings."""
        self.write("c.yaml", b"batchSize: many")
        self.assertRefused("^Invalid model config file c.yaml: batchSize is 'many'", config_file="c.yaml")
        self.write("c.yaml", b"BatchSize: 4")
        self.names(config_file="c.yaml")
        self.assertIn("did you mean 'batchSize'", self.warnings[0])

    def test_requirements(self) -> None:
        """Requirements are text."""
        self.write("requirements.txt", b"\xff")
        self.assertRefused("^The requirements file requirements.txt is not UTF-8", requirements_file="requirements.txt")

    def test_values(self) -> None:
        """Names, versions, runtimes and forms that cannot be are refused with the value."""
        for said in (
            {"model_name": "-m"},
            {"model_name": "a/b"},
            {"model_name": "m\n"},
            {"version": ""},
            {"version": "1\n"},
            {"runtime": "java"},
            {"archive_format": "rar"},
        ):
            [(name, value)] = said.items()
            self.assertRefused(re.escape(f"{name.replace('_', ' ')} is {value!r}, expected"), **said)


class PublishingTests(ArchiverTestCase):
    """When an archive is there, and when it is not."""

    def left(self) -> list[str]:
        return sorted(path.name for path in (self.root / "out").iterdir())

    def test_export_path(self) -> None:
        """The directory is made, with a warning; what is no directory is an error."""
        self.pack(export_path="new/deep")
        self.assertEqual(self.warnings, ["Export directory (new/deep) does not exist. Creating..."])
        self.assertRefused("^Cannot make w.pt/m.mar: ", export_path="w.pt")

    def test_exists(self) -> None:
        """Nothing is replaced without ``--force``, with the predecessor's hint."""
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
        """The predecessor emptied ``<tmp>/<model name>``; nobody loses anything here."""
        precious = self.write("tmp/m/precious.txt")
        with mock.patch.dict(os.environ, {"TMPDIR": str(self.root / "tmp")}), mock.patch("tempfile.tempdir", None):
            self.pack()
        self.assertTrue(precious.exists())

    def test_disk_full(self) -> None:
        """A disk that gets full is told of, and leaves nothing."""
        (self.root / "out").mkdir()
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for form in FORMATS:
            with mock.patch("twisted_serve.archiver.writing.write_form", side_effect=full):
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
        """A model directory that cannot be replaced stays what it was."""
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
        """Of two who make one archive without ``--force``, the second is refused, however late it learns of it."""
        for form in ("default", "no-archive"):
            planned = packing.plan(self.config(archive_format=form), {})
            self.pack(archive_format=form)
            error = self.assertRaises(ArchiverError, writing.write, planned)
            self.assertIn("already exists", str(error))
        planned = packing.plan(self.config(model_name="n"), {})
        real = publishing.give_name

        def too_late(written: Path, target: Path) -> None:
            target.write_bytes(b"theirs")
            real(written, target)

        with mock.patch("twisted_serve.archiver.writing.give_name", too_late):
            self.assertRaises(ArchiverError, writing.write, planned)
        self.assertEqual((self.root / "out/n.mar").read_bytes(), b"theirs")
        self.assertEqual(self.left(), ["m", "m.mar", "n.mar"])


class PredecessorsNamesTests(ArchiverTestCase):
    """What scripts for ``model_archiver`` call."""

    def test_class(self) -> None:
        """``ModelArchiver.generate_model_archive(config)``."""
        ModelArchiver.generate_model_archive(self.config())
        self.assertTrue((self.root / "out/m.mar").exists())
        self.assertRaises(ModelArchiverError, generate_model_archive, self.config())

    def test_positional(self) -> None:
        """The fields have the predecessor's order and defaults."""
        config = ModelArchiverConfig("m", "src/handler", "1", "w.pt", "src/model.py", "extra")
        self.assertEqual((config.runtime, config.export_path, config.archive_format), ("python", self.root, "default"))
        self.assertEqual((config.force, config.requirements_file, config.config_file), (False, None, None))
        self.assertEqual(config.extra_files, ("extra",))


@st.composite
def models(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Build what the archiver is told of a model, and the model's files by name."""
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
        "version": draw(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=10)),
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
    """What the archiver packs, the server reads."""

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
