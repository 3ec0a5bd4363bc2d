# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.rpc.services.management``, over the planes of a server in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from tests.rpc.services.service_case import RecordingCall, ServiceTestCase
from twisted_serve.errors import WorkerFailed
from twisted_serve.rpc.messages import (
    DescribeModelRequest,
    ListModelsRequest,
    RegisterModelRequest,
    ScaleWorkerRequest,
    SetDefaultRequest,
    UnregisterModelRequest,
)
from twisted_serve.wire.messages import Item, Job

NOT_FOUND = "org.pytorch.serve.archive.model.ModelNotFoundException"
NO_VERSION = "org.pytorch.serve.archive.model.ModelVersionNotFoundException"
LESS = "max_worker cannot be less than min_worker."
BAD = "org.pytorch.serve.http.BadRequestException"


class ManagementTestCase(ServiceTestCase):
    """A server with one model, and others in its store."""

    def setUp(self) -> None:
        super().setUp()
        self.server.add_model("n", {})
        second = {"model": {"modelName": "m", "modelVersion": "2.0", "handler": "handler.py"}}
        self.server.add_model("m2", {"MAR-INF/MANIFEST.json": json.dumps(second)})

    def register(self, **fields: Any) -> str:
        return str(
            self.answer("RegisterModel", RegisterModelRequest(**{"url": "n", "synchronous": True, **fields})).msg
        )

    def described(self, name: str = "n", version: str = "") -> Any:
        message = DescribeModelRequest(model_name=name, model_version=version)
        return json.loads(self.answer("DescribeModel", message).msg)

    def refused(self, **fields: Any) -> Any:
        return self.status("RegisterModel", RegisterModelRequest(**fields))


class RegisterTests(ManagementTestCase):
    """Registrations."""

    def test_synchronous(self) -> None:
        self.assertEqual(self.register(initial_workers=2), 'Model "n" Version: 1.0 registered with 2 initial workers')

    def test_asynchronous(self) -> None:
        """A registration does not wait for workers unless it says so; over HTTP it does."""
        self.server.provider.load_delay = 5
        self.assertEqual(self.register(initial_workers=1, synchronous=False), "Processing worker updates...")
        self.server.advance(5)
        self.assertEqual([worker["status"] for worker in self.described()[0]["workers"]], ["READY"])

    def test_absent(self) -> None:
        """Zeros and negative numbers count as absent."""
        names = ("initial_workers", "batch_size", "max_batch_delay", "response_timeout", "startup_timeout")
        seen = ("minWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
        for name, fields in (("zero", {}), ("less", dict.fromkeys(names, -3))):
            self.register(model_name=name, **fields)
            [described] = self.described(name)
            self.assertEqual([described[each] for each in seen], [1, 1, 100, 120, 120])

    def test_fields(self) -> None:
        """Each field has its effect."""
        self.register(
            model_name="all",
            initial_workers=1,
            batch_size=3,
            max_batch_delay=7,
            response_timeout=33,
            startup_timeout=44,
            handler="handler.py",
            runtime="python3",
        )
        [described] = self.described("all")
        seen = ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout", "runtime", "modelUrl")
        self.assertEqual([described[each] for each in seen], [3, 7, 33, 44, "python3", "n"])

    def test_refused(self) -> None:
        """Bad values have TorchServe's codes and texts."""
        self.assertStatus(self.refused(), 3, "Parameter url is required.", BAD)
        self.assertStatus(self.refused(url="n.mar"), 5, "Model not found at: n.mar", NOT_FOUND)
        self.assertStatus(self.refused(url="../n"), 5, "Relative path is not allowed in url: ../n", NOT_FOUND)
        self.assertStatus(self.refused(url="n", runtime="python4"), 3, "Invalid RuntimeType value: python4", BAD)
        self.assertStatus(
            self.refused(url="n", s3_sse_kms=True), 3, "Parameter s3_sse_kms: signed downloads are not supported.", BAD
        )
        status = self.refused(url="http://127.0.0.1:1/n.mar")
        self.assertEqual(int(status.code), 5)
        self.assertTrue(
            status.message.startswith("Given URL http://127.0.0.1:1/n.mar does not match any allowed URL(s)")
        )

    def test_conflict(self) -> None:
        """The same version again is a conflict, where TorchServe's call ends as UNKNOWN without a text."""
        status = self.refused(url="m")
        self.assertEqual(status.code, 6)
        self.assertTrue(status.message.endswith("\norg.pytorch.serve.http.ConflictStatusException"), status.message)

    def test_workers_fail(self) -> None:
        """If the workers of a synchronous registration fail, nothing is registered; code and text are TorchServe's."""
        self.server.provider.load_error = WorkerFailed(500, "no luck")
        status = self.refused(url="n", initial_workers=1, synchronous=True)
        text = "Failed to start workers for model n version: 1.0"
        self.assertStatus(status, 13, text, "org.pytorch.serve.http.InternalServerException")
        self.assertEqual(self.status("DescribeModel", DescribeModelRequest(model_name="n")).code, 5)

    def test_client_leaves(self) -> None:
        """A registration is completed even if the client leaves."""
        self.server.provider.load_delay = 5
        waiting = self.ask("RegisterModel", RegisterModelRequest(url="n", initial_workers=1, synchronous=True))
        waiting.cancel()
        self.failureResultOf(waiting)
        self.server.advance(5)
        self.assertEqual([worker["status"] for worker in self.described()[0]["workers"]], ["READY"])

    def test_failure_after_client_left(self) -> None:
        """What a client that has left cannot be told is in the log."""
        self.server.provider.load_delay = None
        waiting = self.ask("RegisterModel", RegisterModelRequest(url="n", initial_workers=1, synchronous=True))
        waiting.cancel()
        self.failureResultOf(waiting)
        with capturedLogs() as events:
            self.worker.fail_to_load(WorkerFailed(500, "No luck."))
        self.assertIn("A change whose client had left failed", " ".join(str(formatEvent(event)) for event in events))


class ApiOffTests(ServiceTestCase):
    """A server whose clients may not register models."""

    options = {"enable_model_api": False}

    def test_refused(self) -> None:
        """Registering and unregistering are refused with TorchServe's text, whatever the message; the rest is not."""
        for method, message in (
            ("RegisterModel", RegisterModelRequest(s3_sse_kms=True)),
            ("UnregisterModel", UnregisterModelRequest()),
        ):
            status = self.status(method, message)
            self.assertStatus(status, 7, "Model API disabled", "org.pytorch.serve.archive.model.ModelException")
        self.answer("ScaleWorker", ScaleWorkerRequest(model_name="m", min_worker=2))
        self.answer("DescribeModel", DescribeModelRequest(model_name="m"))


class ScaleTests(ManagementTestCase):
    """Numbers of workers."""

    def scale(self, **fields: Any) -> str:
        message = ScaleWorkerRequest(**{"model_name": "m", "synchronous": True, **fields})
        return str(self.answer("ScaleWorker", message).msg)

    def test_numbers(self) -> None:
        """One worker is the least, and as many as the least the default of the most; the rest is ignored."""
        for fields, least, most in (
            ({}, 1, 1),
            ({"min_worker": 2}, 2, 2),
            ({"min_worker": 2, "max_worker": 3, "number_gpu": 3, "timeout": -1}, 2, 3),
            ({"max_worker": 2}, 1, 2),
            ({"min_worker": -1, "max_worker": -1}, 1, 1),
        ):
            with self.subTest(fields):
                self.assertEqual(self.scale(**fields), f"Workers scaled to {least} for model: m")
                [described] = self.described("m")
                self.assertEqual((described["minWorkers"], described["maxWorkers"]), (least, most))

    def test_version(self) -> None:
        self.assertEqual(self.scale(model_version="1.0"), "Workers scaled to 1 for model: m, version: 1.0")

    def test_asynchronous(self) -> None:
        self.assertEqual(self.scale(min_worker=2, synchronous=False), "Processing worker updates...")

    def test_refused(self) -> None:
        """Unknown models and versions, also without a name, where TorchServe's call ends as UNKNOWN."""
        for fields, code, *lines in (
            (
                {"model_name": "m", "min_worker": 2, "max_worker": 1},
                3,
                "max_worker cannot be less than min_worker.",
                BAD,
            ),
            ({"model_name": "nope"}, 5, "Model not found: nope", NOT_FOUND),
            ({}, 5, "Model not found: ", NOT_FOUND),
            ({"model_name": "m", "model_version": "9"}, 5, "Model version: 9 does not exist for model: m", NO_VERSION),
        ):
            self.assertStatus(self.status("ScaleWorker", ScaleWorkerRequest(**fields)), code, *lines)

    def test_most(self) -> None:
        """No client starts a million processes."""
        status = self.status("ScaleWorker", ScaleWorkerRequest(model_name="m", min_worker=1_000_000))
        self.assertEqual(status.code, 3)
        self.assertEqual(len(self.server.provider.workers), 1)

    def test_workers_fail(self) -> None:
        self.server.provider.load_error = WorkerFailed(500, "no luck")
        status = self.status("ScaleWorker", ScaleWorkerRequest(model_name="m", min_worker=2, synchronous=True))
        text = "Failed to start workers for model m version: null"
        self.assertStatus(status, 13, text, "org.pytorch.serve.http.InternalServerException")


class DescribeTests(ManagementTestCase):
    """Descriptions and lists."""

    def test_text(self) -> None:
        """The text is that of HTTP, without the newline at the end."""
        message = DescribeModelRequest(model_name="m")
        rest = self.server.request("GET", "/models/m").body.decode()
        self.assertEqual(self.answer("DescribeModel", message).msg + "\n", rest)
        self.assertEqual(self.answer("ListModels", ListModelsRequest()).msg, (
            '{\n  "models": [\n    {\n      "modelName": "m",\n      "modelUrl": "m"\n    }\n  ]\n}'
        ))  # fmt: skip

    def test_versions(self) -> None:
        self.register(url="m2")
        for version, found in (("", ["1.0"]), ("2.0", ["2.0"]), ("all", ["1.0", "2.0"])):
            self.assertEqual([each["modelVersion"] for each in self.described("m", version)], found)

    def test_unknown(self) -> None:
        """Unknown models and versions are not found, with and without the handler's metadata; TorchServe's are 13."""
        for customized in (False, True):
            for name, version, *lines in (
                ("nope", "", "Model not found: nope", NOT_FOUND),
                ("nope", "all", "Model not found: nope", NOT_FOUND),
                ("", "", "Model not found: ", NOT_FOUND),
                ("m", "9", "Model version: 9 does not exist for model: m", NO_VERSION),
            ):
                message = DescribeModelRequest(model_name=name, model_version=version, customized=customized)
                self.assertStatus(self.status("DescribeModel", message), 5, *lines)

    def test_customized(self) -> None:
        """A handler adds to the description of one version; its status has no place in it."""
        self.server.provider.respond = lambda jobs: [
            Item(job.request_id, 418, "", {}, b'{"custom": "\\ud800"}') for job in jobs
        ]
        message = DescribeModelRequest(model_name="m", customized=True)
        [described] = json.loads(self.answer("DescribeModel", message).msg)
        self.assertEqual(described["customizedMetadata"], {"custom": "\ud800"})
        [job] = self.jobs
        self.assertEqual(job, Job("job", {"describe": "True"}, []))
        every = DescribeModelRequest(model_name="m", model_version="all", customized=True)
        self.assertNotIn("customizedMetadata", self.answer("DescribeModel", every).msg)

    def test_customized_without_worker(self) -> None:
        """Without a worker the client may try again; the text is TorchServe's."""
        self.answer("ScaleWorker", ScaleWorkerRequest(model_name="m"))
        self.server.request("PUT", "/models/m?min_worker=0&synchronous=true")
        status = self.status("DescribeModel", DescribeModelRequest(model_name="m", customized=True))
        text = 'Model "m" has no worker to serve describe request. Please use scale workers API to add workers.'
        self.assertStatus(status, 14, text, "InternalServerException.()")

    def test_customized_cancelled(self) -> None:
        """A client that leaves frees the worker."""
        self.worker.holding = True
        waiting = self.ask("DescribeModel", DescribeModelRequest(model_name="m", customized=True))
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(self.worker.cancelled, ["job"])

    def test_pages(self) -> None:
        """Without a limit there are up to 100 models on a page, and not none as in TorchServe."""
        self.register()
        for fields, names, token in (
            ({}, ["m", "n"], None),
            ({"limit": 1}, ["m"], "1"),
            ({"limit": 1, "next_page_token": 1}, ["n"], None),
            ({"limit": -1, "next_page_token": -1}, ["m", "n"], None),
            ({"limit": 1000}, ["m", "n"], None),
            ({"next_page_token": 12}, [], None),
        ):
            listed = json.loads(self.answer("ListModels", ListModelsRequest(**fields)).msg)
            self.assertEqual([each["modelName"] for each in listed["models"]], names)
            self.assertEqual(listed.get("nextPageToken"), token)


class VersionTests(ManagementTestCase):
    """Default versions, and the end of others."""

    def test_default(self) -> None:
        """The text is plain, as in TorchServe."""
        self.register(url="m2")
        message = SetDefaultRequest(model_name="m", model_version="2.0")
        text = 'Default version successfully updated for model "m" to "2.0"'
        self.assertEqual(self.answer("SetDefault", message).msg, text)
        self.assertEqual(self.described("m")[0]["modelVersion"], "2.0")

    def test_unknown(self) -> None:
        for name, version, *lines in (
            ("m", "9", "Model version 9 does not exist for model m", NO_VERSION),
            ("m", "", "Model version  does not exist for model m", NO_VERSION),
            ("nope", "1.0", "Model not found: nope", NOT_FOUND),
            ("", "", "Model not found: ", NOT_FOUND),
        ):
            message = SetDefaultRequest(model_name=name, model_version=version)
            self.assertStatus(self.status("SetDefault", message), 5, *lines)

    def test_unregister(self) -> None:
        """The default version of several stays, with a code and a text; TorchServe's call ends as UNKNOWN."""
        self.register(url="m2")
        status = self.status("UnregisterModel", UnregisterModelRequest(model_name="m"))
        text = "Cannot remove default version for model m"
        self.assertStatus(status, 9, text, "org.pytorch.serve.http.InvalidModelVersionException")
        for version in ("2.0", ""):
            message = UnregisterModelRequest(model_name="m", model_version=version)
            self.assertEqual(self.answer("UnregisterModel", message).msg, 'Model "m" unregistered')
        self.assertStatus(self.status("UnregisterModel", message), 5, "Model not found: m", NOT_FOUND)

    def test_unregister_unknown(self) -> None:
        for name, version, code, *lines in (
            ("m", "9", 5, "Model version: 9 does not exist for model: m", NO_VERSION),
            ("nope", "", 5, "Model not found: nope", NOT_FOUND),
            ("", "1.0", 3, "Parameter url is required.", BAD),
        ):
            message = UnregisterModelRequest(model_name=name, model_version=version)
            self.assertStatus(self.status("UnregisterModel", message), code, *lines)

    def test_client_leaves(self) -> None:
        """A version is removed completely even if the client leaves while its work is finished."""
        self.worker.holding = True
        call: Deferred[Any] = self.inference.predict("m", None, Job("other", {}, []), None)
        waiting = self.ask("UnregisterModel", UnregisterModelRequest(model_name="m"), RecordingCall())
        waiting.cancel()
        self.failureResultOf(waiting)
        self.worker.answer()
        self.successResultOf(call)
        self.assertEqual(self.server.provider.alive, [])
