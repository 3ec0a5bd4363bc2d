# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.service`: the models that a server loads when it starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.service_case import ServiceTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import ServeError
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.startup import reason_of
from twisted_serve.service import ModelServer, StartupFailure, StartupOutcome
from twisted_serve.testing.server import MemoryServer


class LoadingTests(ServiceTestCase):
    """Tests for start-up models, and for stopping while they are being loaded."""

    def catalogue(self, server: ModelServer) -> Catalogue:
        assert server._tree is not None
        catalogue = server._tree.getServiceNamed("models").catalogue
        assert isinstance(catalogue, Catalogue)
        return catalogue

    def names(self, server: ModelServer) -> list[str]:
        return [model.name for model, _pool in self.catalogue(server)]

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
        outcome = self.successResultOf(server.ready)
        self.assertEqual((outcome.models, [failure.url for failure in outcome.failures]), (3, ["m", "absent"]))
        self.assertEqual(outcome.failures[0], StartupFailure("m", "m", "No luck.", registered=True))
        self.stop(server)

    def test_relative_paths(self) -> None:
        """Relative paths are relative to the working directory; workers, which have others, get absolute ones."""
        before = Path.cwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, before)
        names = f"{self.model('m')},{self.archive('n')}"
        options = {"model_store": "models", "token_key_file": "key_file.json", "temp_directory": "."}
        server = self.server(load_models=names, **options)
        server.startService()
        for model, _pool in self.catalogue(server):
            self.assertTrue(model.model_dir.is_absolute(), model.model_dir)
        self.assertEqual([model.location for model, _ in self.catalogue(server)], ["m", "n.mar"])
        self.stop(server)

    def test_all_is_well(self) -> None:
        """Without a failure there is nothing to tell."""
        server = self.server(load_models=self.model("m"))
        server.startService()
        outcome = self.successResultOf(server.ready)
        self.assertEqual((outcome, outcome.problem()), (StartupOutcome(1), None))
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
        """A store that is not there is an error in the log; the server serves without models, and is not ready."""
        absent = self.directory / "absent"
        server = self.server(load_models="all", model_store=absent)
        with capturedLogs() as events:
            server.startService()
        outcome = self.successResultOf(server.ready)
        reason = f"Model store path is not found: {absent}"
        self.assertEqual(outcome.failures, (StartupFailure(None, "all", reason),))
        self.assertEqual(len([event for event in events if event["log_level"] is LogLevel.critical]), 1)
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
        self.successResultOf(stopping)
        for ready in (first, second):
            self.successResultOf(ready)
        self.assertEqual(self.names(server), ["m"])
        self.assertTrue((self.directory / "key_file.json").exists())
        self.threads.holding = False
        self.stop(server)


class MissingTests(SynchronousTestCase):
    """A server without one of its start-up models says so, until the operator has seen to it."""

    def serve(self, load_models: str, **options: Any) -> MemoryServer:
        settings = {"load_models": load_models, "ts_open_inference_protocol": True, **options}
        server = MemoryServer(settings, models={"good": {}}, snapshots=True)
        self.addCleanup(server.close)
        return server

    def ready(self, server: MemoryServer) -> int:
        """Return the status of ``/readyz``; KServe's route says the same, and ``/livez`` is none the worse."""
        self.assertEqual(server.request("GET", "/livez").status, 200)
        answer = server.request("GET", "/readyz")
        key = server.key(TokenKind.INFERENCE)
        self.assertEqual(server.request("GET", "/v2/health/ready", key).status, answer.status)
        self.assertNotIn(b"gret", answer.body)
        return answer.status

    def manage(self, server: MemoryServer, method: str, path: str) -> int:
        return server.request(method, path, server.key(TokenKind.MANAGEMENT)).status

    def test_unready(self) -> None:
        """A misspelt archive beside a good one: the good one answers, ``/readyz`` says no, the outcome says why."""
        server = self.serve("good,greet=gret.mar")
        problem = self.successResultOf(server.server.ready).problem() or ""
        start = "1 of 2 start-up models failed: greet (gret.mar): Model not found at: gret.mar (there is no "
        self.assertTrue(problem.startswith(start), problem)
        self.assertEqual(self.ready(server), 503)
        answer = server.request("POST", "/predictions/good", server.key(TokenKind.INFERENCE), body=b"x")
        self.assertEqual(answer.status, 200)

    def test_ready_again(self) -> None:
        """It is ready when a model of that name is registered, whatever becomes of that; another one does not help."""
        server = self.serve("good,greet=gret.mar")
        server.add_model("other", {})
        self.assertEqual(self.manage(server, "POST", "/models?url=other"), 200)
        self.assertEqual(self.ready(server), 503)
        self.assertEqual(self.manage(server, "POST", "/models?url=nothing&model_name=greet"), 404)
        self.assertEqual(self.ready(server), 503)
        self.assertEqual(self.manage(server, "POST", "/models?url=other&model_name=greet&initial_workers=1"), 200)
        self.assertEqual(self.ready(server), 200)
        self.assertEqual(self.manage(server, "DELETE", "/models/greet"), 200)
        self.assertEqual(self.ready(server), 200)

    def test_mended(self) -> None:
        """Nor is it missing when its archive, mended, turns out to have another name."""
        server = self.serve("good,late")
        self.assertEqual(self.ready(server), 503)
        server.add_model(
            "late", {"MAR-INF/MANIFEST.json": '{"model": {"modelName": "other", "handler": "handler.py"}}'}
        )
        self.assertEqual(self.manage(server, "POST", "/models?url=late"), 200)
        self.assertEqual(self.ready(server), 200)

    def test_twice(self) -> None:
        """A model that is listed twice is a failure that is told of, and it is there."""
        server = self.serve("good,good")
        problem = "1 of 2 start-up models failed: good: Model version 1.0 is already registered for model good"
        self.assertEqual(self.successResultOf(server.server.ready).problem(), problem)
        self.assertEqual(self.ready(server), 200)

    def test_not_by_a_registration_that_fails(self) -> None:
        """A registration whose workers fail does not count, also when its answer did not wait for them."""
        server = self.serve("good,greet=gret.mar")
        server.add_model("other", {})
        server.provider.load_delay = None
        key = server.key(TokenKind.MANAGEMENT)
        waiting = server.send("POST", "/models?url=other&model_name=greet&initial_workers=1", key)
        server.provider.workers[-1].kill()
        server.advance(1)
        self.assertGreaterEqual(server.answered(waiting).status, 500)
        self.assertEqual(self.ready(server), 503)
        path = "/models?url=other&model_name=greet&initial_workers=1&synchronous=false"
        self.assertEqual(self.manage(server, "POST", path), 202)
        self.assertEqual(self.ready(server), 503)

    def test_not_forgotten(self) -> None:
        """No snapshot hides that a model is missing: the next start would do without it."""
        server = self.serve("good,greet=gret.mar")
        snapshots = server.directory / "snapshots"
        server.server.stopService()
        server.advance(100)
        self.assertFalse(snapshots.exists() and list(snapshots.iterdir()))
        server.restart()
        self.assertEqual(self.ready(server), 503)
        self.assertEqual(self.manage(server, "PUT", "/models/good?min_worker=2&synchronous=true"), 200)
        self.assertEqual(len(list(snapshots.iterdir())), 1)

    def test_required(self) -> None:
        """If all are required, the outcome is the same, and there is no snapshot of what is to end."""
        server = self.serve("good,greet=gret.mar", startup_models_required=True)
        self.assertEqual(len(self.successResultOf(server.server.ready).failures), 1)
        server.server.stopService()
        server.advance(100)
        self.assertFalse((server.directory / "snapshots").exists())


class OutcomeTests(SynchronousTestCase):
    """What is said of the models."""

    def test_line(self) -> None:
        """One line has them all, or the first ten of very many."""
        failures = tuple(StartupFailure(None, f"{number}.mar", "broken") for number in range(12))
        self.assertEqual(
            StartupOutcome(3, failures[:2]).problem(), "2 of 3 start-up models failed: 0.mar: broken; 1.mar: broken"
        )
        self.assertTrue(str(StartupOutcome(20, failures).problem()).endswith("; 9.mar: broken; and 2 more"))

    @given(st.text(), st.text())
    def test_one_line(self, message: str, reason: str) -> None:
        """Whatever an error says, it is one line."""
        self.assertEqual(len(reason_of(ServeError(message).because(reason)).splitlines() or [""]), 1)
