# SPDX-License-Identifier: Apache-2.0
"""
Pack the archives of both networks: ``python examples/shapes/build.py STORE``.

There is no handler in them: they name a built-in one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parents[1]))

from examples.shapes.train import classifier, segmenter  # noqa: E402
from twisted_serve.archiver.config import ModelArchiverConfig  # noqa: E402
from twisted_serve.archiver.packing import pack  # noqa: E402


def build_classifier(store: Path) -> Path:
    """Train and write ``shape_classifier.mar``, a TorchScript model, into ``store``."""
    with TemporaryDirectory() as place:
        script = Path(place) / "shapes.pt"
        example = torch.zeros(1, 3, 224, 224)
        torch.jit.save(torch.jit.trace(classifier(), example), script)
        return pack(
            ModelArchiverConfig(
                model_name="shape_classifier",
                version="1.0",
                handler="image_classifier",
                serialized_file=script,
                extra_files=[HERE / "index_to_name.json"],
                config_file=HERE / "classifier-config.yaml",
                export_path=store,
                force=True,
            )
        )


def build_segmenter(store: Path) -> Path:
    """Train and write ``shape_segmenter.mar``, an eager model, into ``store``."""
    with TemporaryDirectory() as place:
        weights = Path(place) / "shapes.pt"
        torch.save(segmenter().state_dict(), weights)
        return pack(
            ModelArchiverConfig(
                model_name="shape_segmenter",
                version="1.0",
                handler="image_segmenter",
                model_file=HERE / "model.py",
                serialized_file=weights,
                export_path=store,
                force=True,
            )
        )


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")
    print(build_classifier(target))
    print(build_segmenter(target))
