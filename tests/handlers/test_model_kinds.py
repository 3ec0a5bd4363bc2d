# SPDX-License-Identifier: Apache-2.0
"""Tests for the kinds of files that `twisted_serve.handlers.base` loads, with a real model in each."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers import availability, compiling, onnx_model, weights
from twisted_serve.testing.local_worker import local_worker
from twisted_serve.wire.messages import Part

torch = pytest.importorskip("torch", reason="torch is not installed")

MODEL = """
import torch

class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * self.factor
"""

HANDLER = """
from ts.torch_handler.base_handler import BaseHandler

class Handler(BaseHandler):
    def preprocess(self, data):
        return super().preprocess([row["body"] for row in data])
"""


class Calls:
    """Makes a directory when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


class ModelKindTests(SynchronousTestCase):
    """Tests for the formats of weights."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "h.py").write_text(HANDLER)
        (self.dir / "model.py").write_text(MODEL)
        scope: dict[str, Any] = {}
        exec(MODEL, scope)
        self.model = scope["Scale"]().eval()
        self.model.factor.data = torch.tensor([2.0, 3.0])

    def _ask(self, serialized: str, with_class: bool = False, **settings: Any) -> list[Any]:
        named = {"serializedFile": serialized, **({"modelFile": "model.py"} if with_class else {})}
        with local_worker(self.dir, "h.py", manifest={"model": named}, **settings) as worker:
            items = worker.predict(*(Part("body", "application/json", each) for each in (b"[1.5, 2]", b"[0, 1]")))
        return [json.loads(item.body) for item in items]

    def _refused(self, serialized: str, with_class: bool = False, **settings: Any) -> str:
        with self.assertRaises(RuntimeError) as raised:
            self._ask(serialized, with_class, **settings)
        return str(raised.exception)

    def _exported(self) -> Any:
        batch = torch.export.Dim("batch", min=1, max=64)
        return torch.export.export(self.model, (torch.ones(2, 2),), dynamic_shapes={"x": {0: batch}})

    def test_state_dict(self) -> None:
        """A state dict's file may be called anything."""
        for name in ("m.pt", "m.pth", "m.bin"):
            torch.save(self.model.state_dict(), self.dir / name)
            self.assertEqual(self._ask(name, with_class=True), [[3.0, 6.0], [0.0, 3.0]])

    def test_safetensors(self) -> None:
        """So may it be safetensors; alone these say nothing of the model."""
        pytest.importorskip("safetensors.torch").save_file(self.model.state_dict(), self.dir / "m.safetensors")
        self.assertEqual(self._ask("m.safetensors", with_class=True), [[3.0, 6.0], [0.0, 3.0]])
        self.assertIn("m.safetensors needs a modelFile", self._refused("m.safetensors"))

    def test_script(self) -> None:
        """TorchScript may be called ``.pth``, too."""
        torch.jit.trace(self.model, torch.ones(1, 2)).save(str(self.dir / "m.pth"))
        self.assertEqual(self._ask("m.pth"), [[3.0, 6.0], [0.0, 3.0]])

    def test_state_dict_alone(self) -> None:
        """Weights without their class are refused, and the message says what is missing."""
        torch.save(self.model.state_dict(), self.dir / "m.pt")
        message = self._refused("m.pt")
        self.assertIn("m.pt cannot be loaded as TorchScript", message)
        self.assertIn("a state dict needs a modelFile in the manifest", message)

    def test_export(self) -> None:
        """A program of ``torch.export`` is a model."""
        torch.export.save(self._exported(), self.dir / "m.pt2")
        self.assertEqual(self._ask("m.pt2"), [[3.0, 6.0], [0.0, 3.0]])

    def test_no_export(self) -> None:
        """A damaged program is named."""
        (self.dir / "m.pt2").write_bytes(b"PK")
        self.assertIn("m.pt2 is no file of torch.export or AOTInductor", self._refused("m.pt2"))

    @pytest.mark.slow
    def test_compiled_ahead(self) -> None:
        """A program that AOTInductor compiled is a model, as a package or as the library of older days."""
        program = self._exported()
        torch._inductor.aoti_compile_and_package(program, package_path=str(self.dir / "m.pt2"))
        self.assertEqual(self._ask("m.pt2"), [[3.0, 6.0], [0.0, 3.0]])
        batch = torch.export.Dim("batch", min=1, max=64)
        options = {"aot_inductor.output_path": str(self.dir / "m.so")}
        torch._export.aot_compile(self.model, (torch.ones(2, 2),), dynamic_shapes={"x": {0: batch}}, options=options)
        settings = {"pt2": {"export": {"aot_compile": True}}}
        self.assertEqual(self._ask("m.so", model_config=settings), [[3.0, 6.0], [0.0, 3.0]])

    def test_library_not_asked_for(self) -> None:
        """A library is loaded only if the settings say that it is a model."""
        (self.dir / "m.so").write_bytes(b"\x7fELF")
        self.assertIn("m.so needs pt2: {export: {aot_compile: true}}", self._refused("m.so"))

    def test_pickle_allowed(self) -> None:
        """The operator may allow weights that run code; a model's settings can refuse them, but not allow them."""
        state = self.model.state_dict()
        state["factor"] = torch.nn.Parameter(state["factor"])
        torch.save({**state, "extra": Calls()}, self.dir / "m.pt")
        (self.dir / "model.py").write_text(
            MODEL
            + "    def load_state_dict(self, state):\n        super().load_state_dict({'factor': state['factor']})\n"
        )
        settings: dict[str, Any]
        for settings in (
            {},
            {"model_config": {"handler": {"weights_only": False}}},
            {"model_config": {"handler": {"weights_only": True}}, "allow_pickled_weights": True},
        ):
            self.assertIn("set allow_pickled_weights=true", self._refused("m.pt", with_class=True, **settings))
        self.assertFalse((self.dir / "unpickled").exists())
        self.assertEqual(self._ask("m.pt", with_class=True, allow_pickled_weights=True), [[3.0, 6.0], [0.0, 3.0]])
        self.assertTrue((self.dir / "unpickled").exists())

    def test_profiled(self) -> None:
        """``ENABLE_TORCH_PROFILER`` has each batch profiled: a table in the log, a trace among the temporary files."""
        torch.save(self.model.state_dict(), self.dir / "m.pt")
        self.patch(os, "environ", {**os.environ, "ENABLE_TORCH_PROFILER": ""})
        self.patch(tempfile, "tempdir", str(self.dir))
        with self.assertLogs("twisted_serve.handlers.profiling", "INFO") as logs:
            self.assertEqual(self._ask("m.pt", with_class=True), [[3.0, 6.0], [0.0, 3.0]])
        self.assertIn("aten::mul", logs.output[0])
        directory = self.dir / "pytorch_profiler" / "model"
        self.assertEqual(len(list(directory.glob("*.json"))), 1)
        self.assertEqual(directory.stat().st_mode & 0o077, 0)

    def test_ipex(self) -> None:
        """Intel's extension optimizes the model where it is asked for and installed."""
        self.patch(os, "environ", {**os.environ, "TS_IPEX_ENABLE": "true"})
        with self.assertLogs("twisted_serve.handlers.compiling", "WARNING"):
            self.assertIs(compiling.optimized_by_ipex(self.model, torch.device("cpu")), self.model)
        extension = SimpleNamespace(optimize=lambda model: ("optimized", model))
        self.patch(importlib, "import_module", lambda name: extension)
        self.patch(importlib.util, "find_spec", lambda name: "found")
        self.assertEqual(compiling.optimized_by_ipex(self.model, torch.device("cpu")), ("optimized", self.model))

    def test_xla(self) -> None:
        """Where torch_xla is installed its device is taken."""
        self.patch(importlib.util, "find_spec", lambda name: "found")
        self.patch(importlib, "import_module", lambda name: SimpleNamespace(xla_device=lambda: name))
        self.assertEqual(weights.pick_device(None), (None, "torch_xla.core.xla_model"))

    def test_precision(self) -> None:
        """On GPUs with tensor cores for it multiplications may be of lower precision."""
        before = torch.get_float32_matmul_precision()
        self.addCleanup(torch.set_float32_matmul_precision, before)
        self.patch(torch.cuda, "is_available", lambda: True)
        for capability, precision in (((7, 5), "highest"), ((8, 0), "high")):
            torch.set_float32_matmul_precision("highest")
            self.patch(torch.cuda, "get_device_capability", lambda device, found=capability: found)
            weights.pick_device("0")
            self.assertEqual(torch.get_float32_matmul_precision(), precision)


class OnnxTests(SynchronousTestCase):
    """Models for ONNX Runtime."""

    def setUp(self) -> None:
        onnx = pytest.importorskip("onnx", reason="onnx is not installed")
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "h.py").write_text(HANDLER)
        of, kind, helper = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT, onnx.helper
        self.one = self._save(
            "one.onnx",
            [helper.make_node("Mul", ["x", "factor"], ["y"])],
            [of("x", kind, ["n", 2])],
            [of("y", kind, ["n", 2])],
            [helper.make_tensor("factor", kind, [2], [2.0, 3.0])],
        )
        self.two = self._save(
            "two.onnx",
            [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
            [of("a", kind, ["n"]), of("b", kind, ["n"])],
            [of("sum", kind, ["n"]), of("difference", kind, ["n"])],
            [],
        )

    def _save(self, name: str, nodes: Any, inputs: Any, outputs: Any, constants: Any) -> str:
        import onnx

        graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, constants)
        opset = [onnx.helper.make_opsetid("", 17)]
        path = str(self.dir / name)
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)
        return path

    def test_archive(self) -> None:
        """BaseHandler answers with an ONNX model as with any other; whole numbers are made what the model takes."""
        with local_worker(self.dir, "h.py", manifest={"model": {"serializedFile": "one.onnx"}}) as worker:
            items = worker.predict(*(Part("body", "application/json", each) for each in (b"[1, 2]", b"[0, 1]")))
        self.assertEqual([json.loads(item.body) for item in items], [[2.0, 6.0], [0.0, 3.0]])

    def test_several(self) -> None:
        """Several inputs go by position or by name, several outputs come as a list."""
        session = onnx_model.onnx_session(self.two, "cpu")
        self.assertTrue(onnx_model.is_session(session))
        a, b = torch.tensor([3.0]), torch.tensor([1.0])
        for data in ([a, b], {"b": b, "a": a}):
            self.assertEqual([each.tolist() for each in onnx_model.run_session(session, data)], [[4.0], [2.0]])

    def test_wrong_inputs(self) -> None:
        """Inputs that the model does not have are named, with those it has."""
        session = onnx_model.onnx_session(self.one, "cpu")
        for data, message in (
            ({"z": torch.ones(1, 2)}, "the model has no inputs ['z']; it has ['x']"),
            ([torch.ones(1, 2)] * 2, "the model has the inputs ['x'], and was given 2"),
        ):
            with self.assertRaises(ValueError) as raised:
                onnx_model.run_session(session, data)
            self.assertEqual(str(raised.exception), message)


class AvailabilityTests(SynchronousTestCase):
    """The flags by which handlers ask."""

    def test_flags(self) -> None:
        """They say what is installed here."""
        self.assertTrue(availability.PT2_AVAILABLE)
        self.assertTrue(availability.PT230_AVAILABLE)
        self.assertTrue(availability.PROFILER_AVAILABLE)
        self.assertFalse(availability.XLA_AVAILABLE)
        self.assertFalse(availability.IPEX_AVAILABLE)
        self.assertRaises(AttributeError, getattr, availability, "OTHER_AVAILABLE")

    def test_onnx(self) -> None:
        """ONNX Runtime is there when it can be imported."""
        self.patch(availability, "find_spec", lambda name: name == "onnxruntime" or None)
        self.assertTrue(availability.ONNX_AVAILABLE)

    def test_versions(self) -> None:
        """Torch is compared by its version; without torch there is nothing."""
        for text, expected in (("1.13.1", False), ("2.2.2+cu121", False), ("2.10.0a0", True)):
            self.patch(availability, "version", lambda name, found=text: found)
            self.assertIs(availability.PT230_AVAILABLE, expected)

        def missing(name: str) -> str:
            raise PackageNotFoundError(name)

        self.patch(availability, "version", missing)
        self.assertFalse(availability.PT2_AVAILABLE)


class BackendTests(SynchronousTestCase):
    """The backends of ``torch.compile``."""

    def test_valid(self) -> None:
        """Those that TorchServe knew are valid; of others the log says that they are not."""
        self.assertTrue(compiling.check_valid_pt2_backend("inductor"))
        self.assertTrue(compiling.check_valid_pt2_backend(compiling.PT2Backend.EAGER))
        with self.assertLogs("twisted_serve.handlers.compiling", "WARNING") as logs:
            self.assertFalse(compiling.check_valid_pt2_backend("steam"))
        self.assertIn("steam", logs.output[0])

    def test_line(self) -> None:
        """That a model is compiled is said in TorchServe's words, with the options."""
        for pt2, words in (
            ("eager", "Compiled model with backend eager"),
            (
                {"compile": {"enable": True, "backend": "eager", "mode": None}},
                "Compiled model with backend eager, mode None",
            ),
        ):
            with self.assertLogs("twisted_serve.handlers.compiling", "INFO") as logs:
                compiling.compiled(torch.nn.Identity(), pt2)
            self.assertEqual([words], [record.getMessage() for record in logs.records])
