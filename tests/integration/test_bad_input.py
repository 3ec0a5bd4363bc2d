# SPDX-License-Identifier: Apache-2.0
"""Tests for archives and handlers that are wrong in any way, in one server: who is told, and who does not notice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.integration.bad_cases import BadArchive, BadCall, BadHandler
from tests.integration.bad_input import CASES, ECHO, MODULE

if TYPE_CHECKING:
    from tests.integration.answer import Answer
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# What the server's memory may grow by, whatever a handler does.
MOST_GROWTH = 50_000_000


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with models that do what they are told, and a neighbour."""
    server = make_module_server({"alive": ECHO}, enable_model_api="true", max_response_size=2_000_000)
    for name, seconds in (("victim", 30), ("hasty", 2)):
        server.add_model(name, MODULE, retryOnWorkerDeath=False, responseTimeout=seconds)
    return server.start("--models", "alive=alive", "victim=victim", "hasty=hasty")


def manage(server: Server, method: str, path: str) -> Answer:
    """Ask the management API."""
    return server.curl("management", path, "-X", method, key="management")


def register(server: Server, name: str, data: bytes) -> Answer:
    """Register an archive and wait for its worker."""
    (server.store / name).write_bytes(data)
    answer = manage(server, "POST", f"/models?url={name}&initial_workers=1&synchronous=true")
    (server.store / name).unlink()
    return answer


def well(server: Server, name: str) -> bool:
    """Say whether describe knows of a worker that is ready, and whose process is there."""
    [shown] = manage(server, "GET", f"/models/{name}").json()
    return any(each["status"] == "READY" and server.alive(each["pid"]) for each in shown["workers"])


def assert_undisturbed(server: Server) -> None:
    """See that the neighbour answers, and that the server counts as healthy."""
    began = time.monotonic()
    assert server.predict("alive").body == b"alive"
    assert time.monotonic() - began < 5
    assert server.curl("inference", "/ping", key="inference").json() == {"status": "Healthy"}


def assert_told(server: Server, case: BadArchive | BadHandler | BadCall, answer: Answer, log_begins: int) -> None:
    """See that status and reason are where they should be."""
    assert answer.status == case.status
    told = answer.json()
    assert told["code"] == case.status
    assert case.says in told["message"] + told.get("reason", "")
    # A message is no place for a dump.
    assert len(answer.body) < 100_000
    server.until(lambda: case.logged in server.log()[log_begins:], "the reason in the log")


@pytest.mark.parametrize(
    "case", [each for each in CASES if not isinstance(each, BadCall)], ids=lambda case: str(case.name)
)
def test_registration(server: Server, case: BadArchive | BadHandler) -> None:
    """What cannot be served is refused with the reason, and nothing of it stays."""
    front = psutil.Process(server.pid)
    [work_dir] = server.work_dirs()
    files, workers, memory = sorted(work_dir.glob("*/*")), set(server.workers()), front.memory_info().rss
    log_begins = len(server.log())
    answer = register(server, f"{case.name}{case.suffix}", case.data)
    assert_told(server, case, answer, log_begins)
    assert_undisturbed(server)
    assert manage(server, "GET", "/models/bad").status == 404
    assert sorted(work_dir.glob("*/*")) == files
    server.until(lambda: set(server.workers()) <= workers, "its worker to end")
    assert front.memory_info().rss - memory < MOST_GROWTH


@pytest.mark.parametrize("case", [each for each in CASES if isinstance(each, BadCall)], ids=lambda case: str(case.name))
def test_call(server: Server, case: BadCall) -> None:
    """What a handler does wrong concerns its client only; the next one is answered, if need be by another worker."""
    front = psutil.Process(server.pid)
    memory, log_begins = front.memory_info().rss, len(server.log())
    answer = server.predict(case.model, case.code.encode())
    assert_told(server, case, answer, log_begins)
    assert_undisturbed(server)
    if case.spoils:
        server.predict(case.model, b"os._exit(0)")
    assert server.predict(case.model, b"results = ['well']").body == b"well"
    assert well(server, case.model)
    assert front.memory_info().rss - memory < MOST_GROWTH


def test_others_meanwhile(server: Server) -> None:
    """While a handler prints without an end, others are answered, and nothing fills the server's memory."""
    front = psutil.Process(server.pid)
    memory, log_begins = front.memory_info().rss, len(server.log())
    code = b"while True: print('meanwhile ' * 50)"
    with server.connect() as client:
        client.sendall(server.head("POST", "/predictions/hasty", f"Content-Length: {len(code)}") + code)
        server.until(lambda: "meanwhile" in server.log()[log_begins:], "it to print")
        for _ in range(10):
            assert_undisturbed(server)
        assert b"500" in client.recv(100).splitlines()[0]
    assert front.memory_info().rss - memory < MOST_GROWTH
    server.until(lambda: well(server, "hasty"), "the next worker")


def test_what_cannot_be_shown(server: Server) -> None:
    """What is no text, or would forge a line or command a terminal, is in the log as what can be shown."""
    log_begins = len(server.log())
    code = rb"""
sys.stdout.buffer.write(b"bytes: \xff\xfe.\n")
print("half a pair: \ud800.")
print("red: \x1b[31m bell: \x07 line: \r\u2028.")
sys.stderr.write("no end of line")
results = ["shown"]
"""
    assert server.predict("victim", code).body == b"shown"
    assert server.predict("victim", b"print(file=sys.stderr); results = ['well']").body == b"well"
    for text in (
        "bytes: \ufffd\ufffd.",
        r"half a pair: \ud800.",
        r"red: \x1b[31m bell: \x07 line: \r\u2028.",
        "no end of line",
    ):
        server.until(lambda text=text: text in server.log()[log_begins:], text)  # type: ignore[misc]


def test_left_behind(server: Server) -> None:
    """Neither threads that never end, nor a deaf ear for SIGTERM, nor a child keep a model that is to go."""
    case = BadHandler("stays", "", 200, "", source=ECHO + STAYS)
    assert register(server, "stays.mar", case.data).status == 200
    pid, child = map(int, server.predict("bad").body.split())
    assert manage(server, "DELETE", "/models/bad").status == 200
    assert not server.alive(pid)
    server.until(lambda: not server.alive(child), "the handler's child to end with its worker")
    assert_undisturbed(server)


STAYS = """
import os, signal, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = None

def handle(data, context):
    global child
    if data is None:
        return None
    if child is None:
        child = os.fork()
        if not child:
            time.sleep(3600)
        threading.Thread(target=time.sleep, args=(3600,)).start()
    return [f"{os.getpid()} {child}"]
"""


def test_directory_gone(server: Server) -> None:
    """A handler that removes its model's directory fails its next worker, and everybody can see why."""
    case = BadHandler("removes", "", 200, "", source=REMOVES, config={"shareWeights": False})
    assert register(server, "removes.mar", case.data).status == 200
    assert server.predict("bad").body == b"/"
    log_begins = len(server.log())
    assert server.predict("bad", b"leave").json()["message"] == "Worker died."
    shown: list[Any] = []

    def failing() -> bool:
        shown[:] = manage(server, "GET", "/models/bad").json()
        return "FileNotFoundError" in shown[0]["workers"][0].get("reason", "")

    server.until(failing, "describe to tell why")
    assert "FileNotFoundError" in server.log()[log_begins:]
    assert shown[0]["workers"][0]["status"] != "READY"
    server.until(lambda: server.predict("bad").status == 503, "requests to be refused")
    assert "FileNotFoundError" in server.predict("bad").json()["reason"]
    assert server.predict("alive").body == b"alive"
    assert manage(server, "DELETE", "/models/bad").status == 200
    assert_undisturbed(server)


REMOVES = """
import os, shutil

def handle(data, context):
    if data is None:
        return None
    if data[0]["body"]:
        os._exit(1)
    shutil.rmtree(context.system_properties["model_dir"])
    os.chdir("/")
    return [os.getcwd()]
"""
