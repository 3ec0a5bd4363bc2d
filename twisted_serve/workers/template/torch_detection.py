# SPDX-License-Identifier: Apache-2.0
"""
Guess whether a model needs torch, so that its workers are forked from a template that has imported torch.

A wrong guess costs time or memory and nothing else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted_serve.interfaces import WorkerSpec

# How many of an archive's own modules are searched, and how many bytes of each.
_MOST_FILES = 50
_MOST_BYTES = 1 << 18

# Import statements of torch and of packages that import torch.
_MENTION = re.compile(
    rb"^\s*(?:from|import)\s+(?:torch|torchvision|torchaudio|torchtext|transformers|sentence_transformers|timm|"
    rb"diffusers|captum|ts\.torch_handler|twisted_serve\.handlers\.base)\b",
    re.MULTILINE,
)

_WEIGHTS = (".pt", ".pth", ".pt2", ".bin", ".ckpt", ".safetensors")


def needs_torch(spec: WorkerSpec) -> bool:
    """Return whether an archive needs torch, judged by its weights or by the imports of its top-level modules."""
    named = spec.load.manifest.get("model")
    weights = named.get("serializedFile") if isinstance(named, dict) else None
    if isinstance(weights, str) and weights.endswith(_WEIGHTS):
        return True
    # Unlike Path.is_file, os.path.isfile returns False for a name that no file can have.
    if not os.path.isfile(spec.model_dir / _file_of(spec.load.handler)) and "." not in spec.load.handler:
        # A built-in handler.
        return not (isinstance(weights, str) and weights.endswith(".onnx"))
    return any(_MENTION.search(_beginning(path)) for path in _modules(spec.model_dir))


def _file_of(handler: str) -> str:
    path = handler.partition(":")[0]
    return path if path.endswith(".py") else f"{path}.py"


def _modules(model_dir: Path) -> list[Path]:
    try:
        return sorted(model_dir.glob("*.py"))[:_MOST_FILES]
    except OSError:
        return []


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return b""
