# SPDX-License-Identifier: Apache-2.0
"""Tests for the routes by which models come."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from tests.web.routes.management_case import ManagementTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import MemoryServer


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

    def test_no_workers(self) -> None:
        """Less than one worker is none, whatever the default is; what is no number leaves it to the default."""
        self.server.close()
        self.server = MemoryServer({"default_workers_per_model": 2})
        self.addCleanup(self.server.close)
        self.server.add_model("m", {})
        for number, workers in (("-1", 0), ("0", 0), ("-2147483648", 0), ("-2147483649", 2), ("junk", 2), ("", 2)):
            for synchronous in ("true", "false"):
                answer = self.request("POST", f"/models?url=m&initial_workers={number}&synchronous={synchronous}")
                self.assertEqual(answer.status, 202 if workers and synchronous == "false" else 200)
                self.assertEqual(len(self.workers()), workers, number)
                self.request("DELETE", "/models/m")
        self.assertStatus(
            self.request("POST", "/models", {"url": "m", "initial_workers": -1}),
            200,
            'Model "m" Version: 1.0 registered with 0 initial workers. '
            "Use scale workers API to add workers for the model.",
        )

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

    def test_names_of_no_file(self) -> None:
        """A file in the manifest whose name is too long for one is refused by name, and nothing is left."""
        for entry, value in (
            ("handler", "h" * 253 + ".py"),
            ("handler", "h" * 253),
            ("handler", "h" * 253 + ":f"),
            ("serializedFile", "w" * 300),
            ("modelFile", "d/" * 2500),
            ("requirementsFile", "r" * 256),
            ("configFile", "c" * 256),
            ("sourceVocab", "v" * 256),
        ):
            model = {"modelName": "m", "handler": "handler.py", entry: value}
            self.server.add_model("long", {"MAR-INF/MANIFEST.json": json.dumps({"model": model})})
            for synchronous in ("true", "false"):
                answer = self.request("POST", f"/models?url=long&initial_workers=1&synchronous={synchronous}")
                self.assertEqual((answer.status, answer.json["type"]), (400, "InvalidModelException"), answer)
                self.assertIn(f"Manifest entry {entry} is {value[:100]!r:.90}", answer.json["message"])
                self.assertEqual(self.request("GET", "/models").json, {"models": []})
        self.assertEqual(self.server.provider.workers, [])

    def test_handler_elsewhere(self) -> None:
        """A handler that a client names is one of the archive, or a built-in one: it is no way to other files."""
        for handler in ("/etc/passwd", "../m2/handler.py", "../m2/handler:f", "h" * 253):
            answer = self.request("POST", f"/models?url=m&handler={handler}")
            self.assertEqual((answer.status, answer.json["type"]), (400, "InvalidModelException"), answer)
            self.assertIn(f"Parameter handler is {handler.partition(':')[0][:100]!r:.90}", answer.json["message"])
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
        """A name that cannot stand in a path, or has another reading there, is refused by name."""
        for name in ("a/b", "..", "a\n", "a:predict", "a\u202eb", "x" * 300):
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
