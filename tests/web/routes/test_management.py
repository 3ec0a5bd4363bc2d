# SPDX-License-Identifier: Apache-2.0
"""
The management routes, against the whole server in memory.
"""

from __future__ import annotations

from tests.web.routes.management_case import ManagementTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import NoAnswerYet


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
        """A version is described in the order of its members, which are in ``tests/planes/test_describing.py``."""
        self.request("POST", "/models?url=m&initial_workers=1")
        [described] = self.request("GET", "/models/m").json
        self.assertEqual(list(described)[:4], ["modelName", "modelVersion", "modelUrl", "runtime"])
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
