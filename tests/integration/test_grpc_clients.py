# SPDX-License-Identifier: Apache-2.0
"""Tests for the Open Inference Protocol with the clients that its users have: Triton's and KServe's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLIENT = Path(__file__).parent / "grpc" / "open_inference_client.py"

# They need another major version of protobuf than other tests; the rest of what they import is installed.
PACKAGES = ("tritonclient==2.73.*", "kserve==0.21.*", "protobuf>=6.33.5,<7", "python-rapidjson", "urllib3", "ml-dtypes")

# Seconds for the registry, and for all calls.
REGISTRY, CALLS = 120, 120

ECHO = """
def handle(data, context):
    if data is not None:
        return [answer(row["body"]) for row in data]

def answer(body):
    outputs = [{**each, "name": "out_" + each["name"]} for each in body["inputs"]]
    return {"id": body["id"], "parameters": body.get("parameters"), "outputs": outputs}
"""

WORDS = """
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    for word in data[0]["body"]["inputs"][0]["data"][0].split():
        if context.is_cancelled(0):
            break
        output = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [word]}
        send_intermediate_predict_response([{"outputs": [output]}], context.request_ids, "", 200, context)
    return [""]
"""

FAILS = """
def handle(data, context):
    if data is not None:
        with open("calls", "a") as calls:
            calls.write("call\\n")
        raise ValueError("the handler fails")
"""

SLOW = """
import time

def handle(data, context):
    if data is not None:
        time.sleep(1)
        return [{"outputs": []}]
"""

NOT_FOUND = ["StatusCode.NOT_FOUND", "Model not found: absent"]
FAILED = ["StatusCode.INTERNAL", "Prediction failed"]


def installed(place: Path) -> None:
    """Install the clients into a directory, or skip."""
    words = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "0"]
    words += ["--no-deps", "--only-binary", ":all:", "--target", str(place), *PACKAGES]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=REGISTRY, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the registry has not answered within {REGISTRY} s")
    if done.returncode:
        pytest.skip(f"pip does not install {' '.join(PACKAGES)}: {done.stderr.strip()[-300:]}")


def test_clients(make_server: MakeServer, tmp_path: Path) -> None:
    """
    Both clients ask for health and metadata, send tensors of each type, compressed and not, and load models.

    Triton's also calls asynchronously and by streams, one of which it abandons.
    """
    place = tmp_path / "clients"
    installed(place)
    server = make_server(enable_model_api="true", ts_open_inference_protocol="true")
    for name, source in {"echo": ECHO, "words": WORDS, "fails": FAILS, "slow": SLOW, "spare": ECHO}.items():
        server.add_model(name, source)
    server.start("--models", "echo=echo", "words=words", "fails=fails", "slow=slow")
    keys = server.keys()
    (port,) = re.findall(r"gRPC inference API bind to: \S*127\.0\.0\.1:(\d+)$", server.log(), re.MULTILINE)
    plan = {
        "address": f"127.0.0.1:{port}",
        "key": keys["inference"],
        "management": keys["management"],
    }
    environ = {**os.environ, "PYTHONPATH": str(place), "NO_PROXY": "*", "no_proxy": "*", "no_grpc_proxy": "*"}

    def called(client: str) -> dict[str, Any]:
        words = [sys.executable, str(CLIENT), json.dumps({**plan, "client": client})]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=CALLS, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    triton, kserve = called("triton"), called("kserve")
    assert triton.pop("key")[0] == "StatusCode.PERMISSION_DENIED"
    assert triton == {
        "live": True,
        "ready": True,
        "model": True,
        "server": "Torchserve",
        "versions": ["1.0"],
        "wrong": [],
        "large": True,
        "absent": NOT_FOUND,
        "fails": FAILED,
        "deadline": ["StatusCode.DEADLINE_EXCEEDED"],
        "async": [str(number) for number in range(8)],
        "words": [["1", word, False] for word in ("to", "be", "or", "not")] + [["1", "", True]],
        "stream": [[["error", "Model not found: absent", False]]],
        "after": "after",
        "refused": ["StatusCode.PERMISSION_DENIED"],
        "index": [[name, "READY"] for name in ("echo", "fails", "slow", "spare", "words")],
        "unloaded": ["StatusCode.NOT_FOUND"],
    }
    assert kserve == {
        "live": True,
        "ready": True,
        "model": True,
        "wrong": [],
        "fails": FAILED,
        "loaded": ["spare", True, "spare", True],
        "torchserve": [1, -2],
    }
    # KServe's client repeats what is UNAVAILABLE: a handler that fails is called once by each client.
    assert (server.store / "fails" / "calls").read_text().count("call") == 2
    assert server.slow_turns() == []
