# SPDX-License-Identifier: Apache-2.0
"""
This module implements the archive of the digits example: ``python examples/digits/build.py STORE``.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parents[1]))

from examples.archive import manifest_of, write_archive  # noqa: E402
from examples.digits.train import digits, train  # noqa: E402

CONFIG = b"""\
minWorkers: 1
maxWorkers: 1
batchSize: 16
maxBatchDelay: 10
"""


def build(store: Path) -> Path:
    """Train the network and write ``digits.mar`` into ``store``."""
    weights = io.BytesIO()
    torch.save(train(digits()[0]).state_dict(), weights)
    files = {
        "handler.py": HERE / "handler.py",
        "model.py": HERE / "model.py",
        "model-config.yaml": CONFIG,
        "digits.pt": weights.getvalue(),
    }
    manifest = manifest_of(
        "digits", "handler.py", modelFile="model.py", serializedFile="digits.pt", configFile="model-config.yaml"
    )
    return write_archive(Path(store) / "digits.mar", files, manifest)


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
