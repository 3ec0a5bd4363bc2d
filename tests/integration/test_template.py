# SPDX-License-Identifier: Apache-2.0
"""Tests for workers that are forked from templates, in real servers: what is shared, and what dies with what."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

MEGABYTE = 1 << 20

# Answers with what it is, and does as it is told.
HANDLER = """
import os, random, signal, time

class Handler:
    def initialize(self, context):
        SETUP
        self.loader = os.getpid()
        print("loaded in", self.loader)
        self.weights = bytearray(b"x") * WEIGHTS

    def handle(self, data, context):
        print("asked")
        if bytes(data[0]["body"]) == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(bytes(data[0]["body"]) or 0))
        return [f"{self.loader} {os.getpid()} {random.random()} {os.environ['OMP_NUM_THREADS']} {self.weights[-1]}"]
"""


def handler(setup: str = "pass", weights: int = 1) -> str:
    """Write a handler whose ``initialize`` begins with ``setup``."""
    return HANDLER.replace("SETUP", setup).replace("WEIGHTS", str(weights))


def workers_of(server: Server, model: str = "m") -> list[dict[str, Any]]:
    """Describe a model's workers."""
    [described] = server.curl("management", f"/models/{model}", key="management").json()
    workers: list[dict[str, Any]] = described["workers"]
    return workers


def ready(server: Server, count: int) -> Callable[[], bool]:
    """Say whether ``count`` workers are ready, and no other is there."""

    def condition() -> bool:
        workers = workers_of(server)
        return [each["status"] for each in workers] == ["READY"] * count

    return condition


def scale(server: Server, count: int, status: int = 200) -> None:
    """Have ``count`` workers."""
    path = f"/models/m?min_worker={count}&max_worker={count}&synchronous=true"
    answer = server.curl("management", path, "-X", "PUT", key="management")
    assert answer.status == status, answer


def answers(server: Server, count: int = 8) -> list[list[str]]:
    """Ask at once, so that all workers answer."""
    with ThreadPoolExecutor(count) as pool:
        done = list(pool.map(lambda _: server.predict("m", b"0.3"), range(count)))
    assert [answer.status for answer in done] == [200] * count
    return [answer.body.decode().split() for answer in done]


def share_of_memory(server: Server) -> int:
    """Add up the memory of everything that the server started, shared pages once."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in [*server.workers(), *server.templates()])


def test_shared(make_server: MakeServer) -> None:
    """Workers of a model that loaded once share what it loaded, and nothing else."""
    server = make_server({"m": handler(weights=100 * MEGABYTE)}).start("--models", "m=m")
    server.until(ready(server, 1), "the worker")
    server.until(lambda: workers_of(server)[0]["sharesWeights"], "the template")
    before = share_of_memory(server)
    scale(server, 4)
    assert share_of_memory(server) - before < 3 * 10 * MEGABYTE
    workers = workers_of(server)
    assert [each["sharesWeights"] for each in workers] == [True] * 4
    assert {each["pid"] for each in workers} == set(server.workers())
    assert all(0 < each["memoryUsage"] < 100 * MEGABYTE for each in workers)
    said = answers(server)
    loaders, pids, chances = ({each[at] for each in said} for at in range(3))
    assert len(loaders) == 1
    assert pids <= set(map(str, server.workers()))
    assert len(pids) > 1
    assert len(chances) == len(said)
    assert not loaders & pids
    assert {psutil.Process(int(pid)).name() for pid in pids} <= {f"ts-W-900{number}" for number in range(4)}
    assert server.stop() == 0
    # Each line under the name of the worker that printed it; the model was loaded in the name of the first.
    lines = server.log().splitlines()
    assert ["W-9000-m_1.0-stdout" in line for line in lines if "loaded in" in line] == [True]
    printed = {word for line in lines if line.endswith("asked") for word in line.split() if word.startswith("W-900")}
    assert len(printed) == len(pids)
    server.assert_clean()


def test_replaced(make_server: MakeServer) -> None:
    """A worker that is killed is replaced by another fork: nothing is loaded again."""
    server = make_server({"m": handler()}).start("--models", "m=m")
    server.until(ready(server, 1), "the worker")
    server.until(lambda: workers_of(server)[0]["sharesWeights"], "the template")
    [before] = server.workers()
    assert server.predict("m", b"kill").status == 507
    server.until(lambda: ready(server, 1)() and server.workers() != [before], "another worker")
    assert answers(server, 1)[0][1] != str(before)
    assert server.log().count("loaded in") == 1
    assert not server.alive(before)
    assert [pid for pid in server.processes(template=True) if not server.alive(pid)] == []


@pytest.mark.parametrize("which", ["base", "model"])
def test_template_killed(make_server: MakeServer, which: str) -> None:
    """When a template is killed its workers die with it, their requests are answered, and all comes back."""
    server = make_server({"m": handler()}, default_workers_per_model=2).start("--models", "m=m")
    server.until(ready(server, 2), "the workers")
    server.until(lambda: workers_of(server)[0]["sharesWeights"], "the template")
    before = server.workers()
    bases = server.bases()
    [victim] = bases if which == "base" else [pid for pid in server.templates() if pid not in bases]
    os.kill(victim, signal.SIGKILL)
    server.until(lambda: not any(map(server.alive, [victim, *before])), "them to be gone")
    status = server.predict("m", b"0").status
    assert status in (200, 500, 503, 507)
    server.until(ready(server, 2), "other workers")
    assert len(answers(server)) == 8
    assert not set(before) & set(server.workers())
    assert "has ended" in server.log()


def test_killed_server(make_server: MakeServer) -> None:
    """A server that is killed leaves nothing behind, busy or not."""
    server = make_server({"m": handler()}, default_workers_per_model=2).start("--models", "m=m")
    server.until(ready(server, 2), "the workers")
    with server.connect() as connection:
        connection.sendall(server.head("POST", "/predictions/m", "Content-Length: 4") + b"1000")
        server.until(lambda: "asked" in server.log(), "the handler")
        pids = [*server.workers(), *server.templates()]
        assert len(pids) == 4
        server.stop(signal.SIGKILL)
    server.until(lambda: not any(map(server.alive, pids)), "all processes to be gone")


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        (
            "import threading; threading.Thread(target=time.sleep, args=(1e6,), daemon=True, name='idler').start()",
            "idler",
        ),
        ("import socket; self.pair = socket.socketpair()", "it holds socket open"),
        ("self.file = open(__file__)", "it holds handler.py open"),
        ("import subprocess; self.child = subprocess.Popen(['sleep', '1000'])", "it started a process"),
    ],
)
def test_unsafe(make_server: MakeServer, setup: str, reason: str) -> None:
    """What cannot be forked is loaded by each worker, and the log says why."""
    server = make_server({"m": handler(setup)}, default_workers_per_model=2).start("--models", "m=m")
    server.until(ready(server, 2), "the workers")
    assert "loads for itself" in server.log()
    assert reason in server.log()
    assert [each["sharesWeights"] for each in workers_of(server)] == [False, False]
    server.until(lambda: server.log().count("loaded in") == 2, "what they print")
    assert {each[0] for each in answers(server)} == {each[1] for each in answers(server)}
    scale(server, 3)
    assert server.stop() == 0


def test_unwanted(make_server: MakeServer) -> None:
    """An archive can say that its workers share nothing; a server that none are forked."""
    server = make_server()
    server.add_model("m", handler(), shareWeights=False)
    server.configure(default_workers_per_model=2)
    server.start("--models", "m=m")
    server.until(ready(server, 2), "the workers")
    assert server.log().count("loaded in") == 2
    server.stop()
    server.configure(default_workers_per_model=2, worker_start="spawn")
    server.start("--models", "m=m")
    server.until(ready(server, 2), "the workers")
    assert server.templates() == []
    assert server.stop() == 0


def test_threads(make_server: MakeServer) -> None:
    """Workers of a model divide the processors, unless the operator has decided."""
    server = make_server({"m": handler()}, default_workers_per_model=2)
    server.start("--models", "m=m")
    server.until(ready(server, 2), "the workers")
    assert answers(server, 1)[0][3] == str(max(1, len(os.sched_getaffinity(0)) // 2))
    server.stop()
    server.environ["OMP_NUM_THREADS"] = "3"
    server.start("--models", "m=m")
    server.until(ready(server, 2), "the workers")
    assert answers(server, 1)[0][3] == "3"


def test_cannot_load(make_server: MakeServer) -> None:
    """One failure to load is the reason for all workers; they are as dead as they ever were."""
    server = make_server({"m": handler("raise ValueError('no weights')")}, default_workers_per_model=3)
    server.start("--models", "m=m")
    server.until(lambda: "ValueError: no weights" in server.log(), "the reason")
    server.until(lambda: all(each["pid"] == -1 for each in workers_of(server)), "them to be gone")
    scale(server, 3, status=500)


def test_dies_loading(make_server: MakeServer) -> None:
    """A worker that is killed while it loads is the reason, too."""
    server = make_server({"m": handler("os.kill(os.getpid(), signal.SIGKILL)")}, default_workers_per_model=2)
    server.start("--models", "m=m")
    server.until(lambda: "it was ended by SIGKILL" in server.log(), "the reason")
    scale(server, 2, status=507)


def test_too_slow(make_server: MakeServer) -> None:
    """A worker that does not load in time is ended, and who waited for it is told so."""
    server = make_server()
    server.add_model("m", handler("time.sleep(1000)"), startupTimeout=1)
    server.configure(default_workers_per_model=2)
    server.start("--models", "m=m")
    server.until(lambda: "did not load within 1 seconds" in server.log(), "the reason")
    assert server.stop() == 0
    server.assert_clean()


def test_unregistered(make_server: MakeServer) -> None:
    """The template of a model goes with the model; one of the same name that comes later is another."""
    server = make_server(enable_model_api="true")
    for version in ("1.0", "2.0"):
        archive = server.add_archive("m", handler(f"print({version})"), "1.0")
        path = f"/models?url={archive}&initial_workers=1&synchronous=true"
        if version == "1.0":
            server.start()
        assert server.curl("management", path, "-X", "POST", key="management").status == 200
        server.until(lambda: workers_of(server)[0]["sharesWeights"], "the template")
        assert len(server.templates()) == 2
        assert server.curl("management", "/models/m", "-X", "DELETE", key="management").status == 200
        server.until(lambda: len(server.templates()) == 1, "the template to go")
        assert server.workers() == []
    assert "2.0" in server.log()
    assert server.log().count("loaded in") == 2


def test_no_template(make_server: MakeServer) -> None:
    """A template that cannot start costs a line in the log; workers start without it."""
    server = make_server({"m": handler()})
    # What the template imports, and a worker by itself does not.
    (server.cwd / "broken").mkdir()
    (server.cwd / "broken" / "sitecustomize.py").write_text(
        "import sys\nif 'backend.template.root' in ' '.join(sys.orig_argv):\n    sys.exit('no template today')\n"
    )
    server.environ["PYTHONPATH"] = str(server.cwd / "broken")
    server.start("--models", "m=m")
    server.until(ready(server, 1), "the worker")
    assert server.templates() == []
    assert server.log().count("The template of workers could not start") == 1
    assert "no template today" in server.log()
    assert server.predict("m", b"0").status == 200
    assert server.stop() == 0
