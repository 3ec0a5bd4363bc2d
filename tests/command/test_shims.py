# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.command.shims` and :mod:`twisted_serve.command.launching`.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NoReturn, cast

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve import cli, launcher
from twisted_serve.command import shims
from twisted_serve.command.launching import TORCHSERVE_WORD, passed_sockets, server_command
from twisted_serve.command.shims import COMMANDS


class ShimsTests(SynchronousTestCase):
    """Writing the commands of TorchServe."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name).resolve()
        self.bin = self.place / "a bin"
        self.patch(os, "environ", {"PATH": ""})

    def shims(self, *words: str) -> tuple[int, str, str]:
        """Run the command; return its status, stdout and stderr."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = shims.shims(words)
            except SystemExit as e:
                status = cast(int, e.code)
        return status, out.getvalue(), err.getvalue()

    def test_written(self) -> None:
        """Each is executable by everybody, and runs this interpreter; what was written is said."""
        self.addCleanup(os.umask, os.umask(0o077))
        status, out, err = self.shims(str(self.bin))
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(
            sorted(os.listdir(self.bin)), ["torch-model-archiver", "torch-workflow-archiver", "torchserve"]
        )
        for name in COMMANDS:
            self.assertEqual(stat.S_IMODE((self.bin / name).stat().st_mode), 0o755)
            self.assertIn(sys.executable, (self.bin / name).read_text())
            self.assertIn(f"{self.bin / name}: written, runs {sys.executable}\n", out)
        self.assertIn(f"put {self.bin} at its beginning", out)

    def test_again(self) -> None:
        """A second time nothing changes; those of another installation are replaced."""
        self.shims(str(self.bin))
        before = (self.bin / "torchserve").stat().st_ino
        status, out, _err = self.shims(str(self.bin))
        self.assertEqual((status, out.count("unchanged")), (0, 3))
        self.assertEqual((self.bin / "torchserve").stat().st_ino, before)
        self.patch(sys, "executable", "/another/bin/python")
        status, out, _err = self.shims(str(self.bin))
        self.assertEqual((status, out.count("replaced, runs /another/bin/python")), (0, 3))
        self.assertIn("exec /another/bin/python ", (self.bin / "torchserve").read_text())

    def test_path(self) -> None:
        """What the shell would find instead is said, and nothing if it finds ours."""
        (self.place / "other").mkdir()
        other = self.place / "other" / "torchserve"
        other.touch(0o755)
        os.environ["PATH"] = os.pathsep.join((str(other.parent), str(self.bin)))
        self.assertIn(f"PATH finds {other} first", self.shims(str(self.bin))[1])
        os.environ["PATH"] = os.pathsep.join((str(self.bin), str(other.parent)))
        self.assertNotIn("PATH", self.shims(str(self.bin))[1])

    def test_not_ours(self) -> None:
        """A file that is not ours stays, and none of the others is written, unless --force says so."""
        self.bin.mkdir()
        theirs = self.bin / "torch-workflow-archiver"
        theirs.write_text("#!/usr/bin/python3\n")
        status, out, err = self.shims(str(self.bin))
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(
            err, f"{theirs} is there already and was not written by twisted-serve shims; --force replaces it\n"
        )
        self.assertEqual(os.listdir(self.bin), [theirs.name])
        self.assertEqual(self.shims("--force", str(self.bin))[0], 0)
        self.assertIn(sys.executable, theirs.read_text())

    def test_links(self) -> None:
        """Nothing is written through a link, not even to a file of ours; --force replaces the link itself."""
        self.shims(str(self.place))
        ours = self.place / "torchserve"
        before = ours.read_bytes()
        self.patch(sys, "executable", "/another/bin/python")
        self.bin.mkdir()
        (self.bin / "torchserve").symlink_to(ours)
        self.assertEqual(self.shims(str(self.bin))[0], 1)
        self.assertEqual(self.shims(str(self.bin), "--force")[0], 0)
        self.assertEqual(ours.read_bytes(), before)
        self.assertFalse((self.bin / "torchserve").is_symlink())

    def test_not_writable(self) -> None:
        """A place where nothing can be written is named, also by a file or a directory in the way."""
        (self.place / "file").touch()
        status, out, err = self.shims(str(self.place / "file"))
        self.assertEqual((status, out), (1, ""))
        self.assertIn(str(self.place / "file"), err)
        (self.bin / "torchserve").mkdir(parents=True)
        status, out, err = self.shims(str(self.bin), "--force")
        self.assertEqual((status, out), (1, ""))
        self.assertIn(str(self.bin / "torchserve"), err)
        self.assertEqual(os.listdir(self.bin), ["torchserve"])

    def test_wrong(self) -> None:
        """A wrong command line is status 2."""
        status, out, err = self.shims()
        self.assertEqual((status, out), (2, ""))
        self.assertIn("usage: twisted-serve shims", err)


class TorchserveTests(SynchronousTestCase):
    """Being ``torchserve``."""

    def setUp(self) -> None:
        self.done: list[Sequence[str]] = []
        self.as_torchserve: list[bool] = []

        def execute(program: str, words: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
            self.done.append((program, *words))
            self.assertEqual(environ, {**os.environ, **passed_sockets()})
            raise SystemExit(0)

        def main(words: Sequence[str], *, as_torchserve: bool) -> int:
            self.done.append(words)
            self.as_torchserve.append(as_torchserve)
            return 4

        self.patch(os, "execve", execute)
        self.patch(launcher, "launch_or_stop", main)

    def test_background(self) -> None:
        """What does not serve itself goes on as twisted-serve: what is looked for is in one command line only."""
        for words in (["--start", "--model-store", "m"], ["--stop", "--foreground"], ["--version"], []):
            self.assertEqual(cli.main_as_torchserve(words), 4)
            self.assertEqual(self.done.pop(), words)
        self.assertEqual(self.as_torchserve, [True] * 4)

    def test_foreground(self) -> None:
        """A server in the foreground has the word in its command line, from the start and in the same process."""
        self.assertRaises(SystemExit, cli.main_as_torchserve, ["--foregr", "--models", "a=b c.mar", "$x"])
        program, *words = self.done.pop()
        self.assertEqual(program, sys.executable)
        self.assertEqual(words[0], sys.executable)
        self.assertEqual(words.count(TORCHSERVE_WORD), 1)
        self.assertEqual(words[-4:], ["--foregr", "--models", "a=b c.mar", "$x"])

    def test_server_command(self) -> None:
        """The server is our own interpreter's, with the same words; TorchServe's word is there only if asked for."""
        words = server_command(["--model-store", "m"])
        self.assertEqual(words[0], sys.executable)
        self.assertEqual(words[-5:], ["-m", "twisted_serve", "--foreground", "--model-store", "m"])
        self.assertNotIn(TORCHSERVE_WORD, words)
        self.assertEqual(server_command(["--foreground"]).count("--foreground"), 1)
