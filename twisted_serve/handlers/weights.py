# SPDX-License-Identifier: Apache-2.0
"""
This module implements how a model comes out of its file: the device it goes to, and each kind of file.

Torch is imported when it is needed, so that handlers without it start at once.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_serve.handlers.model_files import list_classes_from_module

if TYPE_CHECKING:
    import torch

__all__ = ["compiled", "cuda_available", "eager_model", "onnx_session", "pick_device", "torchscript_model"]

_log = logging.getLogger(__name__)


def cuda_available() -> bool:
    """Whether torch is there and sees a CUDA device."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return False
    return torch.cuda.is_available()


def pick_device(gpu_id: int | str | None) -> tuple[str, torch.device]:
    """
    Choose where the model goes (``spec/archives_workers_handlers.md`` §7.9 step 2).

    :param gpu_id: The device that the server assigned, ``None`` for the CPU.
    :return: The ``map_location`` for loading, and the device.
    """
    import torch  # noqa: PLC0415

    if gpu_id is not None and torch.cuda.is_available():
        return "cuda", torch.device(f"cuda:{gpu_id}")
    if gpu_id is not None and os.environ.get("TS_IPEX_GPU_ENABLE") == "true" and torch.xpu.is_available():
        return "xpu", torch.device(f"xpu:{gpu_id}")
    if gpu_id is not None and torch.backends.mps.is_available():
        return "mps", torch.device("mps")
    return "cpu", torch.device("cpu")


def eager_model(model_dir: str, model_file: str, weights: str | None, map_location: object) -> torch.nn.Module:
    """
    Make the one class that ``model_file`` defines, and fill it from the state dict in ``weights``.

    :raise RuntimeError: if a file is missing, or ``weights`` holds more than tensors.
    :raise ValueError: if the file does not define exactly one class.
    """
    path = Path(model_dir, model_file)
    if not path.is_file():
        raise RuntimeError(f"Missing the {model_file} file")
    if model_dir not in sys.path:
        sys.path.insert(0, model_dir)
    classes = list_classes_from_module(importlib.import_module(path.stem))
    if len(classes) != 1:
        names = [each.__name__ for each in classes]
        raise ValueError(f"Expected only one class as model definition. {model_file} defines {names}")
    model: torch.nn.Module = classes[0]()
    if weights is not None:
        model.load_state_dict(_state_dict(weights, map_location))
    return model


def _state_dict(weights: str, map_location: Any) -> Mapping[str, Any]:
    import torch  # noqa: PLC0415

    try:
        found: Mapping[str, Any] = torch.load(weights, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as e:
        # Unpickling anything else runs code that the file chooses.
        raise RuntimeError(
            f"{Path(weights).name} holds more than tensors and is not loaded; save model.state_dict(), "
            "or override _load_pickled_model"
        ) from e
    return found


def torchscript_model(path: str, map_location: Any) -> torch.jit.ScriptModule:
    """Load a TorchScript file, in evaluation mode."""
    import torch  # noqa: PLC0415

    model: torch.jit.ScriptModule = torch.jit.load(path, map_location=map_location)
    model.eval()
    return model


def onnx_session(path: str, map_location: str | None) -> Any:
    """
    Open an ONNX file with onnxruntime.

    :raise ImportError: if onnxruntime is not installed.
    """
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    providers = ["CPUExecutionProvider"]
    if map_location == "cuda":
        providers.insert(0, "CUDAExecutionProvider")
    return onnxruntime.InferenceSession(path, sess_options=options, providers=providers)


def compiled(model: Any, pt2: object) -> Any:
    """
    Give the model to ``torch.compile`` if the settings' ``pt2`` says so.

    :param pt2: ``{compile: {enable: true, backend: …, …}}``, or the older forms: a backend's name, or the
        arguments of ``torch.compile``.
    :return: The compiled model, or the model itself where nothing is to be compiled or torch refuses.
    :raise ValueError: if ``pt2`` has none of these forms.
    """
    if isinstance(pt2, str):
        options: dict[str, Any] = {"backend": pt2}
    elif not isinstance(pt2, dict):
        raise ValueError(f"pt2 must be a mapping, not {pt2!r}")
    elif isinstance(pt2.get("compile"), dict):
        options = dict(pt2["compile"])
        if options.pop("enable", False) is not True:
            return model
    elif "compile" in pt2 or "export" in pt2:
        return model
    else:
        options = dict(pt2)
    import torch  # noqa: PLC0415

    try:
        return torch.compile(model, **options)
    except Exception:
        _log.warning("Compiling the model with %s failed; it is served uncompiled", options, exc_info=True)
        return model
