# SPDX-License-Identifier: Apache-2.0
"""
The requests of ``docs/torchserve/rest_api.md`` §21, against the whole server in memory.

Tokens are off and the model API is on, as they were in the suites that the requests are from.
``docs/compatibility.md`` has a row for each request, and names the test here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import Answer, MemoryServer, NoAnswerYet, Role
from twisted_serve.wire.messages import Item, Job

SECOND = json.dumps({"model": {"modelName": "m", "modelVersion": "1.12", "handler": "handler.py"}})
FIRST = SECOND.replace("1.12", "1.11")

MULTIPART = {"Content-Type": "multipart/form-data; boundary=B"}
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="model_name"\r\n\r\nm\r\n'
    b'--B\r\nContent-Disposition: form-data; name="data"; filename="x.txt"\r\nContent-Type: text/plain\r\n\r\ntest\r\n'
    b"--B--\r\n"
)


def ok(jobs: list[Job]) -> list[Item]:
    """Answer as the model of the suites does that does nothing."""
    return [Item(job.request_id, 200, "", {}, b"OK") for job in jobs]


class RowsTestCase(SynchronousTestCase):
    """A server without tokens, with two versions of a model in its store."""

    options: Mapping[str, Any] = {}

    def setUp(self) -> None:
        options = {"disable_token_authorization": True, "default_workers_per_model": 0, **self.options}
        self.server = MemoryServer(options, respond=ok)
        self.addCleanup(self.server.close)
        self.server.add_model("m", {"MAR-INF/MANIFEST.json": FIRST})
        self.server.add_model("m2", {"MAR-INF/MANIFEST.json": SECOND})

    def request(self, method: str, path: str, role: Role | None = None, body: bytes = b"", **more: Any) -> Answer:
        return self.server.request(method, path, body=body, role=role, **more)

    def assertError(self, answer: Answer, status: int, kind: str, message: str) -> None:
        self.assertEqual(answer.json, {"code": status, "type": kind, "message": message})
        self.assertEqual(answer.status, status)

    def register(self, query: str = "url=m&initial_workers=1") -> None:
        self.assertEqual(self.request("POST", f"/models?{query}").status, 200)

    def assertNotAllowed(self, method: str, path: str, role: Role | None = None) -> None:
        self.assertError(
            self.request(method, path, role),
            405,
            "MethodNotAllowedException",
            "Requested method is not allowed, please refer to API document.",
        )

    def assertNoResource(self, method: str, path: str, role: Role | None = None) -> None:
        self.assertError(
            self.request(method, path, role),
            404,
            "ResourceNotFoundException",
            "Requested resource is not found, please refer to API document.",
        )


class PathTests(RowsTestCase):
    """Tests for paths and methods."""

    def test_root(self) -> None:
        """The root is there to be described, and for nothing else."""
        self.assertNotAllowed("GET", "/", Role.INFERENCE)
        for role in Role:
            self.assertEqual(self.request("OPTIONS", "/", role).json["openapi"], "3.0.1")

    def test_unknown_paths(self) -> None:
        """What no route is has the predecessor's words, on each listener."""
        self.assertNoResource("GET", "/InvalidUrl", Role.INFERENCE)
        self.assertNoResource("GET", "/InvalidUrl", Role.MANAGEMENT)
        self.assertNoResource("GET", "/predictions")

    def test_unknown_models(self) -> None:
        """A model or a version that is not there is named, whatever the method."""
        for method in ("OPTIONS", "GET"):
            self.assertError(
                self.request(method, "/predictions/InvalidModel"),
                404,
                "ModelNotFoundException",
                "Model not found: InvalidModel",
            )
        self.register()
        self.assertError(
            self.request("GET", "/predictions/m/1.3.1"),
            404,
            "ModelVersionNotFoundException",
            "Model version: 1.3.1 does not exist for model: m",
        )

    def test_other_methods(self) -> None:
        """Paths of models have their methods, and no others."""
        self.assertNotAllowed("PUT", "/models")
        self.assertNotAllowed("POST", "/models/m")

    def test_broken_escape(self) -> None:
        """A path that cannot be read is the client's mistake, and is said to be."""
        for role, path in ((Role.INFERENCE, "/predictions/%zz"), (Role.MANAGEMENT, "/models/%zz")):
            connection = self.server.connect(role)
            self.assertEqual(connection.get(path), 400)
            self.assertIn(b'"type": "BadRequestException"', connection.received)


class RegistrationTests(RowsTestCase):
    """Tests for ``POST /models``, where files of this machine may be fetched."""

    options = {"allowed_urls": "file:///.*"}

    def test_urls(self) -> None:
        """What cannot be registered is refused with the predecessor's status; what may not be fetched is 404."""
        for query, status in (
            ("", 400),
            ("?url=InvalidUrl&runtime=InvalidRuntime", 400),
            ("?url=InvalidUrl", 404),
            ("?url=..%2Ffake.mar", 404),
            ("?url=http%3A%2F%2Flocalhost%3Aaaaa", 404),
            ("?url=http%3A%2F%2Flocalhost%3A18888%2Ffake.mar", 404),
            ("?url=file:///InvalidUrl", 400),
            ("?url=&model_name=x", 404),
        ):
            answer = self.request("POST", "/models" + query)
            self.assertEqual((answer.status, answer.json["code"]), (status, status), query)
        self.assertEqual(self.request("GET", "/models").json, {"models": []})

    def test_startup_timeout(self) -> None:
        """A time of 0 is as good as none: the server's holds, and the workers have it to load in."""
        self.register("url=m&batch_size=3&initial_workers=3&startup_timeout=0")
        [described] = self.request("GET", "/models/m").json
        self.assertEqual((described["startupTimeout"], len(described["workers"])), (120, 3))
        self.register("url=m2&batch_size=3&startup_timeout=0")

    def test_lenient(self) -> None:
        """Parameters that are none do not keep a model out."""
        self.register("url=m&batch_size=dd")
        self.assertEqual(self.request("DELETE", "/models/m").status, 200)
        self.register("url=m&max_batch_delay=junk&initial_workers=-1&synchronous=-1")


class ModelTests(RowsTestCase):
    """Tests for models that are there."""

    def setUp(self) -> None:
        super().setUp()
        self.register()

    def test_scale(self) -> None:
        """The numbers of workers are looked at, and what is no number counts as not given."""
        self.assertEqual(self.request("PUT", "/models/fake").status, 404)
        for query, status in (
            ("?min_worker=2&max_worker=1", 400),
            ("?min_worker=-1", 400),
            ("?max_worker=-1", 400),
            ("?min_worker=a&max_worker=b", 202),
            ("?min_worker=0", 202),
            ("", 202),
            ("?number_gpu=-1", 202),
            ("?timeout=0", 202),
        ):
            self.assertEqual(self.request("PUT", "/models/m" + query).status, status, query)
        self.assertEqual(len(self.request("GET", "/models/m").json[0]["workers"]), 1)

    def test_broken_handler(self) -> None:
        """A synchronous call waits to hear that the workers cannot be had."""
        self.server.provider.load_error = WorkerFailed(500, "broken")
        answer = self.request("PUT", "/models/m?min_worker=2&synchronous=true")
        self.assertEqual(answer.status, 500)
        self.assertEqual(answer.json["message"], "Failed to start workers for model m version: null")

    def test_versions(self) -> None:
        """The default version of several stays, and only one that is there can be the default."""
        self.register("url=m2")
        self.assertError(
            self.request("PUT", "/models/m/3.0/set-default"),
            404,
            "ModelVersionNotFoundException",
            "Model version 3.0 does not exist for model m",
        )
        self.assertError(
            self.request("DELETE", "/models/m/1.11"),
            403,
            "InvalidModelVersionException",
            "Cannot remove default version for model m",
        )

    def test_other_ways_to_predict(self) -> None:
        """SageMaker's routes and the oldest one predict."""
        as_json = {"Content-Type": "application/json"}
        for answer in (
            self.request("POST", "/invocations?model_name=m", headers=as_json, body=b'{"data": "test"}'),
            self.request("POST", "/invocations", headers=MULTIPART, body=FORM),
            self.request("POST", "/models/m/invoke", headers=as_json, body=b'{"data": "test"}'),
            self.request("POST", "/models/m/invoke", headers=MULTIPART, body=FORM),
            self.request("GET", "/m/predict?data=test"),
        ):
            self.assertEqual((answer.status, answer.body), (200, b"OK"))

    def test_memory(self) -> None:
        """A worker for which memory does not suffice is 507, when it loads and when it predicts."""
        self.server.provider.respond = lambda jobs: WorkerFailed(507, "Out of resources")
        self.assertEqual(self.request("POST", "/predictions/m").status, 507)
        self.server.provider.load_error = WorkerFailed(507, "System out of memory")
        self.assertEqual(self.request("POST", "/models?url=m2&initial_workers=1").status, 507)
        self.assertEqual(len(self.request("GET", "/models/m/all").json), 1)

    def test_own_statuses(self) -> None:
        """A handler's exception has its code; what a handler says itself goes out as it is."""
        self.server.provider.respond = lambda jobs: WorkerFailed(599, "Some Prediction Error")
        answer = self.request("POST", "/predictions/m")
        self.assertEqual((answer.status, answer.json["message"]), (599, "Some Prediction Error"))
        self.server.provider.respond = lambda jobs: [Item(job.request_id, 507, "", {}, b"mine") for job in jobs]
        answer = self.request("POST", "/predictions/m")
        self.assertEqual((answer.status, answer.body), (507, b"mine"))

    def test_unregister(self) -> None:
        """A model goes, and its busy worker gets its time; nobody has to ask twice."""
        [worker] = self.server.provider.workers
        worker.holding = True
        self.server.send("POST", "/predictions/m")
        removed = self.server.send("DELETE", "/models/m?unregister_model_timeout=0")
        with self.assertRaises(NoAnswerYet):
            self.server.answered(removed)
        self.server.advance(self.server.options.unregister_model_timeout + 1)
        self.assertEqual(self.server.answered(removed).status, 200)
        self.assertFalse(worker.alive)

    def test_url_path(self) -> None:
        """What follows a version in the path is in each request of a batch."""
        self.register("url=m2&batch_size=2&initial_workers=1")
        worker = self.server.provider.workers[-1]
        worker.holding = True
        path = "/predictions/m/1.12/v1/chat/completion"
        sent = [self.server.send("POST", path, body=b"%d" % number) for number in range(3)]
        worker.answer()
        self.assertEqual([len(batch) for batch in worker.batches], [1, 2])
        told = [job.headers["url_path"] for batch in worker.batches for job in batch]
        self.assertEqual(told, ["v1/chat/completion"] * 3)
        worker.answer()
        self.assertEqual([self.server.answered(each).status for each in sent], [200] * 3)

    def test_stream(self) -> None:
        """Three pieces and the last are four chunks."""
        [worker] = self.server.provider.workers
        worker.holding = True
        connection = self.server.connect()
        connection.send(b"GET /predictions/m HTTP/1.1\r\nHost: h\r\n\r\n")
        [[job]] = worker.batches
        for number in range(3):
            worker.chunk(Item(job.request_id, 200, "", {}, b"%d" % number))
        worker.answer([Item(job.request_id, 200, "", {}, b"end")])
        head, _, body = connection.received.partition(b"\r\n\r\n")
        self.assertIn(b"\r\ntransfer-encoding: chunked", head.lower())
        self.assertEqual(body, b"1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n3\r\nend\r\n0\r\n\r\n")


class NoTimeTests(RowsTestCase):
    """Tests for a server which gives workers no time to end."""

    options = {"unregister_model_timeout": 0}

    def test_unregister(self) -> None:
        """A busy worker is ended, its client told, and the model is gone with the first request."""
        self.register()
        [worker] = self.server.provider.workers
        worker.holding = True
        waiting = self.server.send("POST", "/predictions/m")
        removed = self.server.send("DELETE", "/models/m")
        self.server.advance(1)
        self.assertEqual(self.server.answered(removed).status, 200)
        self.assertError(self.server.answered(waiting), 500, "InternalServerException", "Worker died.")
        self.assertFalse(worker.alive)
        self.assertEqual(self.request("GET", "/models/m").status, 404)


class SizeTests(RowsTestCase):
    """Tests for the size of requests."""

    options = {"max_request_size": 10_485_760}

    def test_sizes(self) -> None:
        """A megabyte too much is 413, a little less than the limit is served."""
        self.register()
        answer = self.request("POST", "/predictions/m", body=bytes(11_485_760))
        self.assertEqual((answer.status, answer.json["code"]), (413, 413))
        self.assertEqual(self.request("POST", "/predictions/m", body=bytes(10_385_760)).status, 200)


class TokenTests(RowsTestCase):
    """Tests for a server with tokens."""

    options = {"disable_token_authorization": False, "token_expiration_min": 10}

    def test_keys(self) -> None:
        """No key, a wrong one, a replaced one and one that has expired are 400; the API key brings a new one."""
        old = self.server.key(TokenKind.INFERENCE)
        self.assertEqual(self.request("GET", "/ping", key=old).status, 200)
        for key in (None, "wrong", self.server.key(TokenKind.MANAGEMENT)):
            self.assertRefused(key)
        self.assertEqual(self.rotate(), 200)
        self.assertRefused(old)
        self.server.advance(600)
        expired = self.server.key(TokenKind.INFERENCE)
        self.assertRefused(expired)
        self.assertEqual(self.rotate(), 200)
        self.assertEqual(self.request("GET", "/ping", key=self.server.key(TokenKind.INFERENCE)).status, 200)

    def rotate(self) -> int:
        return self.request("GET", "/token?type=inference", key=self.server.key(TokenKind.API)).status

    def assertRefused(self, key: str | None) -> None:
        self.assertError(
            self.request("GET", "/ping", key=key),
            400,
            "InvalidKeyException",
            "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
        )
