# SPDX-License-Identifier: Apache-2.0
"""
Profile a worker: what one request costs there, from the bytes of a frame to the bytes of the answer.

No socket is in it, so the kernel's part and the server's are not.  Run it with
``python -m benchmarks.worker``; it prints a table for each case.
"""

from __future__ import annotations

import cProfile
import io
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.front import times_of
from benchmarks.tables import table
from twisted_serve.backend.channel import Channel
from twisted_serve.backend.session import serve
from twisted_serve.backend.ts import names
from twisted_serve.wire.codec import encode
from twisted_serve.wire.messages import Job, LoadModel, Part, Predict

HANDLERS = Path(__file__).resolve().parent / "handlers"

# Where time may go, by a part of a file's path; the first that fits counts.
LAYERS = (
    ("frames", ("backend/channel.py", "wire/codec.py", "backend/session.py")),
    ("values and results", ("backend/encoding.py", "backend/items.py", "/json/")),
    ("metrics", ("backend/metric_buffer.py", "handlers/metrics.py")),
    ("context", ("handlers/context.py",)),
    ("the call", ("backend/call.py", "backend/service.py")),
    ("model", ("benchmarks/handlers/", "/torch/")),
)

# Name, handler, jobs of a batch.
CASES = [
    ("no-op", "noop.py", 1),
    ("no-op, batches of 32", "noop.py", 32),
    ("MLP", "mlp.py", 1),
    ("MLP, batches of 32", "mlp.py", 32),
]

#: Requests of a round, and rounds.
REQUESTS, ROUNDS = 3200, 7


class _Fed:
    """The socket of a worker, in memory: frames to read, and no place for what is written."""

    def __init__(self, frames: list[bytearray], turned: Callable[[], None]) -> None:
        self._frames = iter(frames)
        self._left: bytes | bytearray = b""
        self._turned = turned
        self._written = 0

    def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0) -> int:
        """Read at most one frame."""
        if not self._left:
            self._left = next(self._frames, b"")
        taken = min(len(self._left), size or len(buffer))
        buffer[:taken] = self._left[:taken]
        self._left = self._left[taken:]
        return taken

    def sendall(self, _data: object) -> None:
        """Drop an answer."""
        self._written += 1
        if self._written == 1:
            # The model is loaded.
            self._turned()


def _jobs(handler: str, batch: int) -> list[Job]:
    headers = {"Host": "127.0.0.1:8080", "Authorization": "Bearer hidden", "Accept": "*/*", "url_path": ""}
    numbers = json.dumps([round(0.37 * each - 11, 3) for each in range(64)]).encode()
    parts = [Part("body", "application/json", numbers)] if handler == "mlp.py" else []
    return [Job(f"1f0c9f52-5f5b-4d5c-9d0e-{each:012}", headers, parts) for each in range(batch)]


def _round(handler: str, batch: int, profile: cProfile.Profile | None = None) -> float:
    """Run a worker until it has answered; return the seconds of one request, without loading."""
    load = LoadModel("bench", "1.0", str(HANDLERS), handler, batch, {}, {}, "1")
    predict = [encode(Predict(each, _jobs(handler, batch))) for each in range(REQUESTS // batch)]
    begun = 0.0

    def loaded() -> None:
        nonlocal begun
        if profile is not None:
            profile.enable()
        begun = time.process_time()

    connection: Any = _Fed([encode(load), *predict], loaded)
    # The metrics of the first batch are printed.
    with redirect_stdout(io.StringIO()):
        serve(Channel(connection), lambda path: sys.path.insert(0, path))
    seconds = time.process_time() - begun
    if profile is not None:
        profile.disable()
    return seconds / REQUESTS


def main() -> None:
    """Measure, profile, print."""
    names.install()
    rows = []
    for name, handler, batch in CASES:
        best = min(_round(handler, batch) for _ in range(ROUNDS))
        profile = cProfile.Profile()
        _round(handler, batch, profile)
        found = dict.fromkeys([*(layer for layer, _ in LAYERS), "the rest"], 0.0)
        for path, seconds in times_of(profile).items():
            layer = next((layer for layer, parts in LAYERS if any(part in path for part in parts)), "the rest")
            found[layer] += seconds
        whole = sum(found.values())
        rows.append([name, f"{best * 1e6:.1f}", *(f"{each / whole * best * 1e6:.1f}" for each in found.values())])
    sys.stdout.write(table(["µs/request", "all", *(layer for layer, _ in LAYERS), "the rest"], rows))


if __name__ == "__main__":
    main()
