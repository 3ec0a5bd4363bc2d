# SPDX-License-Identifier: Apache-2.0
"""
Load ONNX models and call them with tensors.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from twisted_serve.handlers.packages import needed

_log = logging.getLogger(__name__)

__all__ = ["is_session", "onnx_session", "run_session"]

# ONNX Runtime's names of input types to torch's dtypes.
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def onnx_session(path: str, map_location: str | None) -> Any:
    """
    Return an inference session for an ONNX file, on CUDA if ``map_location`` is ``"cuda"``.

    :raise ImportError: if onnxruntime is not installed.
    """
    onnxruntime = needed("onnxruntime", os.path.basename(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    providers = ["CPUExecutionProvider"]
    if map_location == "cuda":
        providers.insert(0, "CUDAExecutionProvider")
    session = onnxruntime.InferenceSession(path, sess_options=options, providers=providers)
    _log.info("Succesfully setup ort session")
    return session


def is_session(model: Any) -> bool:
    """Return whether a model is a session made by :func:`onnx_session`."""
    return hasattr(model, "get_inputs") and hasattr(model, "run")


def run_session(session: Any, data: Any) -> Any:
    """
    Call the model with tensors, each converted to the dtype of the model's input.

    :param data: A tensor, a list of tensors in the order of the model's inputs, or a mapping of input name to tensor.
    :return: A tensor on the CPU, or a list of tensors if the model has several outputs.
    :raise ValueError: if there are more tensors than inputs, or a name is not the name of an input.
    """
    import torch  # noqa: PLC0415

    inputs = {each.name: each.type for each in session.get_inputs()}
    given = _by_name(list(inputs), data)
    unknown = set(given) - set(inputs)
    if unknown:
        raise ValueError(f"the model has no inputs {sorted(unknown)}; it has {list(inputs)}")
    feed = {name: _typed(torch.as_tensor(value), inputs[name]) for name, value in given.items()}
    outputs = [torch.as_tensor(each) for each in session.run(None, feed)]
    return outputs[0] if len(outputs) == 1 else outputs


def _by_name(names: Sequence[str], data: Any) -> Mapping[str, Any]:
    if isinstance(data, Mapping):
        return data
    values = data if isinstance(data, (list, tuple)) else [data]
    if len(values) > len(names):
        raise ValueError(f"the model has the inputs {list(names)}, and was given {len(values)}")
    return dict(zip(names, values, strict=False))


def _typed(tensor: Any, type_name: str) -> Any:
    import torch  # noqa: PLC0415

    wanted = getattr(torch, _TYPES.get(type_name, ""), tensor.dtype)
    return tensor.detach().to("cpu", wanted).numpy()
