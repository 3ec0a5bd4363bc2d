# SPDX-License-Identifier: Apache-2.0
"""
Explanations, descriptions of single models, and describe calls which a handler answers, against the server in memory.
"""

from __future__ import annotations

import json
from typing import Any

from openapi_spec_validator import validate
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import Answer, MemoryServer, NoAnswerYet
from twisted_serve.wire.messages import Item, Job


class HandlerTestCase(SynchronousTestCase):
    """A server whose handler describes itself as the test wants, and otherwise says what it was asked."""

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.item: tuple[int, str, dict[str, str], bytes] = (200, "", {}, b"{}")
        self.error: Exception | None = None
        self.server = MemoryServer(self.options, respond=self.respond, models={"m": {}})
        self.addCleanup(self.server.close)

    def respond(self, jobs: list[Job]) -> list[Item] | Exception:
        if self.error is not None:
            return self.error
        if jobs[0].headers.get("describe") == "True":
            # As a handler does which looks at the first request only: one answer, whatever the batch.
            return [Item(jobs[0].request_id, *self.item)]
        return [Item(job.request_id, 200, "", {}, json.dumps(job.headers).encode()) for job in jobs]

    def request(self, method: str, path: str, body: bytes = b"", headers: Any = None) -> Answer:
        kind = TokenKind.MANAGEMENT if path.startswith("/models") else TokenKind.INFERENCE
        return self.server.request(method, path, self.server.key(kind), headers, body)


class ExplanationTests(HandlerTestCase):
    """Tests for ``/explanations``."""

    def test_told(self) -> None:
        """The handler is told that an explanation is asked for, and what follows in the path."""
        for path, rest in (
            ("m", ""),
            ("m/1.0", ""),
            ("m/1.0/", ""),
            ("m/1.0/a", "a"),
            ("m/1.0/a/b%20c/d", "a/b c/d"),
            ("m/1.0//a//b/", "/a//b"),
            ("m/1.0/" + "x/" * 500 + "y", "x/" * 500 + "y"),
        ):
            said = self.request("POST", f"/explanations/{path}", b"x").json
            self.assertEqual((said["explain"], said["url_path"]), ("True", rest))
            said = self.request("POST", f"/predictions/{path}", b"x").json
            self.assertEqual((said["explain"], said["url_path"]), ("False", rest))

    def test_unknown(self) -> None:
        """Unknown models and versions are 404."""
        self.assertEqual(self.request("POST", "/explanations/absent").json["type"], "ModelNotFoundException")
        self.assertEqual(self.request("POST", "/explanations/m/9").json["type"], "ModelVersionNotFoundException")
        self.assertEqual(self.request("POST", "/explanations").json["type"], "ResourceNotFoundException")

    def test_own_batches(self) -> None:
        """An explanation is a batch of its own, apart from predictions: handlers look at the first request of one."""
        key = self.server.key(TokenKind.MANAGEMENT)
        self.server.add_model("b", {})
        self.server.request("POST", "/models?url=b&batch_size=8&initial_workers=1", key)
        worker = self.server.provider.workers[-1]
        worker.holding = True
        key = self.server.key(TokenKind.INFERENCE)
        paths = ["/predictions/b", "/explanations/b", "/explanations/b", "/predictions/b", "/predictions/b"]
        waiting = [self.server.send("POST", path, key, body=b"x") for path in paths]
        for _ in range(4):
            worker.answer()
        self.assertEqual([len(batch) for batch in worker.batches], [1, 1, 1, 2])
        said = [self.server.answered(one).json["explain"] for one in waiting]
        self.assertEqual(said, ["False", "True", "True", "False", "False"])


class ModelDescriptionTests(HandlerTestCase):
    """Tests for ``OPTIONS`` on the paths of a model."""

    def test_predictions(self) -> None:
        """Every path that predicts describes the calls of its model, and predicts nothing."""
        for path in (
            "/predictions/m",
            "/predictions/m/1.0",
            "/explanations/m",
            "/invocations",
            "/m/predict",
            "/v1/models/m:predict",
            "/v2/models/m/infer",
        ):
            document = self.request("OPTIONS", path).json
            validate(document)
            self.assertEqual(document["info"], {"title": "RESTful API for: m", "version": "1.0.0"})
            self.assertIn("/predictions/m", document["paths"])
        self.assertEqual(self.server.provider.batches, [])

    def test_management(self) -> None:
        """Every path of a model on the management listener describes how it is managed."""
        for path in ("/models/m", "/models/m/1.0"):
            document = self.request("OPTIONS", path).json
            validate(document)
            self.assertEqual(document["info"]["title"], "RESTful Management API for: m")
            self.assertEqual(
                set(document["paths"]),
                {
                    "/models/{model_name}",
                    "/models/{model_name}/{model_version}",
                    "/models/{model_name}/{model_version}/set-default",
                },
            )

    def test_unknown(self) -> None:
        """Of a model that is not there nothing is described."""
        for path in ("/predictions/absent", "/explanations/absent", "/models/absent", "/v2/models/absent/infer"):
            answer = self.request("OPTIONS", path)
            self.assertEqual((answer.status, answer.json["message"]), (404, "Model not found: absent"), path)
        for path in ("/predictions/m/9", "/models/m/9"):
            answer = self.request("OPTIONS", path)
            self.assertEqual((answer.status, answer.json["type"]), (404, "ModelVersionNotFoundException"), path)


class CustomizedTests(HandlerTestCase):
    """Tests for ``GET /models/{model}?customized=true``."""

    def describe(self, path: str = "/models/m?customized=true") -> Answer:
        return self.request("GET", path)

    def test_object(self) -> None:
        """The object which the handler answers is a member; the handler gets the question and nothing else."""
        self.item = (200, "", {}, b'{"a": {"b": [1, "\xc3\xa4"]}}')
        for path in ("/models/m?customized=true", "/models/m/1.0?customized=TRUE"):
            answer = self.describe(path)
            [described] = answer.json
            self.assertEqual(described["customizedMetadata"], {"a": {"b": [1, "ä"]}})
            self.assertEqual(described["modelName"], "m")
            self.assertEqual(answer.headers["content-type"], "application/json")
        job = self.server.provider.batches[0][0]
        self.assertEqual((job.headers, job.parts), ({"describe": "True"}, []))
        self.assertEqual(self.server.provider.batches[1][0].request_id, answer.headers["x-request-id"])

    def test_plain(self) -> None:
        """Without the parameter, or for all versions, no handler is asked."""
        for path in (
            "/models/m",
            "/models/m?customized=1",
            "/models/m?customized=false",
            "/models/m/all?customized=true",
        ):
            self.assertNotIn("customizedMetadata", self.describe(path).json[0])
        self.assertEqual(self.server.provider.batches, [])

    def test_nothing_and_nonsense(self) -> None:
        """What says nothing is no member; what is no object is an empty one."""
        for body in (b"", b"null"):
            self.item = (200, "", {}, body)
            self.assertNotIn("customizedMetadata", self.describe().json[0])
        for body in (b"[1]", b'"text"', b"not json", b"\xff\xfe", b"[" * 100000, b"1" * 5000):
            self.item = (200, "", {}, body)
            self.assertEqual(self.describe().json[0]["customizedMetadata"], {}, body[:20])

    def test_head(self) -> None:
        """Status, phrase and headers which the handler sets are the answer's."""
        self.item = (203, "Half", {"x-mine": "1", "content-length": "3", "content-type": "text/json"}, b"{}")
        answer = self.describe()
        self.assertEqual((answer.status, answer.headers["x-mine"]), (203, "1"))
        self.assertEqual(answer.headers["content-type"], "text/json")
        self.assertEqual(answer.json[0]["customizedMetadata"], {})

    def test_alone(self) -> None:
        """A description shares no batch with predictions, which would be answered by it."""
        self.server.add_model("b", {})
        self.request("POST", "/models?url=b&batch_size=8&initial_workers=1")
        worker = self.server.provider.workers[-1]
        worker.holding = True
        inference, management = (self.server.key(kind) for kind in (TokenKind.INFERENCE, TokenKind.MANAGEMENT))
        waiting = [self.server.send("POST", "/predictions/b", inference, body=b"x") for _ in range(2)]
        asked = self.server.send("GET", "/models/b?customized=true", management)
        waiting += [self.server.send("POST", "/predictions/b", inference, body=b"x") for _ in range(2)]
        for _ in range(5):
            worker.answer()
        self.assertEqual([len(batch) for batch in worker.batches], [1, 1, 1, 2])
        self.assertEqual(self.server.answered(asked).json[0]["customizedMetadata"], {})
        for one in waiting:
            self.assertEqual(self.server.answered(one).status, 200)

    def test_no_worker(self) -> None:
        """Without a worker the client is told how to get one, in the predecessor's words."""
        self.request("PUT", "/models/m?min_worker=0")
        answer = self.describe()
        self.assertEqual((answer.status, answer.json["type"]), (503, "ServiceUnavailableException"))
        self.assertEqual(
            answer.json["message"],
            'Model "m" has no worker to serve describe request. Please use scale workers API to add workers.',
        )

    def test_never_answered(self) -> None:
        """A handler which does not answer keeps nobody waiting for ever."""
        [worker] = self.server.provider.workers
        worker.holding = True
        self.server.send("POST", "/predictions/m", self.server.key(TokenKind.INFERENCE), body=b"x")
        asked = self.server.send("GET", "/models/m?customized=true", self.server.key(TokenKind.MANAGEMENT))
        with self.assertRaises(NoAnswerYet):
            self.server.answered(
                self.server.send("GET", "/models/m?customized=true", self.server.key(TokenKind.MANAGEMENT))
            )
        self.server.advance(120)
        answer = self.server.answered(asked)
        self.assertEqual((answer.status, answer.json["type"]), (500, "InternalServerException"))
        self.assertEqual(self.server.request("GET", "/models/m", self.server.key(TokenKind.MANAGEMENT)).status, 200)

    def test_no_client_of_predictions(self) -> None:
        """The time that clients of predictions have is not for descriptions: the handler's answer is the answer."""
        self.server.add_model(
            "c",
            {
                "MAR-INF/MANIFEST.json": '{"model": {"modelName": "c", "handler": "h.py", "configFile": "c.yaml"}}',
                "h.py": "",
                "c.yaml": "clientTimeoutInMills: 1000",
            },
        )
        self.request("POST", "/models?url=c&initial_workers=1")
        worker = self.server.provider.workers[-1]
        worker.holding = True
        asked = self.server.send("GET", "/models/c?customized=true", self.server.key(TokenKind.MANAGEMENT))
        self.server.advance(5.0)
        worker.answer(WorkerFailed(503, "Prediction failed"))
        answer = self.server.answered(asked)
        self.assertEqual((503, "Prediction failed"), (answer.status, answer.json["message"]))

    def test_errors(self) -> None:
        """The handler's failure is the answer; so is a model or a version that is not there."""
        self.error = WorkerFailed(503, "Prediction failed")
        answer = self.describe()
        self.assertEqual((answer.status, answer.json["message"]), (503, "Prediction failed"))
        self.assertEqual(self.describe("/models/absent?customized=true").json["type"], "ModelNotFoundException")
        self.assertEqual(self.describe("/models/m/9?customized=true").json["type"], "ModelVersionNotFoundException")
