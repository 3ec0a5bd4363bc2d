# SPDX-License-Identifier: Apache-2.0
"""
Load a model, then preprocess, infer and postprocess each batch: ``BaseHandler``.

Subclasses in archives rely on these steps, their order and the attributes
(``docs/torchserve/archives_workers_handlers.md`` §7.9). Many subclasses do not call
``super().__init__()``, so every attribute read here has a default in the class.
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

# How to fix an archive whose weights cannot be loaded alone, by the file's suffix.
_MISSING = {
    ".so": "needs pt2: {export: {aot_compile: true}} in model-config.yaml",
    ".safetensors": "needs a modelFile, the class whose weights they are",
    ".bin": "needs a modelFile, the class whose weights they are",
}

#: TorchServe's name, which handlers import.
setup_ort_session = onnx_session


class BaseHandler:
    """
    The default handler: subclass it and override the steps that differ.

    :ivar model: The loaded model: a ``torch.nn.Module``, a TorchScript or exported program, or an ONNX Runtime session.
    :ivar mapping: Class index (as a string) to label, from ``index_to_name.json``, or ``None``.
    :ivar device: The ``torch.device`` of the model.
    :ivar map_location: The ``map_location`` with which weights are loaded.
    :ivar model_pt_path: The path of the file with the weights, or ``None``.
    :ivar model_yaml_config: The parsed ``model-config.yaml``.
    :ivar target: The class index that the current explanation is for.
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
        Load the model named by the archive's manifest.

        :raise RuntimeError: if the archive has no model that can be loaded.
        :raise ImportError: if a package that the model needs is not installed.
        """
        # A context in a handler's unit tests may lack this attribute.
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
        """
        Convert the requests to the model's input.

        :param data: By default nested lists of numbers; override this method for any other input.
        :return: A tensor on ``device``, of the lists' shape: int64 for integers, torch's default dtype for floats.
        """
        import torch  # noqa: PLC0415

        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Call the model, without autograd; ``args`` and ``kwargs`` are passed on.

        :param data: The model's input, a tensor whose first dimension is the batch size N. A model in ONNX Runtime
            also takes a list of tensors, or a mapping of input name to tensor.
        :return: The model's output, as the model returns it.
        """
        if is_session(self.model):
            return run_session(self.model, data)
        import torch  # noqa: PLC0415

        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """
        Convert the model's output to one response for each request.

        :param data: A tensor of shape (N, …).
        :return: A list of N numbers or nested lists.
        """
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        """
        Process a batch: the entry point, called by the worker.

        :param data: A list of N dictionaries, one for each request.
        :return: A list of N responses, in the same order.
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
        """
        Explain the first request with ``get_insights(tensor, inputs, target)`` of a subclass.

        :param data_preprocess: The result of ``preprocess``.
        :param raw_data: The requests; ``target`` in the first one is the class index to explain, by default 0.
        """
        row = raw_data[0]
        inputs = input_of(row)
        asked = inputs if isinstance(inputs, dict) else row
        self.target = asked.get("target") or 0 if isinstance(asked, dict) else 0
        return self.get_insights(data_preprocess, inputs, self.target)

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any) -> Any:
        """
        Attribute the model's output to its input.

        :param tensor_data: The result of ``preprocess``.
        :param raw_data: The input of the first request.
        :param target: The index of the class to explain.
        :raise NotImplementedError: unless a subclass overrides this method.
        """
        raise NotImplementedError(f"{type(self).__name__} does not explain its answers: it has no get_insights")

    def describe_handle(self) -> Any:
        """Return the ``customizedMetadata`` for a describe request, or ``None``."""
        return None

    def get_device(self) -> Any:
        """Return the ``torch.device`` of the model."""
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
