# SPDX-License-Identifier: Apache-2.0
"""
SageMaker's routes and those of old clients, against the whole server in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import Answer, MemoryServer, Role
from twisted_serve.wire.messages import Part

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FIELD = b'--x\r\nContent-Disposition: form-data; name="model_name"\r\n\r\nn\r\n--x--\r\n'


def field(name: str, value: bytes) -> Part:
    """Make the input of a form's field or a query's parameter."""
    return Part(name, "", value, decode=False)


class InvocationTestCase(SynchronousTestCase):
    """A server with the models that a test wants, loaded at the start."""

    models: dict[str, dict[str, str]] = {"m": {}, "n": {}}
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.server = MemoryServer(self.options, models=self.models)
        self.addCleanup(self.server.close)

    def request(
        self, path: str, body: bytes = b"x", headers: dict[str, str] | None = None, method: str = "POST"
    ) -> Answer:
        return self.server.request(method, path, self.server.key(TokenKind.INFERENCE), headers, body)

    def asked(self) -> tuple[str, list[Part], dict[str, str]]:
        """Return which model was asked last, with which inputs and headers."""
        [(name, job)] = [
            (worker.spec.load.model_name, batch[0])
            for worker in self.server.provider.workers
            for batch in worker.batches
        ]
        return name, job.parts, job.headers


class InvocationTests(InvocationTestCase):
    """Tests for ``/invocations`` with several models."""

    def test_query(self) -> None:
        """The query names the model, and its parameters are inputs before the body's."""
        self.assertEqual(self.request("/invocations?model_name=n&a=1&a=%C3%A4+b").status, 200)
        name, parts, headers = self.asked()
        self.assertEqual(name, "n")
        self.assertEqual(
            parts,
            [field("model_name", b"n"), field("a", b"1"), field("a", "ä b".encode()), Part("body", "", b"x")],
        )
        self.assertNotIn("explain", headers)
        self.assertNotIn("url_path", headers)

    def test_form_field(self) -> None:
        """Without a query, the form's field names the model."""
        self.assertEqual(self.request("/invocations", b"model_name=n&data=1", FORM).status, 200)
        self.assertEqual(self.asked()[:2], ("n", [field("model_name", b"n"), field("data", b"1")]))

    def test_multipart_field(self) -> None:
        """So does the field of a multipart form."""
        answer = self.request("/invocations", FIELD, {"Content-Type": "multipart/form-data; boundary=x"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.asked()[0], "n")

    def test_nothing_said(self) -> None:
        """When nothing names one of several models, the client is told what is missing."""
        for path in ("/invocations", "/invocations?other=m"):
            answer = self.request(path)
            self.assertEqual(
                (answer.status, answer.json["type"], answer.json["message"]),
                (400, "BadRequestException", "Parameter model_name is required."),
            )

    def test_unknown(self) -> None:
        """A model that is not there, the empty name included, is 404."""
        for said, name in (("absent", "absent"), ("", "")):
            answer = self.request(f"/invocations?model_name={said}")
            self.assertEqual((answer.status, answer.json["message"]), (404, f"Model not found: {name}"))

    def test_exactly_this_path(self) -> None:
        """What lies below is nothing."""
        for path in ("/invocations/x", "/invocations/predict", "/invocations/m/predict"):
            answer = self.request(path)
            self.assertEqual((answer.status, answer.json["type"]), (404, "ResourceNotFoundException"), path)

    def test_reserved_headers(self) -> None:
        """A client cannot say for the server that this is an explanation, or a describe call."""
        headers = {"Explain": "True", "DESCRIBE": "True", "url_path": "x"}
        self.request("/invocations?model_name=m", b"x", headers)
        said = {name.lower() for name in self.asked()[2]}
        self.assertEqual(said & {"explain", "describe", "url_path"}, set())

    def test_query_bounded(self) -> None:
        """More parameters than any query has are refused."""
        answer = self.request("/invocations?model_name=m" + "&a=" * 1030)
        self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"))


class SingleModelTests(InvocationTestCase):
    """Tests for ``/invocations`` with one start-up model."""

    models = {"m": {}}

    def test_the_only_one(self) -> None:
        """The only start-up model answers, whatever a form says."""
        self.server.add_model("n", {})
        key = self.server.key(TokenKind.MANAGEMENT)
        self.assertEqual(self.server.request("POST", "/models?url=n&initial_workers=1", key).status, 200)
        self.assertEqual(self.request("/invocations").body, b"x")
        self.assertEqual(self.asked()[0], "m")

    def test_named(self) -> None:
        """Who names another in the query gets that one."""
        self.server.add_model("n", {})
        key = self.server.key(TokenKind.MANAGEMENT)
        self.server.request("POST", "/models?url=n&initial_workers=1", key)
        self.assertEqual(self.request("/invocations?model_name=n").status, 200)
        self.assertEqual(self.asked()[0], "n")


class InvokeTests(InvocationTestCase):
    """Tests for ``/models/{model}/invoke``."""

    def test_invoke(self) -> None:
        """Any method invokes the default version, with the query's parameters as inputs."""
        for method in ("POST", "PUT", "GET"):
            self.assertEqual(self.request("/models/n/invoke?a=1", b"x", method=method).body, b"1", method)
            self.server.provider.workers[1].batches[:-1] = []
        self.assertEqual(self.asked()[:2], ("n", [field("a", b"1"), Part("body", "", b"x")]))

    def test_unknown(self) -> None:
        """An unknown model is 404."""
        answer = self.request("/models/absent/invoke")
        self.assertEqual((answer.status, answer.json["message"]), (404, "Model not found: absent"))

    def test_nothing_else(self) -> None:
        """Below ``/models`` there is nothing else on the inference listener."""
        for path in ("/models/n/other", "/models/n", "/models/n/invoke/x", "/models", "/models/n/predict"):
            answer = self.server.request("POST", path, self.server.key(TokenKind.INFERENCE), role=Role.INFERENCE)
            self.assertEqual((answer.status, answer.json["type"]), (404, "ResourceNotFoundException"), path)


class LegacyTests(InvocationTestCase):
    """Tests for ``/{model}/predict``."""

    def test_predict(self) -> None:
        """The query's parameters are the inputs of old clients, who send no body."""
        self.assertEqual(self.request("/m/predict?data=test", b"", method="GET").body, b"test")

    def test_version(self) -> None:
        """A version may be named; an unknown one is 404."""
        self.assertEqual(self.request("/m/1.0/predict").status, 200)
        answer = self.request("/m/9/predict")
        self.assertEqual(answer.json["message"], "Model version: 9 does not exist for model: m")

    def test_claimed(self) -> None:
        """A first segment which means something else is no model, even if one is called so."""
        for first in ("models", "token", "metrics", "workflows", "api-description", "docs", "livez", "v1", "v2"):
            for path in (f"/{first}/predict", f"/{first}/1.0/predict"):
                answer = self.server.request("POST", path, self.server.key(TokenKind.INFERENCE), role=Role.INFERENCE)
                self.assertEqual((answer.status, answer.json["type"]), (404, "ResourceNotFoundException"), path)
