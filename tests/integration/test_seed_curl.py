# SPDX-License-Identifier: Apache-2.0
"""
Tests for the token authorization API's own document: its ``curl`` lines, as they are written there.

Keys and ports are put in; all else, quoting included, is the document's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

DESCRIBE = 'curl http://localhost:8081/models/densenet161 -H "Authorization: Bearer I_J_ItMb"'
PREDICT = (
    "curl http://127.0.0.1:8080/predictions/densenet161 -T examples/image_classifier/kitten.jpg "
    '-H "Authorization: Bearer FINhR1fj"'
)
REPLACE_MANAGEMENT = 'curl localhost:8081/token?type=management -H "Authorization: Bearer m4M-5IBY"'
REPLACE_INFERENCE = 'curl localhost:8081/token?type=inference -H "Authorization: Bearer m4M-5IBY"'

# Which key of the server stands for each of the document's.
KEYS = {"I_J_ItMb": "management", "FINhR1fj": "inference", "m4M-5IBY": "API"}

# More than curl sends before it is told to go on.
KITTEN = b"\xff\xd8\xff\xe0" + os.urandom(2_000_000)

DENSENET = """
import hashlib

def handle(data, context):
    if data is not None:
        return [{hashlib.sha256(row.get("data") or row.get("body")).hexdigest(): len(data)} for row in data]
"""


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with the document's model, in a directory with the document's picture."""
    server = make_module_server({"densenet161": DENSENET})
    picture = server.cwd / "examples/image_classifier/kitten.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(KITTEN)
    return server.start("--models", "densenet161=densenet161")


def execute(server: Server, line: str, keys: bool = True) -> Any:
    """Have a shell execute a line of the document, and return the JSON that it prints."""
    line = line.replace(":8080/", f":{server.ports['inference']}/")
    line = line.replace(":8081/", f":{server.ports['management']}/")
    for placeholder, kind in KEYS.items():
        line = line.replace(placeholder, server.keys()[kind] if keys else placeholder)
    done = subprocess.run(
        ["sh", "-c", line], cwd=server.cwd, env=server.environ, capture_output=True, timeout=40, check=True
    )
    return json.loads(done.stdout)


def test_start_up_log(server: Server) -> None:
    """The log has the predecessor's block with the path of the key file, and the line that the document promises."""
    messages = [line.partition(" - ")[2] for line in server.log().splitlines()]
    first = messages.index("######")
    last = messages.index("######", first + 1)
    block = messages[first + 1 : last]
    assert block[0] == "TorchServe now enforces token authorization by default."
    assert f"Key file located at {server.key_file}" in block
    assert messages[last + 1] == "Token Authorization Enabled"


def test_key_file(server: Server) -> None:
    """The key file is as in the document's example: members, their order, dates in UTC, no expiry under ``API``."""
    content = server.key_file.read_text()
    pattern = r"""\{
  "management": \{
    "key": "[\w-]+",
    "expiration time": "DATE"
  \},
  "inference": \{
    "key": "[\w-]+",
    "expiration time": "DATE"
  \},
  "API": \{
    "key": "[\w-]+"
  \}
\}""".replace("DATE", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
    assert re.fullmatch(pattern, content, re.ASCII)


def test_describe(server: Server) -> None:
    """The management key opens the management API."""
    (described,) = execute(server, DESCRIBE)
    assert described["modelName"] == "densenet161"
    assert [worker["status"] for worker in described["workers"]] == ["READY"]


def test_predict(server: Server) -> None:
    """The inference key opens predictions, with a picture sent as ``curl -T`` does."""
    assert execute(server, PREDICT) == {hashlib.sha256(KITTEN).hexdigest(): 1}


@pytest.mark.parametrize(
    ("line", "kind", "uses"),
    [(REPLACE_MANAGEMENT, "management", DESCRIBE), (REPLACE_INFERENCE, "inference", PREDICT)],
)
def test_replace(server: Server, line: str, kind: str, uses: str) -> None:
    """The API key replaces a key and its expiration in the file, at once, and no other."""
    before = json.loads(server.key_file.read_text())
    answer = execute(server, line)
    after = json.loads(server.key_file.read_text())
    assert {name for name in before if before[name] != after[name]} == {kind}
    assert before[kind]["key"] != after[kind]["key"]
    assert before[kind]["expiration time"] < after[kind]["expiration time"]
    assert {name: answer[name] for name in ("key", "expiration time")} == after[kind]

    old = execute(server, uses.replace(next(p for p, k in KEYS.items() if k == kind), before[kind]["key"]))
    assert old["type"] == "InvalidKeyException"
    assert "type" not in execute(server, uses)


@pytest.mark.parametrize("line", [DESCRIBE, PREDICT, REPLACE_MANAGEMENT, REPLACE_INFERENCE])
def test_wrong_key(server: Server, line: str) -> None:
    """The document's own keys, and none at all, open nothing."""
    before = server.key_file.read_bytes()
    for refused in (line, line.partition(" -H ")[0]):
        answer = execute(server, refused, keys=False)
        assert (answer["code"], answer["type"]) == (400, "InvalidKeyException")
        assert answer["message"].endswith("failed. Token either incorrect, expired, or not provided correctly")
    assert server.key_file.read_bytes() == before
