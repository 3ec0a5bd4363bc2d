# SPDX-License-Identifier: Apache-2.0
"""
Tests for `twisted_serve.workers.packages`.

With a real pip it is in ``tests/integration/test_installation.py``.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.errors import InternalError, InvalidModel, NotInstalled, ServiceUnavailable
from twisted_serve.models.installation import IInstaller, Installed
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.testing.processes import NO_PID, MemoryProcess, ProcessReactor
from twisted_serve.workers.packages import Installer, Needs

LIMIT = 60.0


class InstallerTestCase(SynchronousTestCase):
    """A test with an installer whose processes end when they are told to."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.model_dir = self.root / "model"
        self.model_dir.mkdir()
        (self.model_dir / "r.txt").write_text("six")
        self.reactor = ProcessReactor()
        reactor: Any = self.reactor
        self.installer = Installer(reactor, self.root, "/bin/python3", {"PATH": "/bin"}, LIMIT, maybeDeferred)
        self.killed: list[tuple[int, int]] = []
        patched = mock.patch("os.killpg", lambda pid, number: self.killed.append((pid, number)))
        patched.start()
        self.addCleanup(patched.stop)

    def model(self, requirements: str | None = "r.txt", venv: bool | None = None) -> ModelVersion:
        return ModelVersion(
            "m", "1.0", "m.mar", self.model_dir, Manifest(requirements_file=requirements),
            ModelConfig(use_venv=venv), "h.py", ModelSettings(),
        )  # fmt: skip

    def installing(self, **model: Any) -> Deferred[Installed | None]:
        return Deferred.fromCoroutine(self.installer.install(self.model(**model)))

    @property
    def child(self) -> MemoryProcess:
        return self.reactor.children[-1]

    def left(self) -> list[str]:
        return [path.name for path in (self.root / "packages").glob("*/*")]

    def assertFailed(self, installing: Deferred[Installed | None], reason: str) -> None:
        error = self.failureResultOf(installing, NotInstalled).value
        self.assertEqual((error.status, error.kind), (400, "ModelException"))
        self.assertEqual(error.message, "Custom pip package installation failed for model m")
        self.assertEqual(error.reason, reason)
        self.assertEqual(self.left(), [])


class NeedsTests(InstallerTestCase):
    """The needs of models."""

    def test_needs(self) -> None:
        """A requirements file, an environment, both, or neither."""
        path = self.model_dir / "r.txt"
        self.assertIsNone(Needs.of(self.model(None)))
        self.assertIsNone(Needs.of(self.model(None, False)))
        self.assertEqual(Needs.of(self.model()), Needs(path, False))
        self.assertEqual(Needs.of(self.model(None, True)), Needs(None, True))
        self.assertEqual(Needs.of(self.model(venv=True)), Needs(path, True))

    def test_bad_files(self) -> None:
        """A file that is missing, or outside the model's directory, is refused before anything is started."""
        (self.root / "outside.txt").write_text("six")
        (self.model_dir / "link.txt").symlink_to(self.root / "outside.txt")
        (self.model_dir / "dir.txt").mkdir()
        for name, text in (
            ("../outside.txt", "not inside the model directory"),
            (str(self.root / "outside.txt"), "not inside the model directory"),
            ("link.txt", "not inside the model directory"),
        ):
            error = self.failureResultOf(self.installing(requirements=name), InvalidModel).value
            self.assertIn(text, error.message)
            self.assertIn(repr(name), error.message)
        for name in ("gone.txt", "dir.txt"):
            reason = f"Manifest entry requirementsFile is {name!r}, and there is no such file."
            self.assertFailed(self.installing(requirements=name), reason)
        self.assertEqual(self.reactor.children, [])

    def test_nothing(self) -> None:
        """A model without needs starts no installation."""
        self.assertIsNone(self.successResultOf(self.installing(requirements=None)))
        self.assertEqual(self.reactor.children, [])


class InstallingTests(InstallerTestCase):
    """The outcome of an installation."""

    def test_interface(self) -> None:
        """The installer has all that the registrar calls."""
        verifyObject(IInstaller, self.installer)

    def test_packages(self) -> None:
        """Packages go to a directory of this registration alone; pip's temporary files are removed."""
        installing = self.installing()
        place = Path(self.child.path).parent
        self.assertEqual(place.parent, self.root / "packages")
        self.assertEqual(self.child.words[:3], ["/bin/python3", "-m", "twisted_serve.backend.installation"])
        self.assertEqual(
            self.child.words[3:],
            ["--parent", str(os.getpid()), "--model-dir", str(self.model_dir), "--target", str(place / "packages"),
             "--requirements", str(self.model_dir / "r.txt")],
        )  # fmt: skip
        self.assertEqual(self.child.environment["TMPDIR"], str(place / "tmp"))
        self.assertEqual(self.child.environment.keys() - {"PYTHONPATH"}, {"PATH", "TMPDIR"})
        with capturedLogs() as events:
            self.child.process.outReceived(b"Collecting six\n")
            self.child.end()
        installed = self.successResultOf(installing)
        assert installed is not None
        self.assertEqual((installed.place, installed.python), (place, None))
        self.assertEqual(installed.packages, place / "packages")
        self.assertFalse((place / "tmp").exists())
        self.assertEqual((events[0]["line"], events[0]["logger_name"]), ("Collecting six", "MODEL_LOG"))
        self.assertEqual(events[0]["thread_name"], "pip-m_1.0-stdout")
        self.successResultOf(Deferred.fromCoroutine(self.installer.remove(installed)))
        self.assertEqual(list((self.root / "packages").iterdir()), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_venv(self) -> None:
        """A model without requirements can have a virtual environment, too."""
        installing = self.installing(requirements=None, venv=True)
        self.assertNotIn("--requirements", self.child.words)
        self.child.end()
        installed = self.successResultOf(installing)
        assert installed is not None
        self.assertEqual((installed.python, installed.packages), (str(installed.place / "venv/bin/python"), None))

    def test_failure(self) -> None:
        """A failure has the last lines of pip's output, of both streams and in their order, each of bounded length."""
        installing = self.installing()
        for number in range(8):
            self.child.process.outReceived(b"line %d\n\n" % number)
        self.child.process.errReceived(b"ERROR: " + b"x" * 1000 + b"\nunfinished")
        self.child.end(1)
        lines = [f"line {number}" for number in range(8)]
        self.assertFailed(installing, "\n".join([*lines, f"ERROR: {'x' * 293}", "unfinished"]))

    def test_silent_failure(self) -> None:
        """A failure without output has the exit status."""
        installing = self.installing()
        self.child.end(None, signal.SIGKILL)
        self.assertFailed(installing, "it was ended by SIGKILL")

    def test_too_slow(self) -> None:
        """After the timeout the whole process group is killed, and then the directory is removed."""
        installing = self.installing()
        self.reactor.advance(LIMIT - 1)
        self.assertNoResult(installing)
        self.reactor.advance(1)
        self.assertEqual((self.killed, self.child.signals), ([(NO_PID, signal.SIGKILL)], ["KILL"]))
        self.assertNotEqual(self.left(), [])
        self.child.end(None, signal.SIGKILL)
        self.assertFailed(installing, "It took more than 60 seconds.")

    def test_cancelled(self) -> None:
        """Cancelling ends the wait immediately and the installation soon."""
        installing = self.installing()
        installing.cancel()
        self.failureResultOf(installing, CancelledError)
        self.assertEqual(self.killed, [(NO_PID, signal.SIGKILL)])
        self.child.end(None, signal.SIGKILL)
        self.assertEqual(self.left(), [])

    def test_output_held_open(self) -> None:
        """A process that pip has started and that runs on does not delay the registration."""
        installing = self.installing()
        self.child.holds_output = True
        self.child.end()
        self.assertNoResult(installing)
        self.reactor.advance(2)
        self.assertIsNotNone(self.successResultOf(installing))

    def test_killed_when_gone(self) -> None:
        """A reaped process is not killed: its id may be another's."""
        installing = self.installing()
        self.child.holds_output = True
        self.child.end()
        installing.cancel()
        self.failureResultOf(installing, CancelledError)
        self.assertEqual((self.killed, self.child.signals), ([], []))
        self.reactor.advance(2)
        self.assertEqual(self.left(), [])

    def test_cannot_start(self) -> None:
        """A failure to start a process or to make a directory is reported."""
        self.reactor.refuses = True
        self.assertFailed(self.installing(), "It could not be started: no more processes")
        (self.root / "packages").rmdir()
        (self.root / "packages").write_text("in the way")
        self.failureResultOf(self.installing(), InternalError)

    def test_disk_full(self) -> None:
        """A disk that is full before pip starts is reported, and nothing stays."""
        mkdir = Path.mkdir

        # Python 3.10's pathlib has os.mkdir from its import on: a patch of that goes unnoticed.
        def full(path: Path, *args: Any, **options: Any) -> None:
            if path.name == "tmp":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            mkdir(path, *args, **options)

        with mock.patch.object(Path, "mkdir", full):
            error = self.failureResultOf(self.installing(), InternalError).value
        self.assertEqual(error.reason, "No space left on device")
        self.assertEqual(list((self.root / "packages").iterdir()), [])

    def test_stop(self) -> None:
        """Stopping kills running installations, waits for their end, and starts no new ones."""
        two = [self.installing(), self.installing()]
        stopping = Deferred.fromCoroutine(self.installer.stop())
        self.assertEqual(len(self.killed), 2)
        for child in self.reactor.children:
            self.assertNoResult(stopping)
            child.end(None, signal.SIGKILL)
        self.successResultOf(stopping)
        for each in two:
            self.failureResultOf(each, NotInstalled)
        self.failureResultOf(self.installing(), ServiceUnavailable)
        self.assertEqual(self.left(), [])
