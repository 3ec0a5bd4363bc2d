# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted-serve dev``: an author edits a handler that is served."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import COMMAND, LONG, Server

pytestmark = pytest.mark.integration

HANDLER = """
from words import greeting

def handle(data, context):
    if data is None:
        return None
    return [{"said": greeting(), **row["body"]} for row in data]
"""
# It loads for longer than any test waits, and says that it has begun.
SLOW = """
import time
print("loading slowly", flush=True)
time.sleep(600)
"""


def greeting(text: str) -> str:
    return f"def greeting():\n    return {text}\n"


class Author:
    """
    An author's directory, and ``dev`` in it.

    :ivar temp: The temporary directory of the command.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.temp, self.output = place / "project", place / "tmp", place / "output"
        self.place.mkdir()
        self.temp.mkdir()
        self.environ = {**os.environ, "TMPDIR": str(self.temp), "XDG_RUNTIME_DIR": str(self.temp)}
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(COMMAND), "dev", "handler.py", *words],
                cwd=self.place,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def told(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        Server.until(lambda: text in self.told(), f"{text!r} in {self.told()!r}")

    def line(self) -> str:
        """Return the line that asks."""
        [line] = re.findall(r"^  (curl .*)$", self.told(), re.MULTILINE)
        return str(line)

    def curl(self) -> str:
        """Ask with the line as it stands."""
        return subprocess.run(
            self.line() + " -sS --noproxy '*'", shell=True, capture_output=True, text=True, timeout=LONG, check=True
        ).stdout

    def request(self) -> urllib.request.Request:
        """Return the same request for a program."""
        words = shlex.split(self.line())
        headers = dict(word.split(": ", 1) for word in words if ": " in word and not word.startswith("{"))
        return urllib.request.Request(words[1], words[-1].encode(), headers)


@pytest.fixture
def author(tmp_path: Path) -> Iterator[Author]:
    """Make a project that is served, and leave no process of it."""
    author = Author(tmp_path)
    author.write("handler.py", HANDLER)
    author.write("words.py", greeting("'hello'"))
    yield author
    if author.process is not None and author.process.poll() is None:
        for process in psutil.Process(author.process.pid).children(recursive=True):
            process.kill()
        author.process.kill()
        author.process.wait(LONG)


def test_edits(author: Author) -> None:
    """A good edit, a broken one and a mended one, under load without a loss; then Ctrl-C while another loads."""
    process = author.start("--port", "0", "--workers", "2")
    author.wait_for("curl ")
    assert '"said": "hello"' in author.curl()

    failures: list[BaseException] = []
    asked, enough = [0], threading.Event()

    def ask_on() -> None:
        request = author.request()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not enough.is_set():
            try:
                opener.open(request, timeout=LONG).read()
            except OSError as e:
                failures.append(e)
            asked[0] += 1

    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        author.write("words.py", greeting("'good day'"))
        author.wait_for("Version 2 answers.")
        assert '"said": "good day"' in author.curl()
        author.write("words.py", "import nonsense_that_is_not_there\n")
        author.wait_for("Version 2 goes on answering")
        assert f'File "{author.place / "words.py"}", line 1' in author.told()
        assert "ModuleNotFoundError: No module named 'nonsense_that_is_not_there' (words.py, line 1)" in author.told()
        assert '"said": "good day"' in author.curl()
        author.write("words.py", greeting("'mended'"))
        author.wait_for("Version 4 answers.")
        assert '"said": "mended"' in author.curl()
    finally:
        enough.set()
        asking.join(LONG)
    assert failures == []
    assert asked[0] > 10

    author.write("words.py", greeting("1 / 0"))
    author.wait_for("Version 5 answers.")
    assert "ZeroDivisionError: division by zero (words.py, line 2)" in author.curl()

    author.write("words.py", SLOW)
    author.wait_for("loading slowly")
    children = psutil.Process(process.pid).children(recursive=True)
    # As the terminal does: to all processes of the group.
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(LONG) == 0
    assert [child for child in children if Server.alive(child.pid)] == []
    assert [path for path in author.temp.rglob("*") if path.is_file()] == []
    assert not list(author.temp.glob("twisted_serve-*"))
    assert sorted(os.listdir(author.place)) == ["handler.py", "words.py"]
    assert author.told().count("Authorization: Bearer") == 1


def test_refused(author: Author) -> None:
    """A taken port, and a handler that can be none, end at once with one sentence, and leave nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert author.start("--port", str(port)).wait(LONG) == 1
    assert f"Port {port} is taken: --port names another, and --port 0 any free one." in author.told()
    author.write("handler.py", "def handel(data, context): pass")
    assert author.start("--port", "0").wait(LONG) == 1
    assert "did you mean handler.py:handel?" in author.told()
    assert [path for path in author.temp.rglob("*") if path.is_file()] == []
