# SPDX-License-Identifier: Apache-2.0
"""
Pack the archive of the digits example: ``python examples/digits/build.py STORE``.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parents[1]))

from examples.digits.train import digits, train  # noqa: E402
from twisted_serve.archiver.config import ModelArchiverConfig  # noqa: E402
from twisted_serve.archiver.packing import pack  # noqa: E402

# A batch of two: what is exported may not take a batch of one for the rule.
EXAMPLE = torch.zeros(2, 1, 8, 8)


def build(store: Path) -> Path:
    """Train the network and write ``digits.mar`` into ``store``: the class of the network, and a state dict."""
    with TemporaryDirectory() as place:
        weights = Path(place) / "digits.pt"
        torch.save(network().state_dict(), weights)
        return _pack(store, "digits", weights, model_file=HERE / "model.py")


def build_onnx(store: Path) -> Path:
    """Write ``digits_onnx.mar`` into ``store``: the same network for ONNX Runtime."""
    with TemporaryDirectory() as place:
        weights = Path(place) / "digits.onnx"
        batch = {0: torch.export.Dim("batch")}
        # It warns of everything that is not installed and not needed.
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            network(), (EXAMPLE,), weights, dynamo=True, external_data=False, dynamic_shapes=(batch,), verbose=False
        )
        return _pack(store, "digits_onnx", weights)


def build_export(store: Path) -> Path:
    """Write ``digits_export.mar`` into ``store``: the same network as ``torch.export`` saves it."""
    with TemporaryDirectory() as place:
        weights = Path(place) / "digits.pt2"
        batch = {0: torch.export.Dim("batch")}
        torch.export.save(torch.export.export(network(), (EXAMPLE,), dynamic_shapes=(batch,)), weights)
        return _pack(store, "digits_export", weights)


@cache
def network() -> torch.nn.Module:
    """Train the network, once."""
    return train(digits()[0])


def _pack(store: Path, name: str, weights: Path, **more: Any) -> Path:
    return pack(
        ModelArchiverConfig(
            model_name=name,
            version="1.0",
            handler=HERE / "handler.py",
            serialized_file=weights,
            config_file=HERE / "model-config.yaml",
            export_path=store,
            force=True,
            **more,
        )
    )


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
