# SPDX-License-Identifier: Apache-2.0
"""
Measure upper limits: a handler called in a loop, and a ``twisted.web`` that only echoes.

It is run as a script, ``python bare.py loop CASE SECONDS`` or ``python bare.py echo PORT``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def handler_of(file: Path) -> Any:
    """Make the one handler that a file defines, initialized."""
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    [kind] = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == file.stem]
    handler = kind()
    handler.initialize(SimpleNamespace(system_properties={"model_dir": str(file.parent), "gpu_id": None}))
    return handler


def loop(file: Path, body: bytes, batch_size: int, seconds: float) -> dict[str, float]:
    """Call a handler until the time is over, from the bytes of a request to the bytes of its answer."""
    handler = handler_of(file)

    def once() -> None:
        for answer in handler.handle([{"body": bytearray(body)} for _ in range(batch_size)], None):
            if not isinstance(answer, (str, bytes)):
                json.dumps(answer)

    for _ in range(20):
        once()
    calls, begun, busy = 0, time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) < begun + seconds:
        once()
        calls += 1
    requests = calls * batch_size
    return {
        "requests": requests,
        "seconds": now - begun,
        "cpu_us": (time.process_time() - busy) / max(1, requests) * 1e6,
    }


def echo(port: int) -> None:
    """Serve ``ok`` on a port of the loopback address, for ever."""
    from twisted.internet import reactor
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    class Echo(Resource):
        isLeaf = True

        def render(self, request: Any) -> bytes:
            request.content.read()
            return b"ok"

    serving: Any = reactor
    serving.listenTCP(port, Site(Echo()), interface="127.0.0.1")
    serving.run()


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo(int(sys.argv[2]))
    else:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from benchmarks.cases import HANDLERS, case_named

        chosen = case_named(sys.argv[2])
        print(json.dumps(loop(HANDLERS / chosen.handler, chosen.body, chosen.batch_size, float(sys.argv[3]))))
