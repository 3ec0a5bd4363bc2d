# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archiver`: from a configuration to an archive that the server reads."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

from tests.archiver.archiver_case import ArchiverTestCase, opened
from twisted_serve import __version__
from twisted_serve.archiver.config import FORMATS, ArchiverError
from twisted_serve.archiver.handlers import BUILT_IN, HandlerName
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.unpack import unpack
from twisted_serve.backend.ts.names import BUILT_IN_HANDLERS


class FormsTests(ArchiverTestCase):
    """Tests for the contents of an archive in each format."""

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
        """The manifest has TorchServe's fields in its order."""
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
        """Everything in a tar is below a directory with the model's name, which TorchServe removes."""
        data = gzip.decompress(self.pack(archive_format="tgz").read_bytes())
        self.assertIn(b"m/MAR-INF/MANIFEST.json\0", data)
        self.assertIn(b"m/handler.py\0", data)


class HandlerTests(ArchiverTestCase):
    """Tests for resolving a handler's name to a file."""

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
    """Tests for the files to pack."""

    def test_extra_files(self) -> None:
        """Files, contents of directories, and matches of globs are packed; blanks and tools' directories are not."""
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
        """A directory or pipe cannot be the weights, and a pipe does not block."""
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
        """A name that the server refuses to unpack, or that is reserved for the manifest, is refused."""
        self.write("odd/a\\b")
        self.assertRefused("unsafe name", extra_files="odd")
        self.write("mar/MAR-INF/MANIFEST.json", b"{}")
        self.assertRefused("where its manifest is", extra_files="mar")

    def test_too_many(self) -> None:
        """More files than the server unpacks are refused."""
        with mock.patch("twisted_serve.archiver.contents._MAX_FILES", 3):
            self.assertRefused("^More than 3 files and directories.$", extra_files="extra")


class ChecksTests(ArchiverTestCase):
    """Tests for the checks before anything is written."""

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

    def test_weights_as_model_file(self) -> None:
        """A model file that is no Python file is packed as it is."""
        self.write("pytorch_model.bin", b"\x80\x02weights(")
        self.assertEqual(self.names(model_file="pytorch_model.bin"), ["handler.py", "pytorch_model.bin"])
        self.assertEqual(self.warnings, [])

    def test_other_pythons(self) -> None:
        """What another version of Python may read is packed, with a warning; its functions are not looked for."""
        for content in (b"print 'hello'\n", b"async = 1\n", b"def run(d, c): pass\nexec 'x' in {}\n"):
            self.warnings.clear()
            self.write("src/odd.py", content)
            self.assertEqual(self.names(handler="src/odd.py:run"), ["odd.py"])
            self.assertEqual(self.names(model_file="src/odd.py"), ["handler.py", "odd.py"])
            self.assertEqual(len(self.warnings), 2, self.warnings)
            self.assertRegex(
                self.warnings[0], r"^The handler src/odd.py is not valid Python [0-9.]+: .* \(line [0-9]+\)"
            )
            self.assertRegex(self.warnings[1], "^The model file src/odd.py is not valid Python")

    def test_one_name(self) -> None:
        """
        Of two files with one name, --force selects the one with its own flag; otherwise both are named in the error.
        """
        self.write("ap/w.pt", b"others")
        self.write("more/w.pt", b"more")
        for extra in ("w.pt", "."):
            text = r"^ap/w.pt and w.pt would both be w.pt in the archive"
            self.assertRefused(text, serialized_file="ap/w.pt", extra_files=extra)
            path = self.pack(serialized_file="ap/w.pt", extra_files=[extra], force=True)
            place = Path(tempfile.mkdtemp())
            self.addCleanup(shutil.rmtree, place)
            self.assertEqual(opened(path, place)[1]["w.pt"], b"others")
            self.assertEqual(self.warnings[0], "w.pt is left out: ap/w.pt is w.pt in the archive.")
            self.warnings.clear()
        # Two of extra_files, or two with flags: nothing says which is meant.
        self.assertRefused("would both be w.pt", extra_files="w.pt,more/w.pt", force=True)
        self.assertRefused("would both be w.pt", serialized_file="w.pt", model_file="ap/w.pt", force=True)
        self.assertRefused(
            "File does not exist: gone/w.pt", serialized_file="w.pt", extra_files="gone/w.pt", force=True
        )

    def test_missing_modules(self) -> None:
        """Local modules that are imported and not packed are named; those of others are not."""
        self.write("src/utils.py", b"import helper\n")
        self.write("src/helper.py")
        self.write("src/pkg/__init__.py")
        self.write("src/pkg/text.py", b"from . import vocab\n")
        self.write("src/pkg/vocab.py")
        self.write("beside.py")
        self.write("src/json.py")
        for source, extra, modules in (
            ("import utils", (), ["utils"]),
            ("from utils import x", (), ["utils"]),
            ("def f():\n import utils as u, beside", (), ["utils", "beside"]),
            ("import utils", ("src/utils.py",), ["helper"]),
            ("import utils", ("src/utils.py", "src/helper.py"), []),
            ("from pkg import text", (), ["pkg"]),
            ("from pkg import text", ("src/pkg",), ["pkg"]),
            ("from pkg.text import f", ("src",), []),
            ("import src.utils", (), ["src.utils"]),
            ("from . import helper", (), ["helper"]),
            ("import os, json, torch, numpy.linalg, ts.torch_handler, nowhere", (), []),
            ("from os import path; from nowhere import *", (), []),
        ):
            with self.subTest(source, extra=extra):
                self.warnings.clear()
                self.write("src/handler.py", source.encode())
                self.names(extra_files=extra)
                found = [warning.split(" imports ")[1].split(",")[0] for warning in self.warnings]
                self.assertEqual(found, modules)
        self.write("src/handler.py", b"import utils")
        self.warnings.clear()
        self.names()
        self.assertEqual(
            self.warnings,
            [
                "src/handler.py imports utils, which is a local module (src/utils.py) and not in the archive; "
                "--extra-files packs it."
            ],
        )

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
            {"runtime": "java"},
            {"archive_format": "rar"},
        ):
            [(name, value)] = said.items()
            self.assertRefused(re.escape(f"{name.replace('_', ' ')} is {value!r}, expected"), **said)

    def test_versions(self) -> None:
        """A version that no server would take is refused with the reason."""
        for version, flaw in (
            ("", "it has 0 characters"),
            ("1\n", "U+000A"),
            ("1/2", "contains '/'"),
            ("all", "paths"),
        ):
            self.assertRefused(re.escape(f"The version is {version!r}: ") + f".*{re.escape(flaw)}", version=version)
