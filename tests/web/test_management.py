# SPDX-License-Identifier: Apache-2.0
"""
The management routes, against the whole server in memory.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import Answer, MemoryServer, NoAnswerYet

MANIFEST = json.dumps({"model": {"modelName": "m", "modelVersion": "2.0", "handler": "handler.py"}})


class ManagementTestCase(SynchronousTestCase):
    """A server with two versions of a model in its store."""

    options: dict[str, Any] = {"default_workers_per_model": 0}

    def setUp(self) -> None:
        self.server = MemoryServer(self.options)
        self.addCleanup(self.server.close)
        self.server.add_model("m", {})
        self.server.add_model("m2", {"MAR-INF/MANIFEST.json": MANIFEST})

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.server.request(method, path, self.server.key(TokenKind.MANAGEMENT), headers, data)

    def assertError(self, answer: Answer, status: int, kind: str, message: str) -> None:
        self.assertEqual(answer.status, status, answer)
        self.assertEqual((answer.json["code"], answer.json["type"]), (status, kind), answer)
        self.assertEqual(answer.json["message"], message)

    def assertStatus(self, answer: Answer, status: int, text: str) -> None:
        self.assertEqual((answer.status, answer.json), (status, {"status": text}))

    def workers(self, name: str = "m") -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self.request("GET", f"/models/{name}").json[0]["workers"]
        return workers


class RegisterTests(ManagementTestCase):
    """Tests for ``POST /models``."""

    def test_without_workers(self) -> None:
        """A model registered without workers says how to get some."""
        self.assertStatus(
            self.request("POST", "/models?url=m"),
            200,
            'Model "m" Version: 1.0 registered with 0 initial workers. '
            "Use scale workers API to add workers for the model.",
        )
        self.assertEqual(self.workers(), [])

    def test_with_workers(self) -> None:
        """A synchronous registration, which is the default, answers when the workers are loaded."""
        self.assertStatus(
            self.request("POST", "/models?url=m&initial_workers=2"),
            200,
            'Model "m" Version: 1.0 registered with 2 initial workers',
        )
        self.assertEqual([worker["status"] for worker in self.workers()], ["READY", "READY"])

    def test_asynchronous(self) -> None:
        """An asynchronous registration answers at once."""
        self.server.provider.load_delay = 5
        self.assertStatus(
            self.request("POST", "/models?url=m&initial_workers=1&synchronous=false"),
            202,
            "Processing worker updates...",
        )
        self.assertEqual([worker["status"] for worker in self.workers()], ["LOADING"])
        self.server.advance(5)
        self.assertEqual([worker["status"] for worker in self.workers()], ["READY"])

    def test_json(self) -> None:
        """A JSON body is read in place of the query; numbers and truth values may be strings."""
        answer = self.request(
            "POST",
            "/models?url=ignored",
            {
                "url": "m",
                "model_name": "other",
                "initial_workers": "1",
                "synchronous": "true",
                "batch_size": 4,
                "max_batch_delay": None,
                "unknown": "member",
            },
        )
        self.assertStatus(answer, 200, 'Model "other" Version: 1.0 registered with 1 initial workers')
        described = self.request("GET", "/models/other").json[0]
        self.assertEqual((described["batchSize"], described["maxBatchDelay"]), (4, 100))

    def test_upper_bound(self) -> None:
        """A bound that would be the end of the machine is refused, the upper one too."""
        self.request("POST", "/models?url=m")
        answer = self.request("PUT", "/models/m?min_worker=1&max_worker=1025")
        self.assertEqual((answer.status, answer.json["message"]), (400, "max_worker must be at most 1024, not 1025."))

    def test_bad_json(self) -> None:
        """A body that is no JSON object of plain values is 400, and says why."""
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"url": ["m"]}', b"[" * 100000):
            answer = self.request("POST", "/models", body)
            self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"), body[:20])

    def test_lenient_numbers(self) -> None:
        """A number that is none counts as not given."""
        answer = self.request(
            "POST", "/models?url=m&batch_size=dd&max_batch_delay=junk&initial_workers=-1&synchronous=-1"
        )
        self.assertEqual(answer.status, 200)
        described = self.request("GET", "/models/m").json[0]
        self.assertEqual((described["batchSize"], described["maxBatchDelay"]), (1, 100))

    def test_refusals(self) -> None:
        """What cannot be registered is refused with the predecessor's status and words."""
        for query, status, kind, message in (
            ("", 400, "BadRequestException", "Parameter url is required."),
            (
                "?url=InvalidUrl&runtime=InvalidRuntime",
                400,
                "BadRequestException",
                "Invalid RuntimeType value: InvalidRuntime",
            ),
            ("?url=InvalidUrl", 404, "ModelNotFoundException", "Model not found at: InvalidUrl"),
            (
                "?url=..%2Ffake.mar",
                404,
                "ModelNotFoundException",
                "Relative path is not allowed in url: ../fake.mar",
            ),
            (
                "?url=http%3A%2F%2Flocalhost%2Ffake.mar",
                404,
                "ModelNotFoundException",
                "Given URL http://localhost/fake.mar does not match any allowed URL(s)",
            ),
            ("?url=&model_name=x", 404, "ModelNotFoundException", "empty url"),
        ):
            self.assertError(self.request("POST", "/models" + query), status, kind, message)
        self.assertEqual(self.request("GET", "/models").json, {"models": []})

    def test_too_many_workers(self) -> None:
        """A number of workers which no machine has room for is refused by name, and nothing is registered."""
        answer = self.request("POST", "/models?url=m&initial_workers=99999")
        self.assertError(answer, 400, "BadRequestException", "initial_workers must be from 0 to 1024, not 99999.")
        self.assertEqual(self.request("GET", "/models").json, {"models": []})

    def test_conflict(self) -> None:
        """A version that is registered already is a conflict; the one that is there stays as it is."""
        self.request("POST", "/models?url=m&initial_workers=1")
        self.assertError(
            self.request("POST", "/models?url=m"),
            409,
            "ConflictStatusException",
            "Model version 1.0 is already registered for model m",
        )
        self.assertEqual(len(self.workers()), 1)

    def test_failed_workers(self) -> None:
        """When the workers cannot be started, the answer says so and why, and nothing is registered."""
        for code, status in ((500, 500), (507, 507), (503, 500)):
            self.server.provider.load_error = WorkerFailed(code, "ImportError: no module named x")
            answer = self.request("POST", "/models?url=m&initial_workers=1")
            self.assertError(
                answer, status, "InternalServerException", "Failed to start workers for model m version: 1.0"
            )
            self.assertIn("ImportError", answer.json["reason"])
            self.assertEqual(self.request("GET", "/models").json, {"models": []})
            self.assertEqual(self.server.provider.alive, [])

    def test_bad_names(self) -> None:
        """A model's name is letters, digits, ``_``, ``-`` and ``.``; another is refused by name."""
        for name in ("a/b", "..", "-x", "a b", "ä", "x" * 300):
            answer = self.server.request(
                "POST",
                "/models",
                self.server.key(TokenKind.MANAGEMENT),
                {"Content-Type": "application/json"},
                json.dumps({"url": "m", "model_name": name}).encode(),
            )
            self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"), name)

    def test_concurrent(self) -> None:
        """Of two registrations of one version at the same time one wins, whole."""
        self.server.provider.load_delay = 5
        key = self.server.key(TokenKind.MANAGEMENT)
        first = self.server.send("POST", "/models?url=m&initial_workers=1", key)
        second = self.server.send("POST", "/models?url=m&initial_workers=1", key)
        self.server.advance(5)
        self.assertEqual(sorted([self.server.answered(first).status, self.server.answered(second).status]), [200, 409])
        self.assertEqual(len(self.server.provider.alive), 1)

    def test_signed_downloads(self) -> None:
        """What cannot be done is refused, and not left out."""
        self.assertError(
            self.request("POST", "/models?url=m&s3_sse_kms=true"),
            400,
            "BadRequestException",
            "Parameter s3_sse_kms: signed downloads are not supported.",
        )

    def test_half_characters(self) -> None:
        """Half of a surrogate pair, which JSON can bring in, is told back as it came, wherever it stands."""
        for name in ("url", "runtime", "model_name", "handler"):
            answer = self.request("POST", "/models", b'{"url": "absent", "%s": "\\ud800"}' % name.encode())
            self.assertIn(answer.status, (400, 404), name)
            self.assertIsInstance(answer.json["message"], str)
        self.assertEqual(self.request("POST", "/models", b'{"\\ud800": []}').status, 400)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_defect(self) -> None:
        """A defect is in the log with its traceback; the client learns that there is one, and nothing of it."""

        def broken(*_args: object) -> Any:
            raise KeyError("a secret")

        with patch("twisted_serve.planes.management.describe", broken):
            self.request("POST", "/models?url=m")
            answer = self.request("GET", "/models/m")
        self.assertError(answer, 500, "InternalServerException", "Internal server error.")
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class ApiOffTests(ManagementTestCase):
    """Tests for a server whose model API is off, which is the default."""

    options = {"enable_model_api": False, "load_models": "m"}

    def test_405(self) -> None:
        """Registering and unregistering are not allowed, even for models that are not there."""
        self.server.restart()
        expected = {
            "code": 405,
            "type": "MethodNotAllowedException",
            "message": "Requested method is not allowed, please refer to API document.",
        }
        for method, path in (
            ("POST", "/models?url=m"),
            ("POST", "/models/?url=m"),
            ("POST", "/models"),
            ("DELETE", "/models/m"),
            ("DELETE", "/models/m/"),
            ("DELETE", "/models/m/1.0"),
            ("DELETE", "/models/absent/1.0"),
            ("DELETE", "/models/m/1.0/set-default"),
            ("DELETE", "/models/m/all"),
        ):
            answer = self.request(method, path)
            self.assertEqual((answer.status, answer.json), (405, expected), (method, path))
        self.assertEqual(self.request("POST", "/models", b"not json").json, expected)
        self.assertEqual(self.request("GET", "/models/m").status, 200)

    def test_others_work(self) -> None:
        """Describing, scaling and choosing the default go on working."""
        self.server.restart()
        self.assertEqual(self.request("GET", "/models/m").status, 200)
        self.assertEqual(self.request("PUT", "/models/m?min_worker=2").status, 202)
        self.assertEqual(self.request("PUT", "/models/m/1.0/set-default").status, 200)
        for method, path in (("OPTIONS", "/models/m"), ("GET", "/v1/models/m"), ("GET", "/models/m?customized=true")):
            self.assertEqual(self.request(method, path).status, 200, path)


class DescribeTests(ManagementTestCase):
    """Tests for ``GET /models`` and below."""

    def test_list_pages(self) -> None:
        """The list goes in pages by name; the token is there as long as more follow."""
        for i in range(5):
            self.request("POST", "/models", {"url": "m", "model_name": f"n{i}"})
        first = self.request("GET", "/models?limit=2").json
        self.assertEqual(first["nextPageToken"], "2")
        self.assertEqual(first["models"], [{"modelName": "n0", "modelUrl": "m"}, {"modelName": "n1", "modelUrl": "m"}])
        last = self.request("GET", "/models?limit=2&next_page_token=3").json
        self.assertEqual([model["modelName"] for model in last["models"]], ["n3", "n4"])
        self.assertNotIn("nextPageToken", last)
        self.assertEqual(self.request("GET", "/models?limit=4").json["nextPageToken"], "4")
        self.assertNotIn("nextPageToken", self.request("GET", "/models?limit=5").json)
        for query in ("?limit=200&nextPageToken=X", "?limit=&next_page_token=", "?limit=-1", "?limit=0"):
            self.assertEqual(len(self.request("GET", "/models" + query).json["models"]), 5, query)
        self.assertEqual(
            self.request("GET", "/models?next_page_token=99999999999").json["models"][0]["modelName"], "n0"
        )
        self.assertEqual(self.request("GET", "/models?next_page_token=12").json, {"models": []})

    def test_describe(self) -> None:
        """A version is described with the predecessor's members, in their order."""
        self.request("POST", "/models?url=m&initial_workers=1")
        [described] = self.request("GET", "/models/m").json
        self.assertEqual(
            list(described),
            [
                "modelName",
                "modelVersion",
                "modelUrl",
                "runtime",
                "minWorkers",
                "maxWorkers",
                "batchSize",
                "maxBatchDelay",
                "responseTimeout",
                "startupTimeout",
                "maxRetryTimeoutInSec",
                "clientTimeoutInMills",
                "parallelType",
                "parallelLevel",
                "deviceType",
                "continuousBatching",
                "useJobTicket",
                "useVenv",
                "stateful",
                "sequenceMaxIdleMSec",
                "sequenceTimeoutMSec",
                "maxNumSequence",
                "maxSequenceJobQueueSize",
                "loadedAtStartup",
                "workers",
                "jobQueueStatus",
                "batchPolicy",
            ],
        )
        self.assertEqual(described["jobQueueStatus"], {"remainingCapacity": 100, "pendingRequests": 0})
        [worker] = described["workers"]
        self.assertEqual(list(worker)[:7], ["id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"])
        self.assertEqual(list(worker)[7:], ["statusSince", "sharesWeights"])
        self.assertEqual((worker["id"], worker["status"], worker["gpu"]), ("9000", "READY", False))
        self.assertEqual(worker["startTime"], "2026-01-01T00:00:00.000Z")

    def test_versions(self) -> None:
        """The default version is described unless another, or ``all``, is named."""
        self.request("POST", "/models?url=m")
        self.request("POST", "/models?url=m2")
        for path, versions in (("m", ["1.0"]), ("m/2.0", ["2.0"]), ("m/all", ["1.0", "2.0"])):
            described = self.request("GET", f"/models/{path}").json
            self.assertEqual([one["modelVersion"] for one in described], versions)
        self.assertError(
            self.request("GET", "/models/m/3.0"),
            404,
            "ModelVersionNotFoundException",
            "Model version: 3.0 does not exist for model: m",
        )
        self.assertError(
            self.request("GET", "/models/absent/all"), 404, "ModelNotFoundException", "Model not found: absent"
        )


class ScaleTests(ManagementTestCase):
    """Tests for ``PUT /models/...``."""

    def setUp(self) -> None:
        super().setUp()
        self.request("POST", "/models?url=m&initial_workers=1")

    def test_up_and_down(self) -> None:
        """Workers come and go as asked, and the answer says what was done."""
        self.assertStatus(
            self.request("PUT", "/models/m?min_worker=3&synchronous=true"), 200, "Workers scaled to 3 for model: m"
        )
        self.assertEqual(len(self.workers()), 3)
        self.assertStatus(
            self.request("PUT", "/models/m/1.0?min_worker=1&synchronous=true"),
            200,
            "Workers scaled to 1 for model: m, version: 1.0",
        )
        self.assertEqual(len(self.workers()), 1)
        self.assertStatus(self.request("PUT", "/models/m"), 202, "Processing worker updates...")

    def test_lenient(self) -> None:
        """Numbers that are none, and parameters which mean nothing, do no harm."""
        for query in ("?min_worker=nan&max_worker=x", "?number_gpu=-1", "?timeout=0", "?min_worker=0", "?max_worker=1"):
            self.assertEqual(self.request("PUT", "/models/m" + query).status, 202, query)

    def test_refusals(self) -> None:
        """Numbers which cannot be are 400 even for models that are not there; the rest is 404."""
        less = "max_worker cannot be less than min_worker."
        self.assertError(
            self.request("PUT", "/models/absent?min_worker=2&max_worker=1"), 400, "BadRequestException", less
        )
        self.assertError(self.request("PUT", "/models/m?max_worker=-1"), 400, "BadRequestException", less)
        for number in ("-1", "1025", "2147483647"):
            answer = self.request("PUT", f"/models/m?min_worker={number}")
            self.assertEqual((answer.status, number in answer.json["message"]), (400, True))
        self.assertEqual(self.request("PUT", "/models/absent").status, 404)
        self.assertEqual(self.request("PUT", "/models/m/9").status, 404)
        self.assertEqual(len(self.workers()), 1)

    def test_failure(self) -> None:
        """When workers cannot be started, a synchronous call says so."""
        self.server.provider.load_error = WorkerFailed(500, "broken")
        self.assertError(
            self.request("PUT", "/models/m?min_worker=2&synchronous=true"),
            500,
            "InternalServerException",
            "Failed to start workers for model m version: null",
        )


class UnregisterTests(ManagementTestCase):
    """Tests for ``DELETE /models/...`` and the default version."""

    def setUp(self) -> None:
        super().setUp()
        self.request("POST", "/models?url=m&initial_workers=1")
        self.request("POST", "/models?url=m2&initial_workers=1")

    def test_default_stays(self) -> None:
        """The default of several versions cannot be removed; when another is the default, it can."""
        self.assertError(
            self.request("DELETE", "/models/m"),
            403,
            "InvalidModelVersionException",
            "Cannot remove default version for model m",
        )
        self.assertStatus(
            self.request("PUT", "/models/m/2.0/set-default"),
            200,
            'Default version successfully updated for model "m" to "2.0"',
        )
        self.assertStatus(self.request("DELETE", "/models/m/1.0"), 200, 'Model "m" unregistered')
        self.assertEqual(len(self.server.provider.alive), 1)
        self.assertStatus(self.request("DELETE", "/models/m/"), 200, 'Model "m" unregistered')
        self.assertEqual(self.server.provider.alive, [])
        self.assertTrue((self.server.directory / "models" / "m").is_dir())

    def test_refusals(self) -> None:
        """Unknown models and versions are 404, each in its own words."""
        self.assertError(
            self.request("DELETE", "/models/absent"), 404, "ModelNotFoundException", "Model not found: absent"
        )
        self.assertError(
            self.request("DELETE", "/models/m/9"),
            404,
            "ModelVersionNotFoundException",
            "Model version: 9 does not exist for model: m",
        )
        self.assertError(
            self.request("PUT", "/models/m/9/set-default"),
            404,
            "ModelVersionNotFoundException",
            "Model version 9 does not exist for model m",
        )
        for method in ("DELETE", "GET", "POST"):
            self.assertEqual(self.request(method, "/models/m/1.0/set-default").status, 405)
        self.assertEqual(len(self.server.provider.alive), 2)

    def test_waiting_requests(self) -> None:
        """What a version that is removed has let in is finished, in time; the version is gone at once."""
        self.request("PUT", "/models/m/2.0/set-default")
        worker = self.server.provider.workers[0]
        worker.holding = True
        key = self.server.key(TokenKind.INFERENCE)
        working = self.server.send("POST", "/predictions/m/1.0", key, body=b"working")
        waiting = self.server.send("POST", "/predictions/m/1.0", key, body=b"waiting")
        removed = self.server.send("DELETE", "/models/m/1.0", self.server.key(TokenKind.MANAGEMENT))
        self.assertEqual(404, self.request("GET", "/models/m/1.0").status)
        with self.assertRaises(NoAnswerYet):
            self.server.answered(removed)
        worker.answer()
        self.assertEqual(self.server.answered(working).body, b"working")
        worker.answer()
        self.assertEqual(self.server.answered(waiting).body, b"waiting")
        self.assertEqual(self.server.answered(removed).status, 200)


class TokenRouteTests(ManagementTestCase):
    """Tests for ``/token``."""

    def rotate(self, query: str, method: str = "POST") -> Answer:
        return self.server.request(method, "/token" + query, self.server.key(TokenKind.API))

    def test_rotation(self) -> None:
        """The answer is the new key with its expiry, which the file has, too; the old key is dead at once."""
        for method in ("GET", "POST"):
            for kind in (TokenKind.MANAGEMENT, TokenKind.INFERENCE):
                old = self.server.keys
                self.server.advance(600)
                answer = self.rotate(f"?type={kind.value}", method)
                self.assertEqual(answer.status, 200)
                file = json.loads(self.server.key_file.read_bytes())
                self.assertEqual(answer.json, {"type": kind.value, **file[kind.value]})
                self.assertEqual(self.server.key(kind), answer.json["key"])
                self.assertNotEqual(old.of(kind).secret, answer.json["key"])
                self.assertEqual(self.server.keys.replacing(old.of(kind)), old)

    def test_bad_type(self) -> None:
        """A missing or wrong type is 400 and named; no key changes."""
        keys = self.server.keys
        for query, word in (
            ("", "required"),
            ("?type=", "''"),
            ("?type=API", "'API'"),
            ("?type=Management", "'Management'"),
            ("?type=x&type=management", "'x'"),
            ("?tyPe=inference", "required"),
        ):
            answer = self.rotate(query)
            self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"), query)
            self.assertIn("type", answer.json["message"])
            self.assertIn(word, answer.json["message"])
        self.assertEqual(self.server.keys, keys)

    def test_write_failure(self) -> None:
        """When the file cannot be written the answer is 500 and says so, and the old key goes on opening."""
        keys, text = self.server.keys, self.server.key_file.read_bytes()
        with patch.object(os, "replace", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            answer = self.rotate("?type=management")
        self.assertEqual((answer.status, answer.json["type"]), (500, "InternalServerException"))
        self.assertIn("No space left on device", answer.json["message"])
        self.assertEqual((self.server.keys, self.server.key_file.read_bytes()), (keys, text))
        self.assertEqual(self.request("GET", "/models").status, 200)
        self.assertEqual(sorted(path.name for path in self.server.directory.glob("*key*")), ["key_file.json"])

    def test_many_at_once(self) -> None:
        """However many rotations come at once, memory and file agree in the end."""
        key = self.server.key(TokenKind.API)
        connection = self.server.connect(self.role())
        head = "POST /token?type={} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\n\r\n"
        connection.send("".join(head.format(k, key) for k in ("management", "inference") * 20).encode())
        self.assertEqual(connection.received.count(b"HTTP/1.1 200"), 40)
        file = json.loads(self.server.key_file.read_bytes())
        self.assertEqual(
            {kind.value: self.server.key(kind) for kind in TokenKind}, {k: v["key"] for k, v in file.items()}
        )

    def role(self) -> Any:
        from twisted_serve.testing.server import Role

        return Role.MANAGEMENT


class AutoRotateTests(SynchronousTestCase):
    """Tests for ``token_auto_rotate``."""

    def test_replaced_when_expired(self) -> None:
        """With automatic rotation an expired key is replaced, in memory and in the file; a full disk is survived."""
        server = MemoryServer({"token_auto_rotate": True, "token_expiration_min": 1})
        self.addCleanup(server.close)
        old = server.keys
        with patch.object(os, "replace", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            server.advance(60)
        self.assertEqual(server.keys, old)
        server.advance(30)
        self.assertNotEqual(server.keys.inference, old.inference)
        self.assertNotEqual(server.keys.management, old.management)
        self.assertEqual(server.keys.api, old.api)
        self.assertEqual(server.request("GET", "/ping", server.key(TokenKind.INFERENCE)).status, 200)
        file = json.loads(server.key_file.read_bytes())
        self.assertEqual(file["inference"]["key"], server.key(TokenKind.INFERENCE))
