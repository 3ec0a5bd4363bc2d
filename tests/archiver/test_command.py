# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archiver.command`."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archiver import model_archiver
from twisted_serve.archiver.command import main, parser
from twisted_serve.archives.manifest import read_manifest


class CommandTests(SynchronousTestCase):
    """Tests for running ``twisted-serve-archiver``."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory.name)
        Path("handler.py").write_text("def handle(data, context): pass\n")
        Path("w.pt").write_bytes(b"12345")

    def run_command(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(["--model-name", "m", "-v", "1.0", "--handler", "handler.py", *words])
            except SystemExit as e:
                status = int(e.code or 0)
        return status, out.getvalue(), err.getvalue()

    def test_success(self) -> None:
        """What goes well names the archive and its size; the archive is in the working directory."""
        status, out, err = self.run_command()
        archive = Path.cwd() / "m.mar"
        self.assertEqual((status, out, err), (0, f"{archive} ({archive.stat().st_size} bytes)\n", ""))
        for form in ("tgz", "no-archive"):
            out = self.run_command("--archive-format", form, "--serialized-file", "w.pt")[1]
            self.assertRegex(out, rf"^{Path.cwd()}/m(.tar.gz)? \([0-9]+ bytes\)\n$")
        self.assertEqual(
            sum(f.stat().st_size for f in Path("m").rglob("*") if f.is_file()), int(out.split("(")[1].split()[0])
        )

    def test_refused(self) -> None:
        """What cannot be packed ends with status 1 and one reason on stderr, and no traceback."""
        status, out, err = self.run_command("--serialized-file", "gone.pt")
        self.assertEqual((status, out, err), (1, "", "Error: File does not exist: gone.pt\n"))
        self.assertEqual(self.run_command("--model-name", "a b")[0], 1)
        self.assertEqual(sorted(os.listdir()), ["handler.py", "w.pt"])

    def test_default_version(self) -> None:
        """A model needs no version: it is 1.0, as of a manifest without one."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(
                main(["--model-name", "m", "--handler", "handler.py", "--archive-format", "no-archive"]), 0
            )
        self.assertEqual(read_manifest(Path("m")).model_version, "1.0")
        self.assertIn('"modelVersion": "1.0"', Path("m/MAR-INF/MANIFEST.json").read_text())

    def test_similar_handlers(self) -> None:
        """A handler that does not exist is answered with a similar one that does."""
        for said, meant in (
            ("image_classifer", "the built-in image_classifier"),
            ("hanlder.py", "handler.py"),
            ("./handle", "handler.py"),
            ("text-classifier.py", "the built-in text_classifier"),
            ("hanlder.py:handle", "handler.py"),
        ):
            status, out, err = self.run_command("--handler", said)
            self.assertEqual((status, out), (1, ""))
            self.assertTrue(err.endswith(f"; did you mean {meant}?\n"), err)
        self.assertEqual(self.run_command("--handler", "other")[2], "Error: File does not exist: other.py\n")
        self.assertEqual(self.run_command("--handler", "no/such/handler.py")[2].count("did you mean"), 0)

    def test_wrong_words(self) -> None:
        """An invalid command line exits with status 2."""
        for words in (["--runtime", "java"], ["--archive-format", "rar"], ["--nonsense"]):
            self.assertEqual(self.run_command(*words)[0], 2)
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(self.assertRaises(SystemExit, main, ["--model-name", "m"]).code, 2)

    def test_dry_run(self) -> None:
        """``--dry-run`` lists what would go in, and writes nothing."""
        status, out, err = self.run_command("--dry-run", "--serialized-file", "w.pt", "--export-path", "new")
        self.assertEqual((status, err), (0, ""))
        lines = [line.split() for line in out.splitlines()]
        self.assertEqual(lines[0], ["new/m.mar"])
        self.assertEqual(lines[1][1:], ["MAR-INF/MANIFEST.json", "(made)"])
        self.assertEqual(lines[2:], [["32", "handler.py", "handler.py"], ["5", "w.pt", "w.pt"]])
        self.assertEqual(sorted(os.listdir()), ["handler.py", "w.pt"])

    def test_dry_run_checks(self) -> None:
        """A dry run finds what the real one would."""
        Path("handler.py").write_text("def (")
        self.assertEqual(self.run_command("--dry-run")[0], 1)

    def test_flags(self) -> None:
        """All flags are TorchServe's, with its short forms and defaults."""
        args = parser().parse_args(["--model-name", "m", "--version", "1", "--handler", "h"])
        self.assertEqual((args.runtime, args.archive_format, args.force), ("python", "default", False))
        words = "--model-name m -v 1 --handler h --serialized-file s --model-file f --extra-files a,b --runtime python3"
        words += " --export-path e --archive-format tgz -f -r r.txt -c c.yaml"
        args = parser().parse_args(words.split())
        self.assertEqual((args.requirements_file, args.config_file, args.extra_files), ("r.txt", "c.yaml", "a,b"))

    def test_ended(self) -> None:
        """Who ends it with SIGTERM or Ctrl-C finds nothing half done."""
        before = signal.getsignal(signal.SIGTERM)

        def stopped(number: signal.Signals) -> None:
            def raise_signal(*args: object) -> None:
                signal.raise_signal(number)

            with mock.patch("twisted_serve.archiver.writing._publish", raise_signal):
                status, _out, _err = self.run_command("--export-path", "out")
            self.assertEqual(status, 128 + number)
            self.assertEqual(os.listdir("out"), [])

        for number in (signal.SIGTERM, signal.SIGINT):
            stopped(number)
        self.assertIs(signal.getsignal(signal.SIGTERM), before)

    def test_predecessors_entry(self) -> None:
        """``generate_model_archive()`` without a config is the command."""
        words = ["archiver", "--model-name", "m", "-v", "1", "--handler", "handler.py"]
        with mock.patch("sys.argv", words):
            self.assertEqual(self.assertRaises(SystemExit, model_archiver.generate_model_archive).code, 0)
        self.assertTrue(Path("m.mar").is_file())
