# SPDX-License-Identifier: Apache-2.0
"""Tests for what a model's code can do to the server: as the same user, and as another one (``worker_user``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Tries to do harm to the process whose number it gets, and to read a file.
PRYING = """
import ctypes, json, os, signal

def attempt(what):
    try:
        what()
    except OSError as e:
        return e.strerror
    return "done"

def handle(data, context):
    if data is None:
        return None
    front, key_file = bytes(data[0]["body"]).decode().split()
    here = os.path.dirname(__file__)
    return [json.dumps({
        "memory": attempt(lambda: open(f"/proc/{front}/mem", "rb")),
        "environment": attempt(lambda: open(f"/proc/{front}/environ", "rb").read()),
        "descriptors": attempt(lambda: os.listdir(f"/proc/{front}/fd")),
        "signal": attempt(lambda: os.kill(int(front), 0)),
        "keys": attempt(lambda: open(key_file).read()),
        "model": attempt(lambda: open(os.path.join(here, "new"), "w")),
        "beside": attempt(lambda: os.listdir(os.path.dirname(here))),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "user": [os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")],
    })]
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Make a directory that every user can come to."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


def pry(server: Server) -> dict[str, Any]:
    """Have the model try."""
    answer = server.predict("prying", f"{server.pid} {server.key_file}".encode())
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def can_run() -> bool:
    """Return whether another user can run this interpreter."""
    try:
        return subprocess.run([sys.executable, "-c", ""], user="nobody", group="nogroup", check=False).returncode == 0
    except (OSError, LookupError):
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_other_user(make_server: MakeServer, temporary: Path, how: str) -> None:
    """A model's code that runs as another user reads neither keys nor the server, and changes no model."""
    if not can_run():
        pytest.skip("another user cannot run this interpreter")
    server = make_server(worker_user="nobody", worker_start=how, temp_directory=temporary)
    archive = server.add_archive("prying", PRYING)
    server.start("--models", f"prying={archive}")
    found = pry(server)
    refused = ("memory", "environment", "descriptors", "signal", "keys", "model", "beside")
    assert {each: found[each] for each in refused} == {
        each: "Operation not permitted" if each == "signal" else "Permission denied" for each in refused
    }
    uid, gid, groups = found["ids"]
    assert 0 not in [*uid, *gid, *groups]
    assert found["user"][1:] == ["nobody", "nobody"]
    workers = server.workers()
    assert server.stop() == 0
    assert not any(map(server.alive, workers))
    assert list(temporary.iterdir()) == []
    server.assert_clean()


@pytest.mark.parametrize("user", ["no-such-user", "root", "nobody:no-such-group", "0", "99999999999"])
def test_wrong_user(make_server: MakeServer, user: str) -> None:
    """A user that is none, or that cannot be become, keeps the server from starting, with a line that says so."""
    server = make_server(worker_user=user)
    assert server.start_in_background() == 1
    last = server.log().splitlines()[-1]
    assert last.startswith(f"Invalid configuration: worker_user is '{user}': ")
    server.assert_clean()


def test_protected() -> None:
    """The command closes its memory to other processes before it serves."""
    code = """
import ctypes
from twisted_serve.command import serving
serving.run_server = lambda *_, **__: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
print(serving.serve(None, None, None))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40, check=True)
    assert said.stdout == "0\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_same_user(make_server: MakeServer) -> None:
    """A server's memory, environment and descriptors are closed to other processes of its user, as models' are."""
    server = make_server({"prying": PRYING}).start("--models", "prying=prying")
    found = pry(server)
    assert [found[each] for each in ("memory", "environment", "descriptors")] == ["Permission denied"] * 3
    assert server.stop() == 0
