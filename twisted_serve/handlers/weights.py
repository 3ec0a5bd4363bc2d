# SPDX-License-Identifier: Apache-2.0
"""
Choose a model's device and load its weights.

Torch is imported on first use, so that handlers without it start fast.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_serve.handlers.model_files import list_classes_from_module
from twisted_serve.handlers.packages import needed

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

__all__ = ["allows_pickle", "cuda_available", "eager_model", "load_tensors", "pick_device", "torchscript_model"]


def cuda_available() -> bool:
    """Return whether torch is installed and a CUDA device is available."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return False
    return torch.cuda.is_available()


def pick_device(gpu_id: int | str | None) -> tuple[str | None, torch.device]:
    """
    Choose the model's device (``docs/torchserve/archives_workers_handlers.md`` §7.9 step 2).

    :param gpu_id: The index of the GPU that the server assigned, ``None`` for the CPU.
    :return: The ``map_location`` for loading weights, and the device.
    :raise ImportError: if torch is not installed.
    """
    torch = needed("torch", "this handler")

    if gpu_id is not None and torch.cuda.is_available():
        # From compute capability 8.0 on, TF32 tensor cores speed up float32 products, at little loss of precision.
        if torch.cuda.get_device_capability(int(gpu_id)) >= (8, 0):
            torch.set_float32_matmul_precision("high")
            _log.info("Enabled tensor cores")
        return "cuda", torch.device(f"cuda:{gpu_id}")
    if gpu_id is not None and os.environ.get("TS_IPEX_GPU_ENABLE") == "true" and torch.xpu.is_available():
        return "xpu", torch.device(f"xpu:{gpu_id}")
    if gpu_id is not None and torch.backends.mps.is_available():
        return "mps", torch.device("mps")
    if importlib.util.find_spec("torch_xla") is not None:
        # ``None``: weights are loaded into the host's memory first.
        return None, importlib.import_module("torch_xla.core.xla_model").xla_device()
    return "cpu", torch.device("cpu")


def eager_model(
    model_dir: str, model_file: str, weights: str | None, map_location: Any, pickle_allowed: bool = False
) -> torch.nn.Module:
    """
    Instantiate the class defined in ``model_file`` and load the state dict in ``weights`` into it.

    :param weights: The path of the file with the state dict; ``None`` to keep the initial weights.
    :param pickle_allowed: See :func:`allows_pickle`.
    :raise RuntimeError: if ``model_file`` is missing, or ``weights`` contains pickled objects that are not allowed.
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
        model.load_state_dict(load_tensors(weights, map_location, pickle_allowed))
    return model


def allows_pickle(context: Any) -> bool:
    """
    Return whether weights may contain pickled objects other than tensors, which run code when loaded.

    The operator allows them with ``allow_pickled_weights``; the model can forbid them with
    ``handler: {weights_only: true}``, but ``false`` does not allow them by itself.
    """
    settings = (getattr(context, "model_yaml_config", None) or {}).get("handler")
    without = isinstance(settings, dict) and settings.get("weights_only") is True
    return bool(context.system_properties.get("allow_pickled_weights")) and not without


def load_tensors(path: str, map_location: Any, pickle_allowed: bool = False) -> Any:
    """
    Load a file written by ``torch.save`` or safetensors.

    :raise RuntimeError: if the file contains objects other than tensors and plain data, and these are not allowed.
    :raise ImportError: if the package that reads the file is not installed.
    """
    if path.endswith(".safetensors"):
        return needed("safetensors.torch", Path(path).name).load_file(path, device=map_location or "cpu")
    import torch  # noqa: PLC0415

    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as e:
        if pickle_allowed:
            return torch.load(path, map_location=map_location, weights_only=False)
        raise RuntimeError(
            f"{Path(path).name} holds more than tensors, which runs code when it is loaded; save model.state_dict(), "
            "or, if you trust whoever made it, set allow_pickled_weights=true in config.properties"
        ) from e


def torchscript_model(path: str, map_location: Any) -> torch.jit.ScriptModule:
    """
    Load a TorchScript model and set it to evaluation mode.

    :raise RuntimeError: if the file is not TorchScript.
    """
    import torch  # noqa: PLC0415

    try:
        model: torch.jit.ScriptModule = torch.jit.load(path, map_location=map_location)
    except RuntimeError as e:
        said = next(iter(str(e).splitlines()), "")
        raise RuntimeError(
            f"{Path(path).name} cannot be loaded as TorchScript ({said}); "
            "a state dict needs a modelFile in the manifest"
        ) from e
    model.eval()
    return model
