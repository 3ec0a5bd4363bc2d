# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.service`: the models that a server loads when it starts."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, capturedLogs

from tests.service_case import ServiceTestCase
from twisted_serve.service import ModelServer


class LoadingTests(ServiceTestCase):
    """Tests for start-up models, and for stopping while they are being loaded."""

    def names(self, server: ModelServer) -> list[str]:
        assert server._parts is not None
        return [model.name for model, _pool in server._parts.catalogue]

    def test_ready(self) -> None:
        """It is ready when each model has its workers, or has failed to get them."""
        self.model("m")
        self.model("n")
        self.provider.load_delay = 5
        server = self.server(load_models="m,absent,n")
        server.startService()
        self.assertEqual(self.names(server), ["m", "n"])
        self.assertNoResult(server.ready)
        self.provider.workers[0].fail_to_load(self.no_luck())
        self.assertNoResult(server.ready)
        self.clock.advance(5)
        self.successResultOf(server.ready)
        self.stop(server)

    def no_luck(self) -> Any:
        from twisted_serve.errors import WorkerFailed

        return WorkerFailed(500, "No luck.")

    def test_all(self) -> None:
        """With ``all``, every model of the store is loaded."""
        for name in ("m", "n"):
            self.model(name)
        server = self.server(load_models="all")
        server.startService()
        self.assertEqual(self.names(server), ["m", "n"])
        self.stop(server)

    def test_no_store(self) -> None:
        """A store that is not there is an error in the log; the server serves without models."""
        server = self.server(load_models="all", model_store=self.directory / "absent")
        with capturedLogs() as events:
            server.startService()
        self.successResultOf(server.ready)
        self.assertEqual(len([event for event in events if event["log_level"] is LogLevel.critical]), 1)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.stop(server)

    def test_stop_while_workers_load(self) -> None:
        """Workers that are still loading are ended, and it is as ready as it will ever be."""
        self.provider.load_delay = None
        server = self.server(load_models=self.model("m"))
        server.startService()
        self.assertNoResult(server.ready)
        self.stop(server)
        self.successResultOf(server.ready)

    def test_stop_while_opening(self) -> None:
        """What a thread is doing for a model is waited for; nothing it has made stays, and no model comes after it."""
        names = ",".join((self.archive("m"), self.model("n")))
        for steps in range(3):
            self.threads.holding = True
            server = self.server(load_models=names)
            server.startService()
            self.threads.work(steps)
            started = len(self.provider.workers)
            stopping = server.stopService()
            self.threads.work()
            self.successResultOf(stopping)
            self.successResultOf(server.ready)
            self.assertNothingLeft()
            self.assertEqual(len(self.provider.workers), started)

    def test_stop_while_unpacking(self) -> None:
        """A thread that unpacks is waited for: it might go on to write where all has been removed."""
        self.threads.holding = True
        server = self.server(load_models=self.archive("m"))
        server.startService()
        # It has been found, and read for what it is.
        self.threads.work(2)
        stopping = server.stopService()
        self.assertNoResult(stopping)
        self.threads.work()
        self.successResultOf(stopping)
        self.assertNothingLeft()

    def test_stop_while_scanning(self) -> None:
        """The same for the list of all models."""
        self.model("m")
        self.threads.holding = True
        server = self.server(load_models="all")
        server.startService()
        stopping = server.stopService()
        self.assertNoResult(stopping)
        self.threads.work()
        self.successResultOf(stopping)
        self.successResultOf(server.ready)
        self.assertEqual(self.provider.workers, [])
        self.assertNothingLeft()

    def test_restart_while_stopping(self) -> None:
        """A start before the last stop is complete is a life of its own, with its own end of loading."""
        self.model("m")
        self.threads.holding = True
        server = self.server(load_models="all")
        server.startService()
        first, stopping = server.ready, server.stopService()
        server.startService()
        second = server.ready
        self.assertNoResult(first)
        self.threads.work()
        for fired in (first, stopping, second):
            self.successResultOf(fired)
        self.assertEqual(self.names(server), ["m"])
        self.assertTrue((self.directory / "key_file.json").exists())
        self.threads.holding = False
        self.stop(server)
