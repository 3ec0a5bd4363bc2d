# SPDX-License-Identifier: Apache-2.0
"""
Compare predictions of the application itself with those over HTTP, by the processor time that they take in one process.

The program has a server in it, with one worker whose handler does nothing. Loads over HTTP, from ``wrk``, and from the
program's own coroutines alternate, pair by pair. Run it with ``python -m benchmarks.inprocess``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from benchmarks.load import measure
from twisted_serve import Dependencies, ModelServer, Role, ServerOptions


async def over_http(server: ModelServer, connections: int, seconds: float) -> float:
    """Return the seconds of processor time of a prediction over HTTP."""
    assert server.keys is not None
    url = f"{server.addresses[Role.INFERENCE]}/predictions/noop"
    secret = ("Authorization", f"Bearer {server.keys.inference.secret}")
    begun = time.process_time()
    load = await deferToThread(measure, url, connections, seconds, "GET", None, "", secret)
    used = time.process_time() - begun
    assert load.clean, load
    return used / load.requests


async def in_process(server: ModelServer, callers: int, seconds: float) -> float:
    """Return the seconds of processor time of a prediction by the program itself."""
    begun, end, done = time.process_time(), time.monotonic() + seconds, 0

    async def call() -> None:
        nonlocal done
        while time.monotonic() < end:
            await server.predict("noop")
            done += 1

    await gatherResults([ensureDeferred(call()) for _ in range(callers)])
    return (time.process_time() - begun) / done


async def compare(reactor: object, arguments: argparse.Namespace, directory: str) -> None:
    """Print the figures for each number of callers."""
    options = ServerOptions(
        token_key_file=Path(directory) / "key_file.json",
        temp_directory=Path(directory),
        **{f"{role}_address": "http://127.0.0.1:0" for role in ("inference", "management", "metrics")},
    )
    server = ModelServer(reactor, options, Dependencies())  # type: ignore[arg-type]  # The global reactor is complete.
    server.startService()
    try:
        await server.register(handler="benchmarks.handlers.noop:NoOp", name="noop")
        for callers in arguments.callers:
            pairs = []
            for _ in range(arguments.pairs):
                http = await over_http(server, callers, arguments.seconds)
                pairs.append((http, await in_process(server, callers, arguments.seconds)))
            http, own = (1e6 * median(column) for column in zip(*pairs, strict=True))
            ratio = median(own / http for http, own in pairs)
            print(
                f"{callers:4} at a time: {http:.0f} µs over HTTP, {own:.0f} µs in the process, ratio {ratio:.2f}",
                flush=True,
            )
    finally:
        await server.stopService()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inprocess", description=__doc__)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 16], help="how many wait at a time (1 16)")
    parser.add_argument("--pairs", type=int, default=10, help="how many pairs of loads (10)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each load lasts, at least 1 (1)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk, which makes the load over HTTP, is not installed")
    with tempfile.TemporaryDirectory(prefix="twisted-serve-inprocess-") as directory:
        react(lambda reactor: Deferred.fromCoroutine(compare(reactor, arguments, directory)))


if __name__ == "__main__":
    sys.exit(main())
