# SPDX-License-Identifier: Apache-2.0
"""What the inference listener says of the server's health, against the whole server in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.web.routes.inference_case import InferenceTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import MemoryServer


class HealthTests(InferenceTestCase):
    """Tests for ``/ping`` and the probes."""

    options = {"load_models": "m"}

    def test_healthy(self) -> None:
        """A server whose model has its worker is healthy and ready."""
        answer = self.request("GET", "/ping")
        self.assertEqual((answer.status, answer.json), (200, {"status": "Healthy"}))
        self.assertEqual(self.server.request("GET", "/readyz").status, 200)

    def test_dead_worker(self) -> None:
        """When the worker is gone the server is not ready at once, and unhealthy when it does not come back."""
        self.server.provider.load_error = WorkerFailed(500, "broken")
        [worker] = self.server.provider.workers
        worker.kill()
        self.assertEqual(self.server.request("GET", "/readyz").status, 503)
        self.assertEqual(self.server.request("GET", "/livez").status, 200)
        self.assertEqual(self.request("GET", "/ping").status, 200)
        for _ in range(400):
            self.server.advance(1)
        answer = self.request("GET", "/ping")
        self.assertEqual((answer.status, answer.json), (500, {"status": "Unhealthy"}))

    def test_probes_tell_nothing(self) -> None:
        """A probe's answer is yes or no, and nothing of models or versions."""
        for path in ("/livez", "/readyz"):
            self.assertLess(len(self.server.request("GET", path).body), 40)


class StartTests(SynchronousTestCase):
    """Tests for the start of a server."""

    def test_ready_when_loaded(self) -> None:
        """A server is ready when its start-up models are loaded, and not before."""
        with MemoryServer({"load_models": None}, models={}) as server:
            server.add_model("slow", {})
            self.assertEqual(server.request("GET", "/readyz").status, 200)
        server = MemoryServer(models={"m": {}, "n": {}})
        self.addCleanup(server.close)
        self.successResultOf(server.server.ready)
        self.assertEqual(len(server.provider.workers), 2)

    def test_broken_model(self) -> None:
        """A start-up model that cannot be registered is logged; the others are served, and the server is not ready."""
        server = MemoryServer({"load_models": "m,absent.mar,../x"}, models={"m": {}})
        self.addCleanup(server.close)
        self.successResultOf(server.server.ready)
        answer = server.request("POST", "/predictions/m", server.key(TokenKind.INFERENCE), body=b"x")
        self.assertEqual(answer.body, b"x")
        self.assertEqual(server.request("GET", "/readyz").status, 503)

    def test_all(self) -> None:
        """``load_models=all`` loads what is in the model store."""
        server = MemoryServer({"load_models": "all"}, models={"m": {}, "n": {}})
        self.addCleanup(server.close)
        listed = server.request("GET", "/models", server.key(TokenKind.MANAGEMENT)).json["models"]
        self.assertEqual([model["modelName"] for model in listed], ["m", "n"])
