# SPDX-License-Identifier: Apache-2.0
"""Tests for what a real server imports: its front is there once for each machine, and stays small."""

from __future__ import annotations

import json
import sys

import pytest

from tests.integration.conftest import MakeServer

pytestmark = pytest.mark.integration

# The command, which says at its end what it has imported; what was there before it is the test run's.
PROGRAM = """
import json, sys
before = set(sys.modules)
from twisted_serve.cli import main
status = main(sys.argv[1:])
print("IMPORTED", json.dumps(sorted(set(sys.modules) - before)), flush=True)
sys.exit(status)
"""

# What a server without plug-ins, traces and a file of Python's logging has no use for, and a front never has.
NEEDLESS = (
    "importlib.metadata",
    "logging.config",
    "opentelemetry",
    "twisted_serve.metrics.tracing",
    "twisted_serve.plugins",
    # The workers'.
    "numpy",
    "PIL",
    "torch",
    "twisted_serve.backend",
    "twisted_serve.handlers",
    # Others' ways to come in by.
    "hypothesis",
    "idna.uts46data",
    "jinja2",
    "jsonschema",
    "multiprocessing",
    "pkg_resources",
    "pydoc",
    "treq",
    "twisted.conch",
    "twisted.trial",
    "twisted.words",
    "twisted_serve.archiver",
    "twisted_serve.testing",
    "unittest",
    # The operators'.
    "click",
    "rich",
    "twisted_serve.subcommands.group",
    "twisted_serve.subcommands.session",
)


def test_nothing_needless(make_server: MakeServer) -> None:
    """A server that has served imports nothing that is large and needless."""
    server = make_server()
    server.add_model("echo")
    words = server.command("--start", "--foreground", "--models", "echo=echo")[1:]
    server.start(command=[sys.executable, "-c", PROGRAM, *words])
    assert server.predict("echo", b"hello").body == b"hello"
    for role, path, key in (
        ("management", "/models/echo", "management"),
        ("management", "/docs", None),
        ("metrics", "/metrics", None),
    ):
        assert server.curl(role, path, key=key).status == 200
    assert server.stop() == 0
    [said] = [line for line in server.log().splitlines() if line.startswith("IMPORTED ")]
    imported = json.loads(said.partition(" ")[2])
    assert "twisted_serve.service" in imported
    assert [name for name in imported for needless in NEEDLESS if f"{name}.".startswith(f"{needless}.")] == []


# Modules that Python's start or ours imports; one that is imported ends the process.
SHADOWS = ("argparse", "asyncio", "enum", "msgspec", "runpy", "select", "socket", "types", "typing")

LOOKS = """
import os, sys
def handle(data, context):
    if data is not None:
        return [str([each for each in sys.path if each == "" or os.path.realpath(each) == os.environ["SERVER_DIR"]])]
"""


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_no_modules_where_it_runs(make_server: MakeServer, way: str) -> None:
    """Modules in the directory in which the server runs are nothing to it, and nothing to its workers."""
    server = make_server({"looks": LOOKS}, worker_start=way)
    for name in SHADOWS:
        (server.cwd / f"{name}.py").write_text("import os\nprint('SHADOWED', flush=True)\nos._exit(9)\n")
    server.environ["SERVER_DIR"] = str(server.cwd)
    server.start("--models", "looks=looks")
    assert server.predict("looks").body == b"[]"
    assert "SHADOWED" not in server.log()
