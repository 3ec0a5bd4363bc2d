# SPDX-License-Identifier: Apache-2.0
"""Tests for workflows in a real server: a model between two functions, attempts, time limits, and what is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from twisted_serve.archiver.workflows import WorkflowArchiverConfig, pack_workflow

if TYPE_CHECKING:
    from tests.integration.answer import Answer
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Adds the numbers it is given; what it is to do otherwise comes in the first of them.
MODEL = """
import time
from pathlib import Path

def handle(data, context):
    return None if data is None else [total(bytes(row["body"])) for row in data]

def total(body):
    first, *others = body.decode().split()
    if first == "once":
        # Fails the first time that it is asked.
        try:
            Path(others[0]).touch(exist_ok=False)
        except FileExistsError:
            return "1"
        raise ValueError("not yet")
    if first == "sleep":
        time.sleep(float(others[0]))
    if first == "raise":
        raise ValueError("never")
    return str(sum(map(int, [first, *others])))
"""

FUNCTIONS = """
import json
from pathlib import Path

def prepare(data, context):
    if data is None:
        return None
    assert Path("separator.txt").read_text() == ","
    return [bytes(row["numbers"]).replace(b",", b" ") for row in data]

def sign(data, context):
    return None if data is None else [{"negative": int(row["body"]) < 0} for row in data]

def report(data, context):
    if data is None:
        return None
    key = context.get_request_header(0, "X-Key")
    return [{"sum": int(row["add"]), "sign": json.loads(bytes(row["sign"])), "key": key} for row in data]
"""

SPECIFICATION = """
models:
  retry-attempts: 1
  timeout-ms: 60000
  add:
    url: add-1.0.mar
    max-workers: 2
    timeout-ms: {timeout}
dag:
  prepare: [add]
  add: [sign, report]
  sign: [report]
"""


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server for all tests of this module."""
    server = make_module_server(enable_model_api="true")
    server.add_archive("add", MODEL)
    return server.start()


def pack(server: Server, place: Path, name: str, timeout: int = 60_000, functions: str = FUNCTIONS) -> None:
    """Put a workflow's archive into the store."""
    (place / "workflow.yaml").write_text(SPECIFICATION.format(timeout=timeout))
    (place / "functions.py").write_text(functions)
    (place / "separator.txt").write_text(",")
    pack_workflow(
        WorkflowArchiverConfig(
            name,
            place / "workflow.yaml",
            place / "functions.py",
            [place / "separator.txt"],
            server.store,
        )
    )


def register(server: Server, name: str) -> Answer:
    return server.curl("management", f"/workflows?url={name}.war", "-X", "POST", key="management")


def ask(server: Server, name: str, numbers: str) -> Answer:
    words = ("-F", f"numbers={numbers}", "-H", "X-Key: mine")
    return server.curl("inference", f"/wfpredict/{name}", *words, key="inference")


def test_workflow(server: Server, tmp_path: Path) -> None:
    """Functions and a model answer together; a failed attempt is made good; nothing is left when it is unregistered."""
    workers = len(server.workers())
    pack(server, tmp_path, "sums")
    answer = register(server, "sums")
    assert answer.status == 200, answer.body
    assert answer.json() == {"status": "Workflow sums has been registered and scaled successfully."}
    answer = ask(server, "sums", "1,2,-10")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    # Handlers see no key of ours, and their own headers.
    assert answer.json() == {"sum": -7, "sign": {"negative": True}, "key": "mine"}
    assert ask(server, "sums", f"once {tmp_path / 'asked'}").json()["sum"] == 1
    failed = ask(server, "sums", "raise")
    assert (failed.status, failed.json()["message"]) == (500, "Error executing add")
    listed = server.curl("management", "/models", key="management").json()["models"]
    assert listed == [{"modelName": "sums__add", "modelUrl": "add-1.0.mar"}]
    [described] = server.curl("management", "/workflows/sums", key="management").json()
    assert described["workflowDag"] == "{prepare=[add], add=[sign, report], sign=[report]}"
    gone = server.curl("management", "/workflows/sums", "-X", "DELETE", key="management")
    assert gone.json() == {"status": 'Workflow "sums" unregistered'}
    assert ask(server, "sums", "1").status == 404
    server.until(lambda: len(server.workers()) <= workers + 1, "the workers of all nodes to end")
    [work_dir] = server.work_dirs()
    assert list(work_dir.glob("workflows/*")) == []


def test_time_limit(server: Server, tmp_path: Path) -> None:
    """A node that takes too long fails the request by its name, long before the worker is done."""
    pack(server, tmp_path, "slow", timeout=500)
    assert register(server, "slow").status == 200
    answer = ask(server, "slow", "sleep 30")
    assert answer.status == 500
    assert answer.json()["message"] == "Error executing add"
    assert answer.json()["reason"].endswith("because there was no answer within 500 ms")


def test_not_started(server: Server, tmp_path: Path) -> None:
    """A function that is not in the handler is named with the reason, and no node stays."""
    before = server.curl("management", "/models", key="management").json()
    pack(server, tmp_path, "broken", functions=FUNCTIONS + "\nraise RuntimeError('broken here')\n")
    answer = register(server, "broken")
    assert (answer.status, answer.json()["type"]) == (500, "WorkflowException")
    assert "Failed to start workers for model broken__prepare version: 1.0" in answer.json()["message"]
    assert "broken here" in answer.json()["reason"]
    assert server.curl("management", "/models/broken__add", key="management").status == 404
    assert server.curl("management", "/models", key="management").json() == before
