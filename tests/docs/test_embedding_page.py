# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/embedding.md``: its program, run with real workers, and its other code, run in memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_ports

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks

PAGE = "embedding.md"
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
PROGRAM = EXAMPLES / "embedding.py"

# Begins the program as the page says, on a reactor that is not the default one.
ON_REACTOR = """
import runpy, sys
from twisted.internet import {reactor}reactor
{reactor}reactor.install()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def fetch(request: str | urllib.request.Request) -> str:
    """Return the body of an answer; "" while there is none."""
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            body: bytes = response.read()
            return body.decode()
    except urllib.error.URLError as e:
        if isinstance(e.reason, ConnectionRefusedError):
            return ""
        raise


def is_program(text: str) -> bool:
    """Return whether a block is a whole file of docs/examples, to the letter."""
    return any(text == path.read_text() for path in EXAMPLES.glob("*.py"))


def test_programs_are_the_page_s(read_blocks: ReadBlocks) -> None:
    """Blocks that are files of ours are those files, to the letter."""
    blocks = [block.text for block in read_blocks(PAGE, "python")]
    assert blocks[0] == PROGRAM.read_text()
    for block in blocks:
        assert is_program(block) == block.startswith("# SPDX-License-Identifier: ")


@pytest.mark.integration
@pytest.mark.parametrize("reactor", ["", "asyncio", "poll", "select"])
def test_program(model_store: Path, reactor: str) -> None:
    """Both services of the program answer, with a real worker behind; Ctrl-C ends them and leaves nothing."""
    [port] = free_ports(1)
    start = [str(PROGRAM)] if not reactor else ["-c", ON_REACTOR.format(reactor=reactor), str(PROGRAM)]
    command = [sys.executable, *start, str(model_store), str(port)]
    environ = {**os.environ, "TMPDIR": str(model_store.parent)}
    here = model_store.parent
    with (here / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=here, env=environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        page = ""
        deadline = time.monotonic() + 60
        while not page.startswith("Ask the models at ") and time.monotonic() < deadline:
            assert process.poll() is None, (here / "log").read_text()
            page = fetch(f"http://127.0.0.1:{port}/")
            time.sleep(0.05)
        key = json.loads((here / "key_file.json").read_text())["inference"]["key"]
        answer = fetch(
            urllib.request.Request(
                f"{page.split()[-1]}/predictions/greet",
                data=b"Ada",
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/octet-stream"},
            )
        )
        assert answer == "Hello, Ada"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    text = (here / "log").read_text()
    assert "Traceback" not in text
    assert key not in text
    assert sorted(path.name for path in here.iterdir()) == ["log", "model_store"]


@pytest.mark.integration
def test_mounted(tmp_path: Path) -> None:
    """The application asks its own handler in a worker process, and clients with a key reach it below ``/ml/``."""
    [port] = free_ports(1)
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(EXAMPLES / "mounted.py"), str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while (tmp_path / "log").read_text() != "serving\n" and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        base = f"http://127.0.0.1:{port}"
        assert fetch(f"{base}/greet/Ada") == "Hello, Ada!"
        key = json.loads((tmp_path / "key_file.json").read_text())["inference"]["key"]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "text/plain"}
        assert fetch(urllib.request.Request(f"{base}/ml/predictions/greeter", b"Bob", headers)) == "Hello, Bob!"
        with pytest.raises(urllib.error.HTTPError, match="400"):
            fetch(urllib.request.Request(f"{base}/ml/predictions/greeter", b"Bob"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "log").read_text() == "serving\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.integration
def test_with_fastapi(tmp_path: Path) -> None:
    """The application asks the model, the model server asks the application, and Ctrl-C ends both."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    port, model_port = free_ports(2)
    command = [sys.executable, str(EXAMPLES / "with_fastapi.py"), str(port), str(model_port)]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        page = ""
        deadline = time.monotonic() + 60
        while not page and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()
            page = fetch(f"http://127.0.0.1:{port}/greet/Ada")
            time.sleep(0.05)
        assert page == '"Hello, Ada!"'
        url = f"http://127.0.0.1:{model_port}/predictions/greeter"
        # A name that was greeted is a member.
        headers = {"Authorization": "Member Ada", "Content-Type": "text/plain"}
        assert fetch(urllib.request.Request(url, b"Bob", headers)) == "Hello, Bob!"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            fetch(urllib.request.Request(url, b"Bob", {**headers, "Authorization": "Member Eve"}))
        # A second one, whose page has no port, ends by itself, its model server first.
        [free] = free_ports(1)
        second = [*command[:-1], str(free)]
        here = tmp_path / "second"
        here.mkdir()
        done = subprocess.run(second, cwd=here, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "address already in use" in done.stderr
        assert list(here.iterdir()) == []
        here.rmdir()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "log").read_text() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


# Goes on where the page's blocks end: tells what is there, and stops.
TELL = """
from twisted_serve import Role

def tell(result):
    from pathlib import Path
    assert models.addresses[Role.INFERENCE].port
    print(sorted(path.name for path in Path().glob("*.json")))
    return result

models.ready.addCallback(tell).addBoth(lambda _: reactor.stop())
reactor.addSystemEventTrigger("before", "shutdown", models.stopService)
reactor.addSystemEventTrigger("before", "shutdown", application.stopService)
reactor.run()
"""


@pytest.mark.integration
def test_other_code(read_blocks: ReadBlocks, model_store: Path) -> None:
    """The page's other blocks run one after the other: three servers in one process, with a key file each."""
    found = [block for block in read_blocks(PAGE, "python") if not is_program(block.text)]
    blocks = [block.text for block in found if block.excuse is None]
    assert len(blocks) == 2
    program = "\n".join(["from twisted.internet import reactor", *blocks, TELL])
    anywhere = "".join(f', {role}_address="http://127.0.0.1:0"' for role in ("inference", "management", "metrics"))
    program = program.replace('load_models="greet=greet"', f'load_models="greet=greet"{anywhere}')
    for shown, free in zip(("9080", "9180"), free_ports(2), strict=True):
        assert shown in program
        program = program.replace(shown, str(free))
    here = model_store.parent
    environ = {**os.environ, "TMPDIR": str(here)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=here, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, files = done.stdout.splitlines()
    assert said.startswith("ready; requests need the key ")
    assert files == "['blue_keys.json', 'green_keys.json', 'key_file.json']"
    assert [path.name for path in here.iterdir()] == ["model_store"]
