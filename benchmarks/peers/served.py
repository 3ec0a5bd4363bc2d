# SPDX-License-Identifier: Apache-2.0
"""Make the handlers for the scripts of this directory, which run in environments without the rest of benchmarks."""

import sys
from pathlib import Path
from types import SimpleNamespace

HANDLERS = Path(__file__).resolve().parent.parent / "handlers"

# As benchmarks.cases has it.
BATCHES = {"mlp32": 32}
CLASSES = {
    "noop": "noop.NoOp",
    "mlp1": "mlp.Perceptron",
    "mlp32": "mlp.Perceptron",
    "encoder": "encoder.Encoder",
    "image": "image.Size",
}
#: The cases whose bodies are JSON.
JSON = ("mlp1", "mlp32", "encoder")


def handler_of(case):
    """Return the initialized handler of a case."""
    sys.path.insert(0, str(HANDLERS))
    module, _, name = CLASSES[case].partition(".")
    handler = getattr(__import__(module), name)()
    handler.initialize(SimpleNamespace())
    return handler
