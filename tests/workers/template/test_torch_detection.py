# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workers.template.torch_detection`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.specs import worker_spec
from twisted_serve.interfaces import WorkerSpec
from twisted_serve.workers.template.torch_detection import needs_torch


def spec(model_dir: Path, handler: str = "handler.py", **model: Any) -> WorkerSpec:
    """Make the spec of a model."""
    return worker_spec("m", "1.0", model_dir, handler, 1, {"model": model} if model else {}, {}, "python", {}, 10.0)


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        ("import torch\n", True),
        ("from torch import nn\n", True),
        ("    from transformers import pipeline\n", True),
        ("from ts.torch_handler.base_handler import BaseHandler\n", True),
        ("import torchbearer\n", False),
        ("# import torch\n", False),
        ("import numpy\n", False),
        ("\x00\xff", False),
    ],
)
def test_source(tmp_path: Path, source: str, needed: bool) -> None:
    """A model whose own files import torch, or a package that imports it, needs torch."""
    (tmp_path / "handler.py").write_text("import os\n")
    (tmp_path / "model.py").write_text(source, "latin-1")
    assert needs_torch(spec(tmp_path)) is needed


def test_manifest(tmp_path: Path) -> None:
    """A model with torch weights or a built-in handler needs torch, but not one with ONNX weights."""
    (tmp_path / "handler.py").write_text("")
    assert needs_torch(spec(tmp_path, serializedFile="w.pt"))
    assert not needs_torch(spec(tmp_path, serializedFile="w.pkl"))
    assert needs_torch(spec(tmp_path, "image_classifier"))
    assert not needs_torch(spec(tmp_path, "base_handler", serializedFile="w.onnx"))
    assert not needs_torch(spec(tmp_path, "handler", serializedFile=3))


def test_nothing_to_read(tmp_path: Path) -> None:
    """A model whose files cannot be read does not need torch; a huge file is not read to its end."""
    assert not needs_torch(spec(tmp_path / "absent"))
    (tmp_path / "handler.py").write_text(" " * (1 << 19) + "\nimport torch\n")
    (tmp_path / "dir.py").mkdir()
    (tmp_path / "loop.py").symlink_to("loop.py")
    assert not needs_torch(spec(tmp_path))
