# SPDX-License-Identifier: Apache-2.0
"""Tests for gRPC with clients in other languages: JavaScript, with packages from npm, and Go, with Debian's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import twisted_serve.rpc
from tests.integration.adder import ADDER
from tests.integration.test_listeners import make_certificate

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HERE = Path(__file__).parent / "grpc"
RPC = Path(twisted_serve.rpc.__file__).parent

# Seconds for a registry to answer, for a compiler, and for all calls of a client.
REGISTRY, COMPILER, CLIENT = 60, 300, 120

NPM_PACKAGES = ("@grpc/grpc-js@^1.10", "@grpc/proto-loader@>=0.7 <1")

# Where Debian's packages have libraries in Go; golang-go and golang-google-grpc-dev are needed.
GO_PATH = os.environ.get("GOPATH", "/usr/share/gocode")

# One worker, which answers one call after the other, so that a call that does not end is noticed.
HANDLER = """
import time
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data is None:
        return None
    text = bytes(data[0]["data"]).decode()
    word, _, number = text.partition(" ")
    if word == "sleep":
        for _ in range(50 * int(number)):
            if context.is_cancelled(0):
                break
            time.sleep(0.02)
    if word == "stream":
        for part in range(int(number)):
            if context.is_cancelled(0):
                break
            send([f"part {part} "], context.request_ids, "", 200, context)
        return ["last"]
    if word == "fail":
        raise ValueError("the handler fails")
    return [text]
"""

STATEFUL = {"minWorkers": 1, "maxWorkers": 1, "sequenceBatching": True, "maxNumSequence": 2}

REFUSED = {
    "code": 7,
    "details": "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
}
CALLS: dict[str, Any] = {
    "unary": {"code": 0, "text": "hello"},
    "unknownModel": {"code": 13},
    "fails": 14,
    "many": 200,
    "large": True,
    "tooLarge": {"code": 8},
    "stream": {"code": 0, "texts": [*(f"part {part} " for part in range(5)), "last"]},
    "streamOfOne": {"code": 0, "texts": ["one"]},
    "bidirectional": {"code": 0, "sums": ["1", "3", "7"], "errors": [13]},
    "deadline": {"code": 4},
    "cancel": {"code": 1, "after": {"code": 0, "text": "after"}},
    "cancelStream": {"code": 1, "after": {"code": 0, "text": "after"}},
    "gzip": True,
    "noKey": REFUSED,
    "wrongKey": REFUSED,
    "unknownMethod": {"code": 12},
    "reflection": {"served": True, "file": True, "absent": 5},
    "openInference": {"live": {"live": True}, "model": {"ready": True}},
    "health": {"ready": 1, "live": 1, "absent": -5, "watched": 1, "end": 1},
}

Run = Callable[[dict[str, Any]], dict[str, Any]]


def process(words: list[str], environ: dict[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    environ = {**os.environ, **environ}
    return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=seconds, check=False)


def client(words: list[str], plan: dict[str, Any], **environ: str) -> dict[str, Any]:
    """Run a client, and return its results."""
    environ = {"NO_PROXY": "*", "no_proxy": "*", "no_grpc_proxy": "*", **environ}
    done = process([*words, json.dumps(plan)], environ, CLIENT)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def javascript(place: Path) -> Run:
    """Install the packages, and return what runs the client."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    words = [
        npm,
        "install",
        "--prefix",
        str(place),
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefer-offline",
        *NPM_PACKAGES,
    ]
    try:
        done = process(words, {"npm_config_fetch_retries": "0"}, REGISTRY)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm's registry has not answered within {REGISTRY} s")
    if done.returncode:
        pytest.skip(f"npm does not install {' '.join(NPM_PACKAGES)}: {done.stderr.strip()[-300:]}")
    words = [node, str(HERE / "client.js")]
    return lambda plan: client(words, plan, NODE_PATH=str(place / "node_modules"))


def go(place: Path) -> Run:
    """Compile the client, and return what runs it."""
    compiler = shutil.which("go")
    if compiler is None or not (Path(GO_PATH) / "src/google.golang.org/grpc").is_dir():
        pytest.skip("golang-go and golang-google-grpc-dev are not installed")
    environ = {"GO111MODULE": "off", "GOPATH": GO_PATH, "CGO_ENABLED": "0", "GOCACHE": str(place / "cache")}
    done = process([compiler, "build", "-o", str(place / "client"), str(HERE / "client.go")], environ, COMPILER)
    assert done.returncode == 0, done.stderr
    return lambda plan: client([str(place / "client")], plan)


@pytest.fixture(scope="session", params=[javascript, go])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs the client of a language."""
    made: Run = request.param(tmp_path_factory.mktemp("client"))
    return made


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with both models."""
    server = make_module_server(job_queue_size=300, grpc_reflection="true")
    server.add_model("m", HANDLER)
    server.add_model("adder", ADDER, **STATEFUL)
    return server.start("--models", "m=m", "adder=adder")


@pytest.fixture(scope="module")
def tls_server(make_module_server: MakeServer) -> Server:
    """Start a server whose gRPC is over TLS."""
    server = make_module_server()
    certificate, key = make_certificate(server.cwd)
    server.configure(job_queue_size=300, enable_grpc_ssl="true", certificate_file=certificate, private_key_file=key)
    server.add_model("m", HANDLER)
    return server.start("--models", "m=m")


def plan_for(server: Server, calls: Iterable[str], ca: str = "") -> dict[str, Any]:
    """Return what a client is to do."""
    (port,) = re.findall(r"gRPC inference API bind to: \S*127\.0\.0\.1:(\d+)$", server.log(), re.MULTILINE)
    return {
        "address": f"127.0.0.1:{port}",
        "protos": str(RPC / "protos"),
        "descriptors": str(RPC / "descriptors.binpb"),
        "key": server.keys()["inference"],
        "ca": ca,
        "calls": list(calls),
    }


def expected(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results that are expected, in members that not all clients have, what this one has."""
    return {
        name: {**result, **CALLS[name]} if isinstance(result, dict) else CALLS[name] for name, result in results.items()
    }


def test_calls(run: Run, server: Server) -> None:
    """Calls of each kind are answered, to their deadline, until they are cancelled, compressed, and refused."""
    results = run(plan_for(server, CALLS))
    assert results.keys() == CALLS.keys()
    assert results == expected(results)
    assert results["unknownModel"]["details"].startswith("Model not found: absent\n")
    # The only worker was not kept by the calls that were cancelled.
    assert results["cancel"]["seconds"] < 10


def test_tls(run: Run, tls_server: Server) -> None:
    """The same certificate as that of https is shown, and HTTP/2 agreed upon."""
    calls = ("unary", "many", "stream", "gzip", "noKey", "health")
    results = run(plan_for(tls_server, calls, str(tls_server.cwd / "cert.pem")))
    assert results.keys() == set(calls)
    assert results == expected(results)
