# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.rpc.services.repository`: models loaded, unloaded and listed by name."""

from __future__ import annotations

import json
import zipfile
from typing import Any

from tests.rpc.services.open_inference_case import OpenInferenceTestCase
from twisted_serve.errors import WorkerFailed
from twisted_serve.rpc.messages import (
    ModelRepositoryParameter,
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from twisted_serve.rpc.statuses import Code


class RepositoryTests(OpenInferenceTestCase):
    """Loading, unloading, listing."""

    options = {"default_workers_per_model": 0}

    def index(self, **members: Any) -> list[tuple[str, str, str]]:
        models = self.answer("RepositoryIndex", RepositoryIndexRequest(**members)).models
        return [(model.name, model.version, model.state) for model in models]

    def test_index(self) -> None:
        """The index has each version with its state."""
        self.assertEqual(self.index(), [("m", "1.0", "READY")])
        self.server.add_model("n", {"model-config.yaml": "minWorkers: 0\nmaxWorkers: 1\n"})
        self.answer("RepositoryModelLoad", RepositoryModelLoadRequest(repository_name="n"))
        self.assertEqual(self.index(), [("m", "1.0", "READY"), ("n", "1.0", "UNAVAILABLE")])
        self.assertEqual(self.index(ready=True), [("m", "1.0", "READY")])

    def test_load(self) -> None:
        """Clients of KServe and Triton have the name in different fields; a model is loaded with a worker at least."""
        before = len(self.server.provider.workers)
        self.server.add_model("a", {})
        self.server.add_model("b", {"model-config.yaml": "minWorkers: 2\nmaxWorkers: 2\n"})
        kserve = self.answer("RepositoryModelLoad", RepositoryModelLoadRequest(repository_name="a"))
        self.assertEqual((kserve.model_name, kserve.isLoaded), ("a", True))
        triton = RepositoryModelLoadRequest(repository_name="store", model_name="b")
        self.assertEqual(self.answer("RepositoryModelLoad", triton).model_name, "b")
        self.assertEqual([name for name, _, state in self.index() if state == "READY"], ["a", "b", "m"])
        self.assertEqual(len(self.server.provider.workers), before + 3)
        # Again is no change.
        self.answer("RepositoryModelLoad", triton)
        self.assertEqual(len(self.index()), 3)

    def test_archive(self) -> None:
        """A name is that of a file without its suffix, too, whatever its manifest is called."""
        with zipfile.ZipFile(self.server.directory / "models" / "c.mar", "w") as archive:
            model = {"modelName": "other", "modelVersion": "2.0", "handler": "handler.py"}
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
            archive.writestr("handler.py", "")
        self.answer("RepositoryModelLoad", RepositoryModelLoadRequest(repository_name="c"))
        self.assertIn(("c", "2.0", "READY"), self.index())

    def test_unload(self) -> None:
        """All versions are unregistered, with their workers."""
        for version in ("2.0", "3.0"):
            manifest = {"model": {"modelName": "m", "modelVersion": version, "handler": "handler.py"}}
            self.server.add_model(f"m{version}", {"MAR-INF/MANIFEST.json": json.dumps(manifest)})
            self.server.request("POST", f"/models?url=m{version}&initial_workers=1")
        self.assertEqual(len(self.index()), 3)
        message = RepositoryModelUnloadRequest(repository_name="m")
        answer = self.answer("RepositoryModelUnload", message)
        self.assertEqual((answer.model_name, answer.isUnloaded, self.index()), ("m", True, []))
        self.assertFalse(any(worker.alive for worker in self.server.provider.workers))
        self.assertEqual(self.status("RepositoryModelUnload", message).code, Code.NOT_FOUND)

    def test_refused(self) -> None:
        """A name is no path and no URL; what is not in the store is not found; nothing is registered."""
        for name, code, words in (
            ("", Code.INVALID_ARGUMENT, "Parameter model_name is required."),
            ("../m", Code.INVALID_ARGUMENT, "is not valid"),
            ("a/b", Code.INVALID_ARGUMENT, "is not valid"),
            ("..", Code.INVALID_ARGUMENT, "is not valid"),
            ("http://h/m.mar", Code.INVALID_ARGUMENT, "is not valid"),
            ("file:m", Code.INVALID_ARGUMENT, "is not valid"),
            ("x" * 300, Code.INVALID_ARGUMENT, "is not valid"),
            ("absent", Code.NOT_FOUND, "Model not found in the model store: absent"),
        ):
            status = self.status("RepositoryModelLoad", RepositoryModelLoadRequest(repository_name=name))
            self.assertEqual(status.code, code, name)
            self.assertIn(words, status.message)
        config = ModelRepositoryParameter(string_param="{}")
        message = RepositoryModelLoadRequest(model_name="m", parameters={"config": config})
        self.assertIn("parameters has 'config'", self.status("RepositoryModelLoad", message).message)
        self.assertEqual(len(self.index()), 1)

    def test_workers_fail(self) -> None:
        """A model whose worker does not start is not there afterwards."""
        self.server.add_model("a", {})
        self.server.provider.load_delay = 1.0
        loading = self.ask("RepositoryModelLoad", RepositoryModelLoadRequest(repository_name="a"))
        self.worker.fail_to_load(WorkerFailed(500, "no"))
        self.server.advance(1)
        self.assertIn("Failed to start workers", self.failureResultOf(loading).value.message)
        self.assertEqual([name for name, _, _ in self.index()], ["m"])

    def test_client_leaves(self) -> None:
        """A change is completed even if its client leaves."""
        self.server.add_model("a", {})
        self.server.provider.load_delay = 1.0
        loading = self.ask("RepositoryModelLoad", RepositoryModelLoadRequest(repository_name="a"))
        loading.cancel()
        self.failureResultOf(loading)
        self.server.advance(2)
        self.assertIn(("a", "1.0", "READY"), self.index())


class DisabledTests(OpenInferenceTestCase):
    """A server without the model API."""

    options = {"enable_model_api": False}

    def test_disabled(self) -> None:
        """Clients change nothing."""
        for method, kind in (
            ("RepositoryModelLoad", RepositoryModelLoadRequest),
            ("RepositoryModelUnload", RepositoryModelUnloadRequest),
        ):
            self.assertEqual(self.status(method, kind(repository_name="m")).code, Code.UNIMPLEMENTED)
        self.assertEqual(len(self.answer("RepositoryIndex", RepositoryIndexRequest()).models), 1)
