# SPDX-License-Identifier: Apache-2.0
"""
Define the cases: models, request bodies, and the archives that servers load.
"""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

from attrs import frozen

HANDLERS = Path(__file__).resolve().parent / "handlers"

CONNECTIONS = (1, 8, 64)


@frozen
class Case:
    """
    A model with what is sent to it.

    :ivar delay: Milliseconds that a batch may wait, where a server waits at all.
    :ivar body: What is sent; nothing is a GET.
    :ivar policy: When a batch that is not full leaves our server; nothing for its default.
    """

    name: str
    title: str
    handler: str
    body: bytes = b""
    content_type: str = ""
    batch_size: int = 1
    delay: int = 5
    policy: str = ""


_random = random.Random(0)
_NUMBERS = json.dumps([round(_random.random(), 3) for _ in range(64)]).encode()
_TOKENS = json.dumps([_random.randrange(1000) for _ in range(64)]).encode()
_STEPS = json.dumps([_random.randrange(1000) for _ in range(200)]).encode()

CASES = (
    Case("noop", "no-op", "noop.py"),
    Case("mlp1", "MLP 64-256-10, batch 1", "mlp.py", _NUMBERS, "application/json"),
    Case("mlp32", "MLP 64-256-10, batch 32", "mlp.py", _NUMBERS, "application/json", batch_size=32),
    Case("encoder", "transformer encoder, 10 ms", "encoder.py", _TOKENS, "application/json"),
    Case("image", "1 MB image body", "image.py", _random.randbytes(1 << 20), "image/jpeg"),
)

# What our server's batch policies are compared with: batches that save nearly nothing, and batches that save much.
ENCODER = Case("encoder", "transformer encoder", "encoder.py", _TOKENS, "application/json", batch_size=8, delay=10)
RECURRENT = Case("recurrent", "recurrent network", "recurrent.py", _STEPS, "application/json", batch_size=16, delay=10)


def case_named(name: str) -> Case:
    """
    Find a case.

    :raise KeyError: if there is none of this name.
    """
    return {case.name: case for case in CASES}[name]


def build_archive(case: Case, store: Path) -> Path:
    """Write the archive of a case: the same file for both servers that read archives."""
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {
            "modelName": case.name,
            "modelVersion": "1.0",
            "handler": case.handler,
            "configFile": "model-config.yaml",
        },
    }
    config = (
        f"minWorkers: 1\nmaxWorkers: 4\nbatchSize: {case.batch_size}\nmaxBatchDelay: {case.delay}\n"
        "responseTimeout: 120\n"
    )
    if case.policy:
        config += f"batchPolicy: {case.policy}\n"
    archive = store / f"{case.name}.mar"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(HANDLERS / case.handler, case.handler)
        file.writestr("model-config.yaml", config)
        file.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    return archive
