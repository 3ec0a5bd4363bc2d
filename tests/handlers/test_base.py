# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.handlers.base` and `twisted_serve.handlers.weights`, with small real models."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers import compiling, onnx_model, weights
from twisted_serve.handlers.base import BaseHandler
from twisted_serve.testing.local_worker import local_worker
from twisted_serve.wire.messages import Job, Part, Predicted

torch = pytest.importorskip("torch", reason="torch is not installed")

MODEL = """
import torch

class Double(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return x * self.factor
"""

HANDLER = """
import json
from ts.torch_handler.base_handler import BaseHandler

class Handler(BaseHandler):
    def preprocess(self, data):
        return super().preprocess([row["body"] for row in data])

    def describe_handle(self):
        return {"mapping": self.mapping, "device": str(self.get_device()), "compiled": hasattr(self.model, "_orig_mod")}

    def get_insights(self, tensor_data, raw_data, target):
        return [[tensor_data.tolist(), raw_data, target]]
"""


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("echo owned > owned",)


class BaseHandlerTests(SynchronousTestCase):
    """Models that archives bring."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        self._write("h.py", HANDLER)

    def _write(self, name: str, text: str) -> None:
        (self.dir / name).write_text(text)

    def _eager(self) -> dict[str, Any]:
        self._write("model.py", MODEL)
        torch.save({"factor": torch.tensor(2.0)}, self.dir / "m.pt")
        return {"model": {"modelFile": "model.py", "serializedFile": "m.pt"}}

    def _script(self) -> dict[str, Any]:
        scope: dict[str, Any] = {}
        exec(MODEL, scope)
        torch.jit.trace(scope["Double"](), torch.ones(1)).save(str(self.dir / "m.pt"))
        return {"model": {"serializedFile": "m.pt"}}

    def _ask(self, manifest: dict[str, Any], body: bytes, headers: dict[str, str], **settings: Any) -> bytes:
        with local_worker(self.dir, "h.py", manifest=manifest, **settings) as worker:
            answer = worker.answer(Job("r", headers, [Part("body", "application/json", body)]))
        assert isinstance(answer, Predicted), answer
        return answer.items[0].body

    def _refused(self, manifest: dict[str, Any], error: type[Exception]) -> str:
        with self.assertRaises(error) as raised, local_worker(self.dir, "h.py", manifest=manifest):
            pass
        return str(raised.exception)

    def test_eager(self) -> None:
        """A class with a state dict is put together and answers."""
        self.assertEqual(self._ask(self._eager(), b"1.5", {}), b"3.0")

    def test_two_models(self) -> None:
        """A handler may load further models from its directory; the import path does not grow."""
        manifest = self._eager()
        with local_worker(self.dir, "h.py", manifest=manifest):
            before = sys.path[:]
            weights.eager_model(str(self.dir), "model.py", None, "cpu")
            self.assertEqual(sys.path, before)
            sys.path.remove(str(self.dir))
            weights.eager_model(str(self.dir), "model.py", None, "cpu")
            self.assertEqual(sys.path[0], str(self.dir))

    def test_eager_without_weights(self) -> None:
        """A class alone is a model, too."""
        self._write("model.py", MODEL)
        self.assertEqual(self._ask({"model": {"modelFile": "model.py"}}, b"1.5", {}), b"1.5")

    def test_script(self) -> None:
        """A TorchScript file needs no class."""
        self.assertEqual(self._ask(self._script(), b"1.5", {}), b"1.5")

    def test_batch(self) -> None:
        """Each request of a batch gets its own part of the output."""
        with local_worker(self.dir, "h.py", manifest=self._eager()) as worker:
            items = worker.predict(*(Part("body", "application/json", body) for body in (b"1", b"2", b"3")))
        self.assertEqual([each.body for each in items], [b"2.0", b"4.0", b"6.0"])

    def test_describe(self) -> None:
        """A describe call asks the handler about itself, and runs no model."""
        self._write("index_to_name.json", '{"0": "zero"}')
        answer = self._ask(self._eager(), b"{}", {"describe": "True"})
        self.assertEqual(
            eval(answer.replace(b"false", b"False")), {"mapping": {"0": "zero"}, "device": "cpu", "compiled": False}
        )

    def test_describe_nothing(self) -> None:
        """By default there is nothing to tell."""
        self.assertIsNone(BaseHandler().describe_handle())

    def test_explain(self) -> None:
        """An explanation gets the prepared input, the raw one, and the target."""
        answer = self._ask(self._eager(), b"1", {"explain": "True"})
        self.assertEqual(eval(answer), [[1], 1, 0])

    def test_explain_target(self) -> None:
        """The target is where the client put it."""
        handler = BaseHandler()
        seen: list[Any] = []
        handler.get_insights = lambda *given: seen.append(given)  # type: ignore[method-assign]
        handler.explain_handle("x", [{"data": {"target": 3}}])
        handler.explain_handle("x", [{"body": b"raw", "target": 4}])
        self.assertEqual(seen, [("x", {"target": 3}, 3), ("x", b"raw", 4)])

    def test_no_explanation(self) -> None:
        """A handler that explains nothing says so."""
        self.assertRaises(NotImplementedError, BaseHandler().get_insights, None, None, 0)

    def test_no_constructor(self) -> None:
        """A subclass that leaves out ``super().__init__()`` works."""
        self._write(
            "h.py", HANDLER.replace("    def preprocess", "    def __init__(self): pass\n    def preprocess", 1)
        )
        self.assertEqual(self._ask(self._eager(), b"1.5", {}), b"3.0")

    def test_no_metrics(self) -> None:
        """A handler called without metrics, or context, just answers."""
        handler = BaseHandler()
        handler.model, handler.device = (lambda x: x + 1), "cpu"
        self.assertEqual(handler.handle([1, 2], None), [2, 3])

    def test_no_class_file(self) -> None:
        """A model file that is not in the archive is named."""
        self.assertEqual(self._refused({"model": {"modelFile": "gone.py"}}, RuntimeError), "Missing the gone.py file")

    def test_classes(self) -> None:
        """A model file must define one class."""
        for text in ("", MODEL + "class Other: pass\n"):
            self._write("model.py", text)
            message = self._refused({"model": {"modelFile": "model.py"}}, ValueError)
            self.assertIn("Expected only one class as model definition.", message)

    def test_no_weights(self) -> None:
        """Without weights that can be read there is no model, and the message says which."""
        for manifest, named in (
            ({}, "no serializedFile"),
            ({"model": {}}, "no serializedFile"),
            ({"model": {"serializedFile": "gone.pt"}}, "gone.pt is not in the archive"),
            ({"model": {"serializedFile": "h.py"}}, "h.py"),
        ):
            message = self._refused(manifest, RuntimeError)
            self.assertTrue(message.startswith("No model weights could be loaded"), message)
            self.assertIn(named, message)

    def test_pickle(self) -> None:
        """A weights file that would run code when it is loaded is refused, and runs none."""
        manifest = self._eager()
        torch.save({"factor": Evil()}, self.dir / "m.pt")
        self.assertIn("m.pt holds more than tensors", self._refused(manifest, RuntimeError))
        (self.dir / "m.pt").write_bytes(pickle.dumps(Evil()))
        self.assertIn("m.pt holds more than tensors", self._refused(manifest, RuntimeError))
        self.assertFalse((self.dir / "owned").exists())

    def test_onnx(self) -> None:
        """An ONNX file goes to onnxruntime, with the providers of the device."""
        (self.dir / "m.onnx").write_bytes(b"")
        opened: list[Any] = []

        class Runtime:
            class SessionOptions:
                intra_op_num_threads = 0

            @staticmethod
            def InferenceSession(path: str, sess_options: Any, providers: list[str]) -> str:
                opened.append((os.path.basename(path), sess_options.intra_op_num_threads > 0, providers))
                return "session"

        # The interpreter looks into this very dictionary.
        self.addCleanup(
            sys.modules.update, {name: sys.modules.pop(name) for name in ["onnxruntime"] if name in sys.modules}
        )
        self.addCleanup(sys.modules.pop, "onnxruntime")
        sys.modules["onnxruntime"] = Runtime  # type: ignore[assignment]
        with local_worker(self.dir, "h.py", manifest={"model": {"serializedFile": "m.onnx"}}):
            pass
        onnx_model.onnx_session("m.onnx", "cuda")
        self.assertEqual(opened[0], ("m.onnx", True, ["CPUExecutionProvider"]))
        self.assertEqual(opened[1][2], ["CUDAExecutionProvider", "CPUExecutionProvider"])


class DeviceTests(SynchronousTestCase):
    """Where a model goes."""

    def _pick(
        self, gpu_id: int | None, *, cuda: bool = False, xpu: bool = False, mps: bool = False
    ) -> tuple[str | None, str]:
        self.patch(torch.cuda, "is_available", lambda: cuda)
        self.patch(torch.cuda, "get_device_capability", lambda device: (7, 5 + device))
        self.patch(torch.xpu, "is_available", lambda: xpu)
        self.patch(torch.backends.mps, "is_available", lambda: mps)
        location, device = weights.pick_device(gpu_id)
        return location, str(device)

    def test_devices(self) -> None:
        """A device is used if the server assigned one and it is there."""
        self.assertEqual(self._pick(1, cuda=True), ("cuda", "cuda:1"))
        self.assertEqual(self._pick(None, cuda=True, mps=True), ("cpu", "cpu"))
        self.assertEqual(self._pick(0), ("cpu", "cpu"))
        self.assertEqual(self._pick(0, mps=True), ("mps", "mps"))
        self.assertEqual(self._pick(1, xpu=True), ("cpu", "cpu"))
        self.patch(os, "environ", {**os.environ, "TS_IPEX_GPU_ENABLE": "true"})
        self.assertEqual(self._pick(1, xpu=True), ("xpu", "xpu:1"))

    def test_cuda_available(self) -> None:
        """Asking for CUDA is no error where there is no torch."""
        self.patch(torch.cuda, "is_available", lambda: True)
        self.assertTrue(weights.cuda_available())
        self.addCleanup(sys.modules.__setitem__, "torch", torch)
        sys.modules["torch"] = None  # type: ignore[assignment]
        self.assertFalse(weights.cuda_available())


class CompiledTests(SynchronousTestCase):
    """Tests for the setting ``pt2``."""

    def _asked(self, pt2: object) -> Any:
        asked: list[dict[str, Any]] = []

        def compile_model(model: str, **options: Any) -> str:
            asked.append(options)
            return f"compiled {model}"

        self.patch(torch, "compile", compile_model)
        result = compiling.compiled("m", pt2)
        self.assertEqual(result, "compiled m" if asked else "m")
        return asked[0] if asked else None

    def test_forms(self) -> None:
        """The model is compiled if the settings enable it, in their present form or in older ones."""
        self.assertEqual(self._asked({"compile": {"enable": True}}), {})
        options = {"enable": True, "backend": "inductor", "mode": "reduce-overhead"}
        self.assertEqual(self._asked({"compile": options}), {"backend": "inductor", "mode": "reduce-overhead"})
        self.assertEqual(options["enable"], True)
        self.assertEqual(self._asked("eager"), {"backend": "eager"})
        self.assertEqual(self._asked({"backend": "eager"}), {"backend": "eager"})

    def test_not(self) -> None:
        """Otherwise it stays as it is."""
        forms: list[dict[str, Any]] = [
            {"compile": {"enable": False}},
            {"compile": {}},
            {"compile": None},
            {"export": {"aot_compile": True}},
        ]
        for pt2 in forms:
            self.assertIsNone(self._asked(pt2))
        self.assertRaises(ValueError, compiling.compiled, "m", 3)

    def test_refused(self) -> None:
        """A model that torch cannot compile is served as it is, and the log says why."""
        with self.assertLogs("twisted_serve.handlers.compiling", "WARNING") as logs:
            self.assertEqual(compiling.compiled("not a model", "no such backend"), "not a model")
        self.assertIn("no such backend", logs.output[0])

    def test_in_settings(self) -> None:
        """The handler looks for it in ``model-config.yaml``."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        (directory / "model.py").write_text(MODEL)
        (directory / "h.py").write_text(HANDLER)
        settings = {"pt2": {"compile": {"enable": True, "backend": "eager"}}}
        manifest = {"model": {"modelFile": "model.py"}}
        with local_worker(directory, "h.py", manifest=manifest, model_config=settings) as worker:
            answer = worker.answer(Job("r", {"describe": "True"}, []))
        assert isinstance(answer, Predicted)
        self.assertIn(b'"compiled": true', answer.items[0].body)
