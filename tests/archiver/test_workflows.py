# SPDX-License-Identifier: Apache-2.0
"""
Tests for `twisted_serve.archiver.workflows` and its command: from a configuration to an archive that the server reads.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve import __version__
from twisted_serve.archiver.config import ArchiverError
from twisted_serve.archiver.workflow_command import main, parser
from twisted_serve.archiver.workflows import WorkflowArchiverConfig, pack_workflow
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.unpack import unpack
from twisted_serve.workflows.archive import read_workflow

SPECIFICATION = "models: {m: {url: m.mar}}\ndag: {before: [m], m: [after]}\n"
HANDLER = "def before(data, context): pass\ndef after(data, context): pass\n"


class WorkflowArchiverTestCase(SynchronousTestCase):
    """A test with a workflow's files in a directory of the working directory."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory.name)
        for name, text in (("workflow.yaml", SPECIFICATION), ("functions.py", HANDLER), ("words.txt", "a b")):
            Path("src").mkdir(exist_ok=True)
            Path("src", name).write_text(text)
        self.warnings: list[str] = []

    def pack(self, **said: Any) -> Path:
        config = {"workflow_name": "w", "spec_file": "src/workflow.yaml", "handler": "src/functions.py", **said}
        return pack_workflow(WorkflowArchiverConfig(**config), {}, self.warnings.append)


class PackTests(WorkflowArchiverTestCase):
    """Tests for packing."""

    def test_read(self) -> None:
        """What is packed is what the server reads."""
        archive = self.pack(extra_files="src/words.txt", export_path="out")
        self.assertEqual(archive, Path("out/w.war"))
        unpack(archive, Path("unpacked"), UnpackLimits())
        workflow = read_workflow(Path("unpacked"))
        self.assertEqual(workflow.manifest.workflow_name, "w")
        self.assertEqual((workflow.manifest.spec_file, workflow.manifest.handler), ("workflow.yaml", "functions.py"))
        self.assertEqual(workflow.spec.functions, ("before", "after"))
        self.assertEqual(Path("unpacked/words.txt").read_text(), "a b")

    def test_manifest(self) -> None:
        """The manifest has TorchServe's members."""
        with zipfile.ZipFile(self.pack()) as archive:
            manifest = json.loads(archive.read("WAR-INF/MANIFEST.json"))
        self.assertEqual(
            manifest,
            {
                "createdOn": "01/01/1980 00:00:00",
                "workflow": {"workflowName": "w", "specFile": "workflow.yaml", "handler": "functions.py"},
                "archiverVersion": __version__,
            },
        )

    def test_reproducible(self) -> None:
        """The same files make the same bytes, whenever they were written."""
        first = self.pack().read_bytes()
        os.utime("src/functions.py", (1, 1))
        self.assertEqual(self.pack(force=True).read_bytes(), first)
        self.assertEqual(self.warnings, ["Overwriting " + str(Path.cwd() / "w.war") + " ..."])

    def test_without_handler(self) -> None:
        """A workflow of models alone needs no handler."""
        Path("src/workflow.yaml").write_text("models: {m: {url: m.mar}, spare: {url: n.mar}}\ndag: {m: []}\n")
        with zipfile.ZipFile(self.pack(handler=None)) as archive:
            self.assertEqual(archive.namelist(), ["WAR-INF/MANIFEST.json", "workflow.yaml"])
        self.assertEqual(self.warnings, ["The model spare is not in the dag of src/workflow.yaml."])

    def test_refused(self) -> None:
        """What would fail in the server fails here, with the reason, and nothing is left."""
        Path("src/none.yaml").write_text("dag: [")
        Path("src/cycle.yaml").write_text("dag: {s: [a], a: [b], b: [a]}")
        Path("src/broken.py").write_text("def (")
        Path("WAR-INF").mkdir()
        Path("WAR-INF/x").touch()
        for said, text in (
            ({"workflow_name": "../w"}, "The workflow name is '../w', expected letters"),
            ({"workflow_name": ""}, "The workflow name is '', expected letters"),
            ({"spec_file": "gone.yaml"}, "File does not exist: gone.yaml"),
            ({"spec_file": "src"}, "Not a file: src"),
            ({"spec_file": "src/none.yaml"}, r"src/none.yaml: Failed to parse yaml. \("),
            ({"spec_file": "src/cycle.yaml"}, r"Not a valid DAG \(a -> b -> a is a cycle\)"),
            ({"handler": "gone"}, "File does not exist: gone.py"),
            ({"handler": "src/broken"}, "The handler src/broken.py is not valid Python"),
            ({"handler": None}, "There is no handler, and these nodes need one: before, after."),
            ({"extra_files": "gone.txt"}, "File does not exist: gone.txt"),
            ({"extra_files": ["."]}, "WAR-INF/x would be WAR-INF/x in the archive, where its manifest is."),
            ({"export_path": "src/words.txt"}, "Cannot make src/words.txt/w.war"),
        ):
            with self.subTest(said):
                self.assertRaisesRegex(ArchiverError, text, self.pack, **said)
        Path("src/functions.py").write_text("def before(data, context): pass\n")
        self.assertRaisesRegex(ArchiverError, "The handler src/functions.py has no 'after'.", self.pack)
        self.assertEqual(list(Path().glob("**/*.war")) + list(Path().glob("**/.*.part")), [])

    def test_exists(self) -> None:
        """An archive that is there is replaced only if that is asked for."""
        Path("w.war").write_bytes(b"old")
        self.assertRaisesRegex(ArchiverError, "specify --force/-f option to overwrite the workflow archive", self.pack)
        self.assertEqual(Path("w.war").read_bytes(), b"old")
        self.pack(force=True)
        self.assertNotEqual(Path("w.war").read_bytes(), b"old")


class CommandTests(WorkflowArchiverTestCase):
    """Tests for running ``twisted-serve-workflow-archiver``."""

    def run_command(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(["--workflow-name", "w", "--spec-file", "src/workflow.yaml", *words])
            except SystemExit as e:
                status = int(e.code or 0)
        return status, out.getvalue(), err.getvalue()

    def test_packed(self) -> None:
        """What goes well names the archive and its size."""
        status, out, err = self.run_command("--handler", "src/functions", "--export-path", "src")
        size = Path("src/w.war").stat().st_size
        self.assertEqual((status, out, err), (0, f"src/w.war ({size} bytes)\n", ""))

    def test_dry_run(self) -> None:
        """``--dry-run`` lists what would go in, and writes nothing."""
        status, out, err = self.run_command("--handler", "src/functions.py", "--dry-run")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(out.splitlines()[0], str(Path.cwd() / "w.war"))
        self.assertEqual(os.listdir(), ["src"])

    def test_refused(self) -> None:
        """What cannot be packed ends with status 1 and one reason; a wrong command line with 2."""
        status, out, err = self.run_command()
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err, "Error: There is no handler, and these nodes need one: before, after.\n")
        self.assertEqual(self.run_command("--nonsense")[0], 2)

    def test_flags(self) -> None:
        """All flags of TorchServe are supported."""
        words = "--workflow-name w --spec-file s --handler h --extra-files a,b --export-path e -f"
        args = parser().parse_args(words.split())
        config = WorkflowArchiverConfig.from_args(args)
        self.assertEqual(config, WorkflowArchiverConfig("w", "s", "h", ("a", "b"), Path("e"), True))
