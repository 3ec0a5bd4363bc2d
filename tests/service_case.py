# SPDX-License-Identifier: Apache-2.0
"""What the tests of a server as a service share: its reactor, workers and threads in memory."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.threads import Threads
from twisted_serve.config.options import ServerOptions
from twisted_serve.service import Dependencies, ModelServer
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.testing.server import MemoryServeReactor


class ListeningReactor(MemoryServeReactor):
    """Knows what is listened at, and refuses some ports."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[int] = set()
        self.listening: set[int] = set()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if port in self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        listening = super().listenTCP(port, factory, backlog, interface)
        self.listening.add(port)

        def stop() -> None:
            self.listening.discard(port)

        listening.stopListening = stop
        return listening


class ServiceTestCase(SynchronousTestCase):
    """A server which is not started."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.store = self.directory / "models"
        self.store.mkdir()
        self.reactor = ListeningReactor()
        self.clock: Clock = self.reactor
        self.provider = FakeProvider(self.clock)
        self.threads = Threads()
        self.trimmed: list[float] = []

    def server(self, **options: Any) -> ModelServer:
        settings = ServerOptions(
            disable_system_metrics=True,
            **{
                "model_store": self.store,
                "token_key_file": self.directory / "key_file.json",
                "temp_directory": self.directory,
                "default_workers_per_model": 1,
                **options,
            },
        )
        dependencies = Dependencies(
            environ={},
            provider=self.provider,
            defer_to_thread=self.threads,
            trim_heap=lambda: self.trimmed.append(self.clock.seconds()),
        )
        return ModelServer(self.reactor, settings, dependencies)

    def model(self, name: str) -> str:
        """Put a model into the store."""
        (self.store / name / "MAR-INF").mkdir(parents=True)
        manifest = {"model": {"modelName": name, "modelVersion": "1.0", "handler": "handler.py"}}
        (self.store / name / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        (self.store / name / "handler.py").touch()
        return name

    def archive(self, name: str) -> str:
        """Put a model's archive into the store."""
        directory = self.directory / self.model(name)
        shutil.make_archive(str(directory), "zip", self.store / name)
        shutil.rmtree(self.store / name)
        directory.with_suffix(".zip").rename(self.store / f"{name}.mar")
        return f"{name}.mar"

    def assertNothingLeft(self) -> None:
        """There is no file, no listener, no timer, no trigger and no worker."""
        self.assertEqual([each.name for each in self.directory.iterdir()], ["models"])
        self.assertEqual(self.reactor.listening, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.reactor._shutdown, {})
        self.assertEqual(self.provider.alive, [])

    def stop(self, server: ModelServer) -> None:
        self.successResultOf(server.stopService())
        self.assertNothingLeft()
