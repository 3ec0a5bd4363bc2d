# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``BaseHandler``: load a model, then preprocess, infer and postprocess each batch.

The steps, their order and the attributes are those that subclasses in archives
rely on (``docs/torchserve/archives_workers_handlers.md`` §7.9).  Subclasses often leave
out ``super().__init__()``; what is read here has a value in the class.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any

from twisted_serve.handlers.compiling import compiled, exports_aot, optimized_by_ipex
from twisted_serve.handlers.exported import exported_model, shared_library_model
from twisted_serve.handlers.model_files import load_label_mapping
from twisted_serve.handlers.onnx_model import is_session, onnx_session, run_session
from twisted_serve.handlers.profiling import is_profiling, profiled
from twisted_serve.handlers.rows import input_of
from twisted_serve.handlers.timer import timed
from twisted_serve.handlers.weights import allows_pickle, eager_model, pick_device, torchscript_model

__all__ = ["BaseHandler", "setup_ort_session"]

# What a file needs that says nothing by itself.
_MISSING = {
    ".so": "needs pt2: {export: {aot_compile: true}} in model-config.yaml",
    ".safetensors": "needs a modelFile, the class whose weights they are",
    ".bin": "needs a modelFile, the class whose weights they are",
}

#: The name by which handlers import it.
setup_ort_session = onnx_session


class BaseHandler:
    """
    The default handler; subclass it and override the steps that differ.

    :ivar mapping: The labels of ``index_to_name.json``, or ``None``.
    :ivar device: Where the model is.
    :ivar model_pt_path: The weights' file, or ``None``.
    """

    model: Any = None
    mapping: dict[str, str] | None = None
    device: Any = None
    initialized = False
    context: Any = None
    model_pt_path: str | None = None
    manifest: Any = None
    map_location: Any = None
    explain = False
    target: Any = 0
    model_yaml_config: Any = None
    profiler_args: Any = None
    _pickle_allowed = False

    def __init__(self) -> None:
        self.profiler_args = {}

    def initialize(self, context: Any) -> None:
        """
        Load the model which the archive's manifest names.

        :raise RuntimeError: if there is no model in it that can be loaded.
        """
        # Contexts of handlers' own tests may know no more than they need.
        self.model_yaml_config = getattr(context, "model_yaml_config", None)
        properties = context.system_properties
        self.map_location, self.device = pick_device(properties.get("gpu_id"))
        self.manifest = context.manifest
        named = (self.manifest or {}).get("model", {})
        model_dir = properties.get("model_dir")
        if named.get("serializedFile"):
            self.model_pt_path = os.path.join(model_dir, named["serializedFile"])
        self._pickle_allowed = allows_pickle(context)
        self.model = self._load(model_dir, named.get("modelFile"))
        pt2 = (self.model_yaml_config or {}).get("pt2")
        if pt2 is not None:
            self.model = compiled(self.model, pt2)
        else:
            self.model = optimized_by_ipex(self.model, self.device)
        self.mapping = load_label_mapping(os.path.join(model_dir, "index_to_name.json"))
        self.initialized = True

    def _load(self, model_dir: str, model_file: str | None) -> Any:
        path = self.model_pt_path
        if model_file:
            model = self._load_pickled_model(model_dir, model_file, path)
            model.to(self.device)
            model.eval()
            return model
        if path is None:
            raise RuntimeError("No model weights could be loaded: the manifest names no serializedFile")
        name = os.path.basename(path)
        if not os.path.isfile(path):
            raise RuntimeError(f"No model weights could be loaded: {name} is not in the archive")
        if path.endswith(".onnx"):
            return setup_ort_session(path, self.map_location)
        if path.endswith(".pt2") or (path.endswith(".so") and self._use_torch_export_aot_compile()):
            return self._load_torch_export_aot_compile(path)
        if path.endswith((".pt", ".pth")):
            return self._load_torchscript_model(path)
        raise RuntimeError(f"No model weights could be loaded: {name} {_MISSING.get(os.path.splitext(name)[1], '')}")

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        return eager_model(model_dir, model_file, model_pt_path, self.map_location, self._pickle_allowed)

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return torchscript_model(model_pt_path, self.device)

    def _load_torch_export_aot_compile(self, model_so_path: str) -> Any:
        load = shared_library_model if model_so_path.endswith(".so") else exported_model
        return load(model_so_path, self.device)

    def _use_torch_export_aot_compile(self) -> bool:
        return exports_aot((self.model_yaml_config or {}).get("pt2"))

    @timed
    def preprocess(self, data: Any) -> Any:
        """Make the model's input of the requests; this one takes lists of numbers."""
        import torch  # noqa: PLC0415

        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        if is_session(self.model):
            return run_session(self.model, data)
        import torch  # noqa: PLC0415

        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """Make the list of answers, one for each request, of the model's output."""
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        """
        Answer a batch: the entry point.

        :param data: One dictionary for each request.
        :return: One answer for each request, in their order.
        """
        start = perf_counter()
        self.context = context
        if self._is_describe():
            output = [self.describe_handle()]
        elif is_profiling():
            output, _ = self._infer_with_profiler(data)
        else:
            output = self._infer(data)
        if context is not None and context.metrics is not None:
            context.metrics.add_time("HandlerTime", round((perf_counter() - start) * 1000, 2))
        return output

    def _infer(self, data: Any) -> Any:
        prepared = self.preprocess(data)
        if self._is_explain():
            return self.explain_handle(prepared, data)
        return self.postprocess(self.inference(prepared))

    def _infer_with_profiler(self, data: Any) -> tuple[Any, Any]:
        if self.profiler_args is None:
            self.profiler_args = {}
        return profiled(lambda: self._infer(data), getattr(self.context, "model_name", "model"), self.profiler_args)

    def explain_handle(self, data_preprocess: Any, raw_data: Any) -> Any:
        """Explain the first request; a subclass supplies ``get_insights(tensor, inputs, target)``."""
        row = raw_data[0]
        inputs = input_of(row)
        asked = inputs if isinstance(inputs, dict) else row
        self.target = asked.get("target") or 0 if isinstance(asked, dict) else 0
        return self.get_insights(data_preprocess, inputs, self.target)

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any) -> Any:
        """
        Say what led to the model's answer.

        :raise NotImplementedError: unless a subclass overrides it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not explain its answers: it has no get_insights")

    def describe_handle(self) -> Any:
        """Return what ``customizedMetadata`` of a describe call shall say; ``None`` for nothing."""
        return None

    def get_device(self) -> Any:
        """Return where the model is."""
        return self.device

    def _is_explain(self) -> bool:
        self.explain = self._asked_for("explain")
        return self.explain

    def _is_describe(self) -> bool:
        return self._asked_for("describe")

    def _asked_for(self, header: str) -> bool:
        if self.context is None or not self.context.get_request_header(0, header):
            return False
        return bool(self.context.get_request_header(0, header) == "True")
