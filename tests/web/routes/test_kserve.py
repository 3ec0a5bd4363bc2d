# SPDX-License-Identifier: Apache-2.0
"""
KServe's routes, against the whole server in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import Answer, MemoryServer, Role

JSON = {"Content-Type": "application/json"}


class KServeTestCase(SynchronousTestCase):
    """A server with a model of one version."""

    options: dict[str, Any] = {"ts_open_inference_protocol": True}

    def setUp(self) -> None:
        self.server = MemoryServer(self.options, models={"m": {}})
        self.addCleanup(self.server.close)

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        kind = TokenKind.INFERENCE if ":" in path or path.startswith("/v2") else TokenKind.MANAGEMENT
        return self.server.request(method, path, self.server.key(kind), headers, body)

    def scale(self, workers: int) -> None:
        answer = self.request("PUT", f"/models/m?min_worker={workers}&synchronous=true")
        self.assertEqual(answer.status, 200)

    def assertMissing(self, answer: Answer, kind: str = "ResourceNotFoundException") -> None:
        self.assertEqual((answer.status, answer.json["type"]), (404, kind))


class VersionOneTests(KServeTestCase):
    """Tests for ``/v1``."""

    def test_predict_and_explain(self) -> None:
        """The body is the handler's input, and the handler knows what is asked for."""
        for verb, explain in (("predict", "False"), ("explain", "True")):
            answer = self.request("POST", f"/v1/models/m:{verb}", b'{"instances": [1]}', JSON)
            self.assertEqual((answer.status, answer.body), (200, b'{"instances": [1]}'))
            [*_, [job]] = self.server.provider.workers[0].batches
            self.assertEqual(job.headers["explain"], explain)
            self.assertNotIn("url_path", job.headers)

    def test_other_verbs(self) -> None:
        """Another verb, or none, is nothing on the inference listener."""
        for path in ("/v1/models/m:predictx", "/v1/models/m:", "/v1/models/:predict", "/v1/models/m:predict/x"):
            self.assertMissing(self.request("POST", path))
        self.assertMissing(self.request("POST", "/v1/models/absent:predict"), "ModelNotFoundException")
        self.assertMissing(self.request("POST", "/v1/models/m:x:predict"), "ModelNotFoundException")

    def test_ready(self) -> None:
        """A model is ready when it can answer: not without workers, nor when they are gone."""
        self.assertEqual(self.request("GET", "/v1/models/m").json, {"name": "m", "ready": True})
        self.scale(0)
        self.assertEqual(self.request("GET", "/v1/models/m").json, {"name": "m", "ready": False})
        self.scale(2)
        self.assertIs(self.request("GET", "/v1/models/m").json["ready"], True)
        self.server.provider.load_error = WorkerFailed(500, "broken")
        self.server.provider.alive[0].kill()
        self.assertIs(self.request("GET", "/v1/models/m").json["ready"], False)

    def test_on_the_inference_listener(self) -> None:
        """Clients ask where they predict, and with the same key."""
        key = self.server.key(TokenKind.INFERENCE)
        for path, members in (("/v1/models", {"models": ["m"]}), ("/v1/models/m", {"name": "m", "ready": True})):
            self.assertEqual(self.server.request("GET", path, key, role=Role.INFERENCE).json, members)
            other = self.server.request("GET", path, self.server.key(TokenKind.MANAGEMENT), role=Role.INFERENCE)
            self.assertEqual((other.status, other.json["type"]), (400, "InvalidKeyException"))

    def test_loading(self) -> None:
        """A model whose worker still loads is not ready."""
        self.scale(0)
        self.server.provider.load_delay = 10
        self.request("PUT", "/models/m?min_worker=1")
        self.assertIs(self.request("GET", "/v1/models/m").json["ready"], False)
        self.server.advance(10)
        self.assertIs(self.request("GET", "/v1/models/m").json["ready"], True)

    def test_unknown(self) -> None:
        """An unknown model is 404; other methods than GET are not allowed."""
        self.assertMissing(self.request("GET", "/v1/models/absent"), "ModelNotFoundException")
        self.assertEqual(self.request("POST", "/v1/models/m").status, 405)

    def test_list(self) -> None:
        """The models are listed by name."""
        self.server.add_model("a", {})
        self.request("POST", "/models?url=a")
        self.assertEqual(self.request("GET", "/v1/models").json, {"models": ["a", "m"]})


class OpenInferenceTests(KServeTestCase):
    """Tests for ``/v2`` with the extras."""

    def test_server(self) -> None:
        """The server says what it is, under the predecessor's spelling and the protocol's."""
        members = self.request("GET", "/v2").json
        self.assertEqual(list(members), ["name", "version", "extenstion", "extensions"])
        self.assertEqual((members["name"], members["extenstion"]), ("Torchserve", ["kserve", "kubeflow"]))
        self.assertLess({"kserve", "kubeflow"}, set(members["extensions"]))

    def test_health(self) -> None:
        """Live is always, ready only when the start-up models have their workers."""
        self.assertEqual(self.request("GET", "/v2/health/live").json, {"live": True})
        answer = self.request("GET", "/v2/health/ready")
        self.assertEqual((answer.status, answer.json), (200, {"ready": True}))
        self.server.provider.load_error = WorkerFailed(500, "broken")
        self.server.provider.workers[0].kill()
        answer = self.request("GET", "/v2/health/ready")
        self.assertEqual((answer.status, answer.json), (503, {"ready": False}))
        self.assertEqual(self.request("GET", "/v2/health/live").status, 200)

    def test_metadata(self) -> None:
        """A model's metadata lists its versions."""
        for path in ("/v2/models/m", "/v2/models/m/versions/1.0"):
            self.assertEqual(
                self.request("GET", path).json,
                {"name": "m", "versions": ["1.0"], "platform": "", "inputs": [], "outputs": []},
            )
        self.assertMissing(self.request("GET", "/v2/models/absent"), "ModelNotFoundException")
        self.assertMissing(self.request("GET", "/v2/models/m/versions/9"), "ModelVersionNotFoundException")
        self.assertEqual(self.request("POST", "/v2/models/m").status, 405)

    def test_model_ready(self) -> None:
        """A version is ready when it can answer, and says so by the status code, too."""
        for path in ("/v2/models/m/ready", "/v2/models/m/versions/1.0/ready"):
            self.scale(1)
            answer = self.request("GET", path)
            self.assertEqual((answer.status, answer.json), (200, {"name": "m", "ready": True}))
            self.scale(0)
            answer = self.request("GET", path)
            self.assertEqual((answer.status, answer.json), (503, {"name": "m", "ready": False}))
        self.assertMissing(self.request("GET", "/v2/models/m/versions/9/ready"), "ModelVersionNotFoundException")

    def test_infer_and_explain(self) -> None:
        """With and without a version, the handler knows what is asked for."""
        body = b'{"inputs": []}'
        for path in ("/v2/models/m/{}", "/v2/models/m/versions/1.0/{}"):
            for verb, explain in (("infer", "False"), ("explain", "True")):
                self.assertEqual(self.request("POST", path.format(verb), body, JSON).body, body)
                [*_, [job]] = self.server.provider.workers[0].batches
                self.assertEqual(job.headers["explain"], explain)


class WithoutExtrasTests(KServeTestCase):
    """Tests for ``/v2`` as it is without ``ts_open_inference_protocol``."""

    options: dict[str, Any] = {}

    def test_only_predictions(self) -> None:
        """There are predictions and readiness, and nothing else."""
        self.assertEqual(self.request("POST", "/v2/models/m/infer", b'{"inputs": []}', JSON).status, 200)
        for path in ("health/live", "health/ready", "models/m/ready", "models/m/versions/1.0/ready"):
            self.assertEqual(self.request("GET", f"/v2/{path}").status, 200, path)
        self.assertMissing(self.request("GET", "/v2/models/absent/ready"), "ModelNotFoundException")
        for path in ("/v2", "/v2/models/m", "/v2/models/m/versions/1.0"):
            self.assertMissing(self.request("GET", path))
        self.assertMissing(self.request("POST", "/v2/models/m/versions/1.0/infer"))
