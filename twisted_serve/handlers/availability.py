# SPDX-License-Identifier: Apache-2.0
"""
Provide TorchServe's flags for installed packages; each is computed on access.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

__all__ = [
    "IPEX_AVAILABLE",
    "ONNX_AVAILABLE",
    "PROFILER_AVAILABLE",
    "PT2_AVAILABLE",
    "PT230_AVAILABLE",
    "XLA_AVAILABLE",
]

ONNX_AVAILABLE: bool
IPEX_AVAILABLE: bool
PROFILER_AVAILABLE: bool
PT2_AVAILABLE: bool
PT230_AVAILABLE: bool
XLA_AVAILABLE: bool


def __getattr__(name: str) -> bool:
    known = {
        "IPEX_AVAILABLE": lambda: (
            os.environ.get("TS_IPEX_ENABLE") == "true" and _installed("intel_extension_for_pytorch")
        ),
        "ONNX_AVAILABLE": lambda: _installed("onnxruntime"),
        "PROFILER_AVAILABLE": lambda: _torch_is((1, 8)),
        "PT2_AVAILABLE": lambda: _torch_is((2, 0)),
        "PT230_AVAILABLE": lambda: _torch_is((2, 3)),
        "XLA_AVAILABLE": lambda: _installed("torch_xla"),
    }
    if name not in known:
        raise AttributeError(name)
    return known[name]()


def _installed(package: str) -> bool:
    return find_spec(package) is not None


def _torch_is(least: tuple[int, int]) -> bool:
    try:
        major, minor = version("torch").split(".")[:2]
    except PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= least
