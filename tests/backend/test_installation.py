# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.installation`, with the steps that do not end the process of the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.backend import installation
from twisted_serve.wire.held_back import held_back


class InstallTests(SynchronousTestCase):
    """Becoming pip."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)
        self.addCleanup(os.chdir, os.getcwd())
        self.patch(sys, "argv", sys.argv)

    def run_pip(self, target: Path | None) -> list[str]:
        # Looking for pip in earnest has setuptools take its distutils back, for the rest of this process (before 3.12):
        # torch's compiler, in another test, could not import setuptools then.
        with mock.patch("runpy.run_module") as run, mock.patch.object(installation, "find_spec"):
            self.assertEqual(installation.install(Path("/r.txt"), self.place, target), 0)
        run.assert_called_once_with("pip", run_name="__main__", alter_sys=True)
        self.assertEqual(Path.cwd(), self.place.resolve())
        return sys.argv

    def test_words(self) -> None:
        """Pip upgrades, asks nothing, and takes what is relative to the model's directory."""
        words = self.run_pip(Path("/t"))
        self.assertEqual(words[:4], ["pip", "install", "--upgrade", "--no-input"])
        self.assertEqual(words[-2:], ["--target=/t", "--requirement=/r.txt"])
        self.assertIn("--upgrade-strategy=only-if-needed", self.run_pip(None))

    def test_no_pip(self) -> None:
        """Without a pip the reason is plain."""
        with mock.patch.object(installation, "find_spec", return_value=None), mock.patch("sys.stderr") as stderr:
            self.assertEqual(installation.install(Path("/r.txt"), self.place, None), 1)
        stderr.write.assert_called_once_with(f"There is no pip for {sys.executable}.\n")


@pytest.mark.integration
def test_venv(tmp_path: Path) -> None:
    """An environment sees what the server's interpreter sees, and what it has itself first."""
    python = installation.make_venv(tmp_path / "venv")
    [own] = (tmp_path / "venv").glob("lib/python*/site-packages")
    (own / "attrs.py").write_text("")
    program = "import attrs, sys, twisted; print(attrs.__file__, twisted.__file__, sys.prefix, sep='\\n')"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(python), "-c", program]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    import twisted

    assert done.stdout.split() == [str(own / "attrs.py"), twisted.__file__, str(tmp_path / "venv")]


@pytest.mark.integration
def test_orphan(tmp_path: Path) -> None:
    """Without the server that started it, nothing is done."""
    words = ["--parent", "1", "--model-dir", str(tmp_path), "--venv", str(tmp_path / "venv")]
    command = [sys.executable, "-m", "twisted_serve.backend.installation", *words]
    assert subprocess.run(command, timeout=60, check=False).returncode == 1
    assert not (tmp_path / "venv").exists()


@pytest.mark.integration
def test_signals(tmp_path: Path) -> None:
    """Signals that do not end the server do not end an installation, from its start on."""
    words = ["--parent", str(os.getpid()), "--model-dir", str(tmp_path), "--venv", str(tmp_path / "venv")]
    with held_back():
        command = [sys.executable, "-m", "twisted_serve.backend.installation", *words]
        installing = subprocess.Popen(command)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        installing.send_signal(number)
    while not (tmp_path / "venv").exists() and installing.poll() is None:
        time.sleep(0.01)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        installing.send_signal(number)
    assert installing.wait(60) == 0
    assert (tmp_path / "venv" / "bin" / "python").exists()
