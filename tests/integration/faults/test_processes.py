# SPDX-License-Identifier: Apache-2.0
"""Tests for workers and servers that are killed, stopped, hang, or end themselves: who is told, and what is left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.faults.world import (
    HANDLER,
    LONG,
    ask,
    begin,
    describe,
    manage,
    nothing_leaks,
    ready,
    receive_answer,
)

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

HANGS = "import time\n\ndef handle(data, context):\n    time.sleep(600)\n"

# A package whose build begins with a mark, and does not end.
ENDLESS = """
import os, subprocess, sys, time

def get_requires_for_build_wheel(config_settings=None):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open({mark!r}, "w").close()
    sleeper.wait()
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "endless"
version = "1"
"""


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with a patient model, and one that waits 3 seconds for an answer."""
    server = make_module_server({"m": HANDLER})
    server.add_model("strict", HANDLER, responseTimeout=3)
    server.add_model("hangs", HANGS, startupTimeout=2)
    server.start("--enable-model-api", "--models", "m=m", "strict=strict")
    server.until(ready(server, 1), "the worker")
    server.until(ready(server, 1, "strict"), "the other worker")
    return server


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Give the name of a file that is not there."""
    return tmp_path / "mark"


def worker_of(server: Server, model: str = "m") -> int:
    """Return the process of a model's only worker."""
    [worker] = describe(server, model)["workers"]
    return int(worker["pid"])


def all_processes(server: Server) -> list[int]:
    """Return all that the server has started, directly or not."""
    return [child.pid for child in psutil.Process(server.pid).children(recursive=True)]


def processes_of(server: Server) -> list[list[str]]:
    """Return the command lines of all processes with the server's environment, reparented ones included."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR", "").startswith(str(server.temp)):
                found.append(process.cmdline())
    return found


def test_killed_idle(server: Server) -> None:
    """A worker that is killed while it has nothing to do is replaced, and no client hears of it."""
    pid = worker_of(server)
    with nothing_leaks(server):
        os.kill(pid, signal.SIGKILL)
        answer = ask(server, "os.getpid()")
        assert answer.status == 200
        assert int(answer.body) != pid
    assert not server.alive(pid)


def test_killed_busy(server: Server, mark: Path) -> None:
    """The request of a worker that is killed is answered by another: its client waits a little longer."""
    pid = worker_of(server)
    with nothing_leaks(server), begin(server, f"once({str(mark)!r})") as client:
        server.until(mark.exists, "the handler", LONG)
        os.kill(pid, signal.SIGKILL)
        status, body = receive_answer(client)
        assert status == 200
        assert int(body) not in (pid, 0)


def test_kills_two(server: Server, mark: Path) -> None:
    """A request that ends two workers as the kernel does when memory runs out gets 507, and is refused for a while."""
    code = f"open({str(mark)!r}, 'a').write('x') and os._exit(137)"
    with nothing_leaks(server):
        answer = ask(server, code)
        assert (answer.status, answer.json()["message"]) == (507, "Worker died.")
        again = ask(server, code)
        assert again.status == 503
        assert again.json()["message"].startswith("This request has killed 2 workers; it is not tried again for ")
        assert 200 < int(again.headers["retry-after"]) <= 300
    assert mark.read_text() == "xx"


@pytest.mark.parametrize("way", ["hangs", "stopped"])
def test_no_answer(server: Server, mark: Path, way: str) -> None:
    """A worker that hangs, or is stopped, is replaced after ``responseTimeout``; its client is told, others wait."""
    pid = worker_of(server, "strict")
    with nothing_leaks(server):
        if way == "stopped":
            os.kill(pid, signal.SIGSTOP)
        with ExitStack() as stack:
            client = stack.enter_context(begin(server, f"once({str(mark)!r})", "strict"))
            # Requests of two connections come in any order if they are sent at the same time.
            time.sleep(0.2)
            other = stack.enter_context(begin(server, "'next'", "strict"))
            status, body = receive_answer(client)
            assert status == 500
            assert b"Worker died." in body
            assert receive_answer(other) == (200, b"next")
        server.until(lambda: not server.alive(pid), "the worker's end", LONG)
        assert worker_of(server, "strict") != pid


def test_stopped_template(server: Server) -> None:
    """A template that is stopped keeps nobody from having a worker for long: it is ended, and another comes."""
    bases = server.bases()
    others = set(server.templates()) - set(bases)
    assert others
    with nothing_leaks(server):
        for template in bases:
            os.kill(template, signal.SIGSTOP)
        for template in others:
            os.kill(template, signal.SIGKILL)
        # Who asks meanwhile is told something.
        with begin(server, "'again'") as client:
            assert receive_answer(client)[0] in (200, 500, 503, 507)
        server.until(ready(server, 1), "another worker", LONG)
        server.until(lambda: not any(map(server.alive, bases)), "the end of those that were stopped", LONG)


def test_hangs_loading(server: Server) -> None:
    """A model whose ``initialize`` hangs is refused after ``startupTimeout``; nothing of it is left."""
    with nothing_leaks(server):
        before = len(server.processes(template=True))
        answer = manage(server, "POST", "/models?url=hangs&initial_workers=1&synchronous=true")
        assert answer.status == 500
        assert "did not load within 2 seconds" in answer.body.decode()
        assert manage(server, "GET", "/models/hangs").status == 404
        server.until(lambda: len(server.processes(template=True)) == before, "its processes' end", LONG)


def test_scaled_down(server: Server, mark: Path) -> None:
    """Workers that are not wanted any more finish what they have."""
    assert manage(server, "PUT", "/models/m?min_worker=2&synchronous=true").status == 200
    marks = [mark.with_name(f"mark-{number}") for number in range(2)]
    clients = [begin(server, f"sleep({str(each)!r}, 2)") for each in marks]
    server.until(lambda: all(each.exists() for each in marks), "both to be busy", LONG)
    assert manage(server, "PUT", "/models/m?min_worker=1&synchronous=true").status == 200
    answers = [receive_answer(client) for client in clients]
    assert [status for status, _ in answers] == [200, 200]
    assert len({body for _, body in answers}) == 2
    assert ready(server, 1)()
    assert [str(server.alive(int(body))) for _, body in answers].count("True") == 1
    for client in clients:
        client.close()


def test_front_killed_while_loading(make_server: MakeServer) -> None:
    """A server that is killed while models load leaves no process."""
    server = make_server({"one": HANGS, "two": HANGS})
    server.start("--models", "one=one", "two=two", wait=False)
    server.until(lambda: len(server.workers()) >= 2, "workers that load", LONG)
    pids = all_processes(server)
    server.stop(signal.SIGKILL)
    server.until(lambda: not any(map(server.alive, pids)), "the end of its processes", LONG)
    assert processes_of(server) == []


def test_front_killed_while_installing(make_server: MakeServer) -> None:
    """A server that is killed while pip builds something for a model leaves no process, pip's children included."""
    server = make_server({"m": HANDLER}, install_py_dep_per_model="true")
    directory, mark = server.store / "m", server.cwd / "mark"
    manifest = directory / "MAR-INF/MANIFEST.json"
    manifest.write_text(manifest.read_text().replace('"handler":', '"requirementsFile": "needs.txt", "handler":'))
    (directory / "needs.txt").write_text("--no-index\n./endless\n")
    (directory / "endless").mkdir()
    (directory / "endless/backend.py").write_text(ENDLESS.format(mark=str(mark)))
    (directory / "endless/pyproject.toml").write_text(PROJECT)
    server.start("--models", "m=m", wait=False)
    server.until(mark.exists, "pip to build", LONG)
    pids = all_processes(server)
    assert len(pids) >= 3
    server.stop(signal.SIGKILL)
    server.until(lambda: not any(map(server.alive, pids)), "the end of its processes", LONG)
    assert processes_of(server) == []
