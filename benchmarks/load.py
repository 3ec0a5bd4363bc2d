# SPDX-License-Identifier: Apache-2.0
"""
Measure once: run ``wrk`` with our script, and parse its output.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from attrs import frozen

SCRIPT = Path(__file__).resolve().parent / "lua" / "post.lua"

_MARK = "BENCH "


@frozen
class Load:
    """
    What came of a load.

    :ivar requests: How many were answered in ``seconds``.
    :ivar refused: Answers with a status that is an error.
    :ivar broken: Connections and requests that failed without an answer.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def clean(self) -> bool:
        """Whether what was measured is answers, not errors."""
        return self.requests > 0 and self.refused + self.broken <= self.requests // 1000


def read_load(output: str) -> Load:
    """
    Read what our script has printed.

    :raise ValueError: when it has printed nothing of the kind.
    """
    for line in output.splitlines():
        if line.startswith(_MARK):
            return Load(**json.loads(line[len(_MARK) :]))
    raise ValueError(f"wrk reported nothing: {output[-300:]!r}")


def measure(
    url: str,
    connections: int,
    seconds: float,
    method: str,
    body: Path | None,
    content_type: str,
    secret: tuple[str, str] | None,
) -> Load:
    """
    Put a load on a server.

    :param secret: Name and value of the header with the key.
    :raise ValueError: when ``wrk`` failed.
    """
    header, value = secret or ("", "")
    environment = {
        **os.environ,
        "BENCH_METHOD": method,
        "BENCH_BODY": str(body or ""),
        "BENCH_TYPE": content_type,
        "BENCH_HEADER": header,
        "BENCH_SECRET": value,
    }
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "30s",
        "-s",
        str(SCRIPT),
        url,
    ]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 90, check=False)
    return read_load(run.stdout + run.stderr)
