# SPDX-License-Identifier: Apache-2.0
"""
Compile a loaded model with ``torch.compile`` (setting ``pt2``) or optimize it with Intel's extension.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from enum import Enum
from typing import Any

__all__ = ["PT2Backend", "check_valid_pt2_backend", "compiled", "exports_aot", "optimized_by_ipex"]

_log = logging.getLogger(__name__)


class PT2Backend(str, Enum):
    """The backends of ``torch.compile`` that TorchServe lists; torch may support others."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


def check_valid_pt2_backend(backend: str) -> bool:
    """Return whether TorchServe lists ``backend``; log a warning if it does not."""
    known = [each.value for each in PT2Backend]
    if backend in known:
        return True
    _log.warning("%s is no backend of torch.compile that TorchServe knew: %s", backend, ", ".join(known))
    return False


def exports_aot(pt2: object) -> bool:
    """Return whether ``pt2: {export: {aot_compile: true}}`` marks the weights as a compiled program."""
    export = pt2.get("export") if isinstance(pt2, dict) else None
    return isinstance(export, dict) and export.get("aot_compile") is True


def compiled(model: Any, pt2: object) -> Any:
    """
    Compile the model with ``torch.compile`` if ``pt2`` enables it.

    :param pt2: ``{compile: {enable: true, backend: …, …}}``, or an older form: a backend's name, or the
        arguments of ``torch.compile``.
    :return: The compiled model; the unchanged model if ``pt2`` does not enable compilation, or it fails (logged).
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
        compiled_model = torch.compile(model, **options)
        # TorchServe's tests, and scripts, search the log for this line.
        _log.info("Compiled model with %s", ", ".join(f"{name} {value}" for name, value in options.items()))
        return compiled_model
    except Exception:
        _log.warning("Compiling the model with %s failed; it is served uncompiled", options, exc_info=True)
        return model


def optimized_by_ipex(model: Any, device: Any) -> Any:
    """Optimize the model with Intel's extension if ``TS_IPEX_ENABLE=true``; log a warning if it is not installed."""
    if os.environ.get("TS_IPEX_ENABLE") != "true":
        return model
    if importlib.util.find_spec("intel_extension_for_pytorch") is None:
        _log.warning("ipex_enable is set, but intel_extension_for_pytorch is not installed")
        return model
    import torch  # noqa: PLC0415

    ipex = importlib.import_module("intel_extension_for_pytorch")
    optimized = ipex.optimize(model.to(memory_format=torch.channels_last).to(device))
    _log.info("Compiled model with ipex")
    return optimized
