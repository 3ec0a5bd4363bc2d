# SPDX-License-Identifier: Apache-2.0
"""
What can be wrong with an archive, with a handler while it loads, and with what it does while it serves.

Each case belongs to a row of the tables in ``docs/handlers.md``, and says what its client gets and where the reason is.
"""

from __future__ import annotations

from tests.integration.bad_calls import SERVING
from tests.integration.bad_cases import GARBAGE, AnyCase, BadArchive, BadHandler
from twisted_serve.testing.strategies.archives import ArchiveEntry, model_entries, zip_archive

ECHO = "def handle(data, context):\n    return data and ['alive']\n"

# Does what the body says, which is Python; the model's directory has files of its own.
MODULE = """
import _thread, ctypes, os, resource, signal, socket, sys, threading, time, warnings
from pathlib import Path
from ts.handler_utils.utils import send_intermediate_predict_response as send
from ts.utils.util import PredictionException

def handle(data, context):
    if data is None:
        return None
    results = []
    for row in data:
        names = {**globals(), "context": context, "results": results}
        exec(bytes(row["body"]), names)
        results = names["results"]
    return results
"""

NO_ARCHIVE = "a file that is no archive, or half of one"
UNSAFE = "an archive with a name that leads out of it"
MANIFEST = "a manifest that is no JSON, or lacks something"
SETTINGS = "a setting of the wrong type, or no YAML"
OUTSIDE = "a file in the manifest that is not in the archive"

NO_HANDLER = "the handler's file, function or class is not there"
RAISES = "an exception, a syntax error too, while the handler loads"
NO_MEMORY = "memory is exhausted while the handler loads"
DIES = "the worker dies while the handler loads"
SLOW = "loading takes longer than `startupTimeout`"
TALKS = "the handler closes the worker's socket, or writes to it"


def _archives() -> list[BadArchive]:
    def manifest(content: bytes) -> bytes:
        return zip_archive([ArchiveEntry("MAR-INF/MANIFEST.json", content), ArchiveEntry("h.py", ECHO.encode())])

    def model(config: bytes = b"", **members: str) -> bytes:
        files = {"h.py": ECHO.encode(), "c": config}
        return zip_archive(model_entries(files, **{"modelName": "bad", "handler": "h.py", **members}))

    good = model()
    no_zip = "is not a valid zip archive"
    return [
        BadArchive("junk", NO_ARCHIVE, 400, no_zip, data=b"junk"),
        BadArchive("empty", NO_ARCHIVE, 400, no_zip, data=b""),
        BadArchive("half", NO_ARCHIVE, 400, no_zip, data=good[: len(good) // 2]),
        BadArchive("no-tar", NO_ARCHIVE, 400, "is not a valid tar.gz archive", data=b"junk", suffix=".tar.gz"),
        BadArchive("zip-as-tar", NO_ARCHIVE, 400, "is not a valid tar.gz archive", data=good, suffix=".tar.gz"),
        BadArchive(
            "climbs", UNSAFE, 400, "unsafe name '../evil.py'", data=zip_archive([ArchiveEntry("../evil.py", b"")])
        ),
        BadArchive("manifest", MANIFEST, 400, "Failed to parse signature.json.", data=manifest(b"{")),
        BadArchive("no-model", MANIFEST, 400, "Missing Model entry in manifest file.", data=manifest(b"{}")),
        BadArchive(
            "runtime",
            MANIFEST,
            400,
            "Runtime is not defined or invalid.",
            data=manifest(b'{"runtime": "java", "model": {}}'),
        ),
        BadArchive(
            "no-name",
            MANIFEST,
            400,
            "Model name is not defined.",
            data=zip_archive(model_entries({"h.py": b""}, handler="h.py")),
        ),
        BadArchive(
            "no-handler",
            MANIFEST,
            400,
            "names no handler",
            data=zip_archive(model_entries({"h.py": b""}, modelName="bad")),
        ),
        BadArchive(
            "setting",
            SETTINGS,
            400,
            "batchSize is 'x', expected an integer",
            data=model(b"batchSize: x", configFile="c"),
        ),
        BadArchive("yaml", SETTINGS, 400, "Failed to parse model config file c", data=model(b"a: [", configFile="c")),
        BadArchive("no-config", OUTSIDE, 400, "model config file d: No such file", data=model(configFile="d")),
        BadArchive(
            "shadow", OUTSIDE, 400, "not inside the model directory", data=model(requirementsFile="/etc/shadow")
        ),
        BadArchive(
            "missing",
            NO_HANDLER,
            500,
            "the archive has no module no, nor is it a built-in handler",
            "the archive has no module no",
            data=model(handler="no.py"),
        ),
        BadArchive(
            "function",
            NO_HANDLER,
            500,
            "Expected only one class in custom service code or a function entry point",
            "a function entry point",
            data=model(handler="h.py:no"),
        ),
    ]


_LOADING = [
    BadHandler("no-class", NO_HANDLER, 500, "Expected only one class", "Expected only one class", source="x = 1"),
    BadHandler(
        "two-classes",
        NO_HANDLER,
        500,
        "a function entry point ['A', 'B']",
        "Expected only one class",
        source="class A: pass\nclass B: pass",
    ),
    BadHandler(
        "no-initialize",
        NO_HANDLER,
        500,
        "Expect initialize method in class A",
        "Expect initialize method",
        source="class A:\n    def handle(self, data, context): pass",
    ),
    BadHandler("syntax", RAISES, 500, "(h.py, line 1)", "SyntaxError", source="def ("),
    BadHandler("encoding", RAISES, 500, "SyntaxError", "SyntaxError", source="# coding: nonsense\n"),
    BadHandler("import", RAISES, 500, "No module named 'no_such'", "ModuleNotFoundError", source="import no_such"),
    BadHandler(
        "initialize",
        RAISES,
        500,
        "KeyError: 'a key' (h.py, line 3)",
        "KeyError",
        source="class A:\n    def initialize(self, context):\n        raise KeyError('a key')\n"
        "    def handle(self, data, context): pass",
    ),
    BadHandler("recursion", RAISES, 500, "RecursionError", "RecursionError", source="def f(): return f()\nf()"),
    BadHandler("sys-exit", RAISES, 500, "SystemExit: 5 (h.py, line 2)", "SystemExit", source="import sys\nsys.exit(5)"),
    BadHandler("interrupt", RAISES, 500, "KeyboardInterrupt", "KeyboardInterrupt", source="raise KeyboardInterrupt"),
    BadHandler(
        "base-exception",
        RAISES,
        500,
        "Odd: at odds",
        "Odd: at odds",
        source="class Odd(BaseException): pass\nraise Odd('at odds')",
    ),
    BadHandler(
        "no-text",
        RAISES,
        500,
        "Mute (h.py",
        "Mute",
        source="class Mute(Exception):\n    def __str__(self): return 1 // 0\nraise Mute",
    ),
    BadHandler(
        "long-text", RAISES, 500, "ValueError: xxx", "ValueError: xxx", source="raise ValueError('x' * 50_000_000)"
    ),
    BadHandler(
        "silent",
        RAISES,
        500,
        "ValueError: unheard (h.py, line 3)",
        "unheard",
        source="import sys\nsys.stdout.close() or sys.stderr.close()\nraise ValueError('unheard')",
    ),
    BadHandler(
        "no-output",
        RAISES,
        500,
        "ValueError: unheard (h.py, line 3)",
        "unheard",
        source="import os\nos.closerange(1, 3)\nraise ValueError('unheard')",
    ),
    BadHandler("memory", NO_MEMORY, 507, "System out of memory", "MemoryError", source="raise MemoryError"),
    BadHandler("os-exit", DIES, 500, "it exited with code 9", "it exited with code 9", source="import os\nos._exit(9)"),
    BadHandler(
        "segfault",
        DIES,
        500,
        "it was ended by SIGSEGV",
        "it was ended by SIGSEGV",
        source="import ctypes\nctypes.string_at(0)",
    ),
    BadHandler(
        "last-words",
        DIES,
        500,
        "it exited with code 2: no GPU at all",
        "it exited with code 2: no GPU at all",
        source="import os\nos.write(2, b'no GPU at all\\n')\nos._exit(2)",
    ),
    BadHandler(
        "killed",
        NO_MEMORY,
        507,
        "it was ended by SIGKILL",
        "it was ended by SIGKILL",
        source="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    ),
    BadHandler(
        "hangs",
        SLOW,
        500,
        "did not load within 2 seconds",
        "did not load within 2 seconds",
        source="import time\ntime.sleep(3600)",
        config={"startupTimeout": 2},
    ),
    BadHandler(
        "hangs-on",
        SLOW,
        500,
        "did not load within 1 seconds",
        "did not load within 1 seconds",
        source="import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: print('b' * 200)",
        config={"startupTimeout": 1},
    ),
    BadHandler(
        "socket-closed", TALKS, 500, "The worker died", "The worker died", source="import os\nos.closerange(3, 100)"
    ),
    BadHandler(
        "socket-used",
        TALKS,
        500,
        "broke the protocol",
        "broke the protocol",
        source=f"import os, time\n{GARBAGE}",
    ),
]

CASES: list[AnyCase] = [*_archives(), *_LOADING, *SERVING]
