# SPDX-License-Identifier: Apache-2.0
"""
Pack the archive of the storyteller: ``python examples/storyteller/build.py STORE``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parents[1]))

from examples.storyteller.train import train  # noqa: E402
from twisted_serve.archiver.config import ModelArchiverConfig  # noqa: E402
from twisted_serve.archiver.packing import pack  # noqa: E402


def build(store: Path) -> Path:
    """Train the network and write ``storyteller.mar`` into ``store``."""
    with TemporaryDirectory() as place:
        weights = Path(place) / "storyteller.pt"
        torch.save(train().state_dict(), weights)
        return pack(
            ModelArchiverConfig(
                model_name="storyteller",
                version="1.0",
                handler=HERE / "handler.py",
                model_file=HERE / "model.py",
                serialized_file=weights,
                export_path=store,
                force=True,
            )
        )


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
