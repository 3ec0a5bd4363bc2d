# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.subcommands.dev.reloading`: the server is real, in memory, with fake workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archiver.config import ModelArchiverConfig
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.subcommands.dev.project import Project
from twisted_serve.subcommands.dev.reloading import INTERVAL, DevServer
from twisted_serve.testing.answers import Answer
from twisted_serve.testing.server import MemoryServer


class MemoryDevServer(MemoryServer):
    """A server in memory that loads a project again, and what its author is told."""

    def __init__(self, project: Project, **said: Any) -> None:
        self.project = project
        self.told: list[str] = []
        super().__init__(**said)

    def _start(self) -> None:
        super()._start()
        self.server.stopService()
        self.dev = DevServer(
            self.server,
            self.clock,
            self.project,
            self.directory / "laid_out",
            2,
            lambda server: self.told.append("ready"),
            self.told.append,
            _directly,
        )
        self.dev.startService()

    def laid_out(self) -> list[str]:
        return sorted(os.listdir(self.directory / "laid_out"))


def _directly(work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
    return maybeDeferred(work, *args)


class ReloadingTests(SynchronousTestCase):
    """Tests for loading a model again."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)
        self.written = 0
        self.write("handler.py", "import one\ndef handle(data, context): pass\n")
        self.write("one.py", "")

    def write(self, name: str, text: str) -> None:
        path = self.place / name
        path.write_text(text)
        # Writes of one test may have the same time.
        self.written += 1
        os.utime(path, ns=(self.written, self.written))

    def start(self, handler: str = "handler.py", **said: Any) -> MemoryDevServer:
        server = MemoryDevServer(Project(ModelArchiverConfig("m", self.place / handler)), **said)
        self.addCleanup(server.close)
        return server

    def settle(self, server: MemoryDevServer) -> list[str]:
        """Let the server see changes, and return what the author was told meanwhile."""
        server.told.clear()
        for _ in range(4):
            server.advance(INTERVAL)
        return list(server.told)

    def ask(self, server: MemoryDevServer) -> Answer:
        return server.request("POST", "/predictions/m", server.key(TokenKind.INFERENCE), body=b"x")

    def test_ready(self) -> None:
        """The author is told when the first version has its workers."""
        server = self.start()
        self.assertEqual(server.told, [f"Loading {self.place / 'handler.py'}.", "ready"])
        self.assertEqual(len(server.provider.alive), 2)
        self.assertEqual(self.ask(server).status, 200)
        self.assertEqual(self.settle(server), [])
        self.assertNoResult(server.dev.ready)

    def test_changed(self) -> None:
        """A change of any file of the model is served by new workers, and nothing of the old version stays."""
        server = self.start()
        for version, name in ((2, "handler.py"), (3, "one.py")):
            self.write(name, "def handle(data, context): return 1\nimport one\n" if version == 2 else "x = 1")
            self.assertEqual(self.settle(server), [f"{name} has changed: loading.", f"Version {version} answers."])
            self.assertEqual(self.ask(server).status, 200)
            self.assertEqual([worker.spec.load.model_version for worker in server.provider.alive], [str(version)] * 2)
            self.assertEqual(server.laid_out(), [str(version)])

    def test_old_answers_meanwhile(self) -> None:
        """The old workers answer until the new ones are loaded, and finish what they have accepted."""
        server = self.start()
        server.provider.load_delay = 5.0
        self.write("one.py", "x = 1")
        self.settle(server)
        self.assertEqual(self.ask(server).status, 200)
        old = server.provider.workers[:2]
        for worker in old:
            worker.holding = True
        waiting = [server.send("POST", "/predictions/m", server.key(TokenKind.INFERENCE), body=b"x") for _ in range(5)]
        server.advance(5.0)
        self.assertEqual(server.told[-1], "Version 2 answers.")
        self.assertEqual([worker.alive for worker in old], [True, True])
        for _ in range(3):
            for worker in old:
                worker.answer()
        self.assertEqual([server.answered(answer).status for answer in waiting], [200] * 5)
        self.assertEqual([worker.alive for worker in old], [False, False])
        self.assertEqual(self.ask(server).status, 200)

    def test_broken(self) -> None:
        """A version that does not load leaves the one before serving, and is tried again when a file changes."""
        server = self.start()
        server.provider.load_error = WorkerFailed(500, "ImportError: no (one.py, line 1)")
        self.write("one.py", "1 / 0")
        told = self.settle(server)
        self.assertEqual(told[0], "one.py has changed: loading.")
        self.assertIn("ImportError: no (one.py, line 1)", told[1])
        self.assertEqual(told[2], "Version 1 goes on answering; the next change is tried.")
        self.assertEqual(self.ask(server).status, 200)
        self.assertEqual((self.settle(server), server.laid_out()), ([], ["1"]))
        server.provider.load_error = None
        self.write("one.py", "x = 2")
        self.assertEqual(self.settle(server)[-1], "Version 3 answers.")

    def test_not_python(self) -> None:
        """A handler that is not Python, or gone, is reported without starting a worker."""
        server = self.start()
        self.write("handler.py", "def (")
        told = self.settle(server)
        self.assertRegex(told[1], r"The handler .*handler\.py is not valid Python: invalid syntax \(line 1\)\.")
        os.unlink(self.place / "handler.py")
        self.assertRegex(self.settle(server)[1], "File does not exist: .*handler.py")
        self.assertEqual(len(server.provider.workers), 2)
        self.write("handler.py", "def handle(data, context): pass")
        self.assertEqual(self.settle(server)[-1], "Version 4 answers.")

    def test_first_broken(self) -> None:
        """A first version that does not load is waited for; a module that it lacks may appear."""
        provider_error = WorkerFailed(500, "ModuleNotFoundError: No module named 'two' (one.py, line 1)")

        class Failing(MemoryDevServer):
            def _start(self) -> None:
                self.provider.load_error = provider_error
                super()._start()

        server = Failing(Project(ModelArchiverConfig("m", self.place / "handler.py")))
        self.addCleanup(server.close)
        self.assertIn("No module named 'two'", server.told[1])
        self.assertEqual(server.told[2:], ["Nothing answers yet; the next change is tried."])
        self.assertEqual(self.ask(server).status, 404)
        server.provider.load_error = None
        self.write("two.py", "")
        self.assertEqual(self.settle(server)[-1], "ready")

    def test_called_at_load(self) -> None:
        """An author who does not know that a function is called with None is told."""
        server = self.start()
        server.provider.load_error = WorkerFailed(500, "TypeError: 'NoneType' object is not iterable")
        self.write("one.py", "1")
        self.assertIn("if data is None: return", self.settle(server)[2])

    def test_stopped_meanwhile(self) -> None:
        """A server that is stopped while it loads ends the new workers, tells nothing, and leaves nothing."""
        server = self.start()
        server.provider.load_delay = None
        self.write("one.py", "x = 1")
        self.settle(server)
        self.assertEqual(len(server.provider.alive), 4)
        server.told.clear()
        stopped = server.dev.stopService()
        server.advance(1.0)
        self.successResultOf(stopped)
        self.assertEqual((server.provider.alive, server.told), ([], []))
        self.write("one.py", "x = 2")
        self.assertEqual(self.settle(server), [])
        self.assertEqual(server.clock.getDelayedCalls(), [])
