# SPDX-License-Identifier: Apache-2.0
"""
Profile the server's own process: what one prediction costs there, with workers that answer immediately.

No socket is in it, so the kernel's part and the worker's are not.  Run it with
``python -m benchmarks.front``; it prints the table for the documentation.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from twisted.logger import globalLogBeginner

from benchmarks.tables import table
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.options import ServerOptions
from twisted_serve.logs.setup import open_log
from twisted_serve.metrics.torchserve.log import GATHERING
from twisted_serve.testing.server import MemoryServer
from twisted_serve.wire.messages import Item, Job

# Where time may go, by the end of a file's path or a part of it; the first that fits counts.
LAYERS = (
    (
        "HTTP, reading",
        (
            "web/http/channel.py",
            "web/http/usual_heads.py",
            "protocols/basic.py",
            "protocols/policies.py",
            "auth/targets.py",
        ),
    ),
    ("HTTP, Twisted's request and headers", ("twisted/web/",)),
    ("tokens", ("twisted_serve/auth/",)),
    (
        "routes and jobs",
        (
            "web/routing/fast_path.py",
            "web/routes/fast_lane.py",
            "web/routes/inference.py",
            "web/routes/predictions.py",
            "planes/inputs.py",
            "web/api/access.py",
        ),
    ),
    ("answers", ("twisted_serve/web/",)),
    (
        "queue and workers",
        ("twisted_serve/batching/", "twisted_serve/scheduling/", "twisted_serve/workers/", "twisted_serve/planes/"),
    ),
    ("Deferreds", ("internet/defer.py",)),
    ("log", ("twisted_serve/logs", "twisted/logger/")),
    ("metrics", ("twisted_serve/metrics/", "prometheus_client/")),
)

# The harness itself, which no server has.
_NOT_THERE = ("twisted_serve/testing/", "twisted/internet/testing.py", "twisted/internet/task.py", "benchmarks/")

ROUND = 2000

# How the profiler names a function: file, line, name.
_Function: TypeAlias = tuple[str, int, str]


def by_layer(times: Mapping[str, float]) -> dict[str, float]:
    """
    Sum times by layer.

    :param times: Seconds by the path of the file in which they were spent.
    """
    found = {name: 0.0 for name, _ in LAYERS}
    found["the rest"] = 0.0
    for path, seconds in times.items():
        if any(part in path for part in _NOT_THERE):
            continue
        layer = next((name for name, parts in LAYERS if any(part in path for part in parts)), "the rest")
        found[layer] += seconds
    return found


def times_of(profile: cProfile.Profile) -> dict[str, float]:
    """Return the seconds by file; what is built in is laid to those who called it."""
    found: dict[str, float] = {}
    stats: Mapping[_Function, tuple[int, int, float, float, Mapping[_Function, tuple[int, int, float, float]]]]
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (path, _line, _name), (_calls, _primitive, own, _whole, callers) in stats.items():
        if path == "~":
            for (caller, _, _), (_, _, part, _) in callers.items():
                found[caller] = found.get(caller, 0.0) + part
        else:
            found[path] = found.get(path, 0.0) + own
    return found


def _answer(jobs: list[Job]) -> list[Item]:
    return [Item(job.request_id, 200, "", {"content-type": "text/plain"}, b"ok") for job in jobs]


def main() -> None:
    """Measure, profile, print."""
    log = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    with MemoryServer({}, respond=_answer, models={"noop": {}}) as server:
        files = ServerOptions(log_location=server.directory / "logs", metrics_location=server.directory / "logs")
        opened = open_log(files, log, lambda: server.server.secrets, server.clock.callLater)
        globalLogBeginner.beginLoggingTo([opened.observer], redirectStandardIO=False)
        key = server.key(TokenKind.INFERENCE)
        head = f"GET /predictions/noop HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer {key}\r\n\r\n".encode()

        def some() -> None:
            connection = server.connect()
            for _ in range(ROUND // 20):
                connection.send(head)
            connection.leave()
            # What these requests say in the log has waited for long enough.
            server.advance(GATHERING)

        def all_of_them() -> None:
            for _ in range(20):
                some()

        with opened.shortcut():
            some()
            best = min(_timed(all_of_them) for _ in range(5)) / ROUND
            profile = cProfile.Profile()
            profile.runcall(all_of_them)
    layers = by_layer(times_of(profile))
    whole = sum(layers.values())
    lines = [
        [name, f"{seconds / whole:.0%}", f"{seconds / whole * best * 1e6:.0f}"]
        for name, seconds in sorted(layers.items(), key=lambda each: -each[1])
    ]
    sys.stdout.write(table(["where", "share, %", "µs/request"], [*lines, ["all", "", f"{best * 1e6:.0f}"]]))


def _timed(call: Callable[[], None]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
