# SPDX-License-Identifier: Apache-2.0
"""Tests for handlers in real workers: what they may be, what they may do, and what their clients see of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Does what the body says, which is Python.
MODULE = """
import os, sys, time
from ts.handler_utils.utils import send_intermediate_predict_response as send
from ts.utils.util import PredictionException

def handle(data, context):
    if data is None:
        return None
    names = {**globals(), "context": context}
    return [eval(bytes(row["body"]), names) for row in data]

def raise_(error):
    raise error

def flood(size):
    line = "f" * 999 + "\\n"
    for _ in range(size // 1000):
        sys.stdout.write(line)
    sys.stdout.flush()
    return "flooded"

def until(path):
    while not os.path.exists(path):
        time.sleep(0.02)
    return "done"

def begin_until(path):
    open(path + ".begun", "w").close()
    return until(path)

def stream(context, count, path):
    for i in range(count):
        send([f"chunk {i};"], context.request_ids, "", 200, context)
        until(f"{path}{i}")
    return "last"

def until_cancelled(context, path):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        send(["more"], context.request_ids, "", 200, context)
        if context.is_cancelled(0):
            with open(path, "w") as file:
                file.write("cancelled")
            return "cancelled"
        time.sleep(0.05)
    return "never"
"""

CLASS = """
class Counter:
    def __init__(self):
        self.count = 0

    def initialize(self, context):
        self.name = context.manifest["model"]["modelName"]
        self.start = context.model_yaml_config["start"]

    def handle(self, data, context):
        self.count += 1
        context.set_response_content_type(0, "application/vnd.count+json")
        context.set_response_header(0, "x-model", self.name)
        context.set_response_status(203, "Counted", 0)
        return [{"count": self.start + self.count} for _ in data]
"""

JSON = """
def handle(data, context):
    return data and [{"type": type(row["body"]).__name__, "sum": sum(row["body"]["numbers"])} for row in data]
"""

TORCH = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Doubler(BaseHandler):
    def preprocess(self, data):
        return torch.tensor([row["body"] for row in data])
"""

BROKEN = "def handle(data, context)\n    return data\n"


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server whose models can come and go."""
    server = make_module_server({"module": MODULE, "json": JSON}, max_response_size=30_000_000)
    server.add_model("class", CLASS, start=41)
    return server.start("--enable-model-api", "--models", "module=module", "class=class", "json=json")


def run(server: Server, code: str) -> Any:
    """Have the first model's handler evaluate ``code``."""
    return server.predict("module", code.encode())


def manage(server: Server, method: str, path: str) -> Any:
    """Ask the management API."""
    return server.curl("management", path, "-X", method, key="management")


def test_module_function(server: Server) -> None:
    """A function of a module answers, in the model's directory, in a process of its own."""
    answer = run(server, "f'{os.getpid()} {os.getcwd()}'")
    pid, cwd = answer.body.decode().split()
    assert int(pid) in server.workers()
    assert Path(cwd) == server.store / "module"
    assert "content-type" not in answer.headers


def test_class(server: Server) -> None:
    """A class is initialized once, keeps its state, and sets status and headers of its answers."""
    for count in (42, 43):
        answer = server.predict("class")
        assert answer.json() == {"count": count}
        assert answer.status == 203
        assert answer.headers["content-type"] == "application/vnd.count+json"
        assert answer.headers["x-model"] == "class"


def test_json(server: Server) -> None:
    """A JSON body comes to the handler as what it means; one that is no JSON is the client's mistake."""
    options = ["-H", "Content-Type: application/json", "-d", '{"numbers": [1, 2, 3.5]}']
    answer = server.curl("inference", "/predictions/json", *options, key="inference")
    assert answer.json() == {"type": "dict", "sum": 6.5}
    wrong = server.curl("inference", "/predictions/json", *options[:2], "-d", "{", key="inference")
    assert 400 <= wrong.status < 600
    assert wrong.json()["code"] == wrong.status


def test_form(server: Server) -> None:
    """A multipart form's file comes to the handler by its name."""
    file = server.cwd / "code.py"
    file.write_text("6 * 7")
    assert server.curl("inference", "/predictions/module", "-F", f"body=@{file}", key="inference").body == b"42"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_base_handler(make_server: MakeServer) -> None:
    """A subclass of ``BaseHandler`` serves the TorchScript model which its archive names."""
    torch = pytest.importorskip("torch")

    class Double(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return 2 * x

    server = make_server()
    server.add_model("doubler", TORCH)
    model = server.store / "doubler"
    manifest = (model / "MAR-INF/MANIFEST.json").read_text()
    (model / "MAR-INF/MANIFEST.json").write_text(
        manifest.replace('"handler"', '"serializedFile": "model.pt", "handler"', 1)
    )
    torch.jit.trace(Double(), torch.zeros(2)).save(str(model / "model.pt"))
    server.start("--models", "doubler=doubler")
    options = ["-H", "Content-Type: application/json", "-d", "[1.5, -2]"]
    answer = server.curl("inference", "/predictions/doubler", *options, key="inference")
    assert answer.json() == [3.0, -4.0]


def test_prediction_exception(server: Server) -> None:
    """A handler chooses the status and the text of its refusal."""
    answer = run(server, "raise_(PredictionException('no cat in it', 513))")
    assert answer.status == 513
    assert answer.json()["code"] == 513
    assert answer.json()["message"] == "no cat in it"


def test_exception(server: Server) -> None:
    """An exception of a handler is an answer with its place, its traceback is for the log, and the worker lives on."""
    pid = run(server, "os.getpid()").body
    answer = run(server, "1 // 0")
    assert answer.status == 503
    assert answer.json()["message"] == "Prediction failed"
    # The client is on the server's machine (``prediction_error_detail``).
    assert answer.json()["reason"].startswith(
        "ZeroDivisionError: integer division or modulo by zero (handler.py, line "
    )
    assert b"Traceback" not in answer.body
    server.until(lambda: "Traceback" in server.log(), "the traceback")
    assert run(server, "os.getpid()").body == pid


def test_syntax_error(server: Server) -> None:
    """A model whose handler is no Python cannot be registered, is told why, and leaves nothing."""
    archive = server.add_archive("broken", BROKEN)
    workers, models = server.workers(), set(server.temp.glob("twisted_serve-*/models/*"))
    answer = manage(server, "POST", f"/models?url={archive}&initial_workers=1&synchronous=true")
    assert answer.status == 500
    assert answer.json()["message"] == "Failed to start workers for model broken version: 1.0"
    assert "SyntaxError" in answer.body.decode()
    assert "handler.py, line 1" in answer.body.decode()
    assert str(server.temp) not in answer.body.decode()
    assert manage(server, "GET", "/models/broken").status == 404
    assert server.predict("broken").status == 404
    assert server.workers() == workers
    assert set(server.temp.glob("twisted_serve-*/models/*")) == models
    # What is repaired can be registered.
    server.add_archive("broken", CLASS.replace('context.model_yaml_config["start"]', "0"))
    assert manage(server, "POST", f"/models?url={archive}&initial_workers=1&synchronous=true").status == 200
    assert server.predict("broken").json() == {"count": 1}
    assert manage(server, "DELETE", "/models/broken").status == 200


def test_worker_exits(server: Server) -> None:
    """A handler that ends its process costs its client the answer, and nobody else: another worker comes."""
    pid = int(run(server, "os.getpid()").body)
    answer = run(server, "os._exit(3)")
    assert answer.status == 500
    assert answer.json()["message"] == "Worker died."
    # This one waits for the next worker.
    assert int(run(server, "os.getpid()").body) != pid
    assert not server.alive(pid)


def test_flood(server: Server) -> None:
    """A handler that prints 50 MB blocks neither itself nor the server, and fills no memory."""
    front = psutil.Process(server.pid)
    before = front.memory_info().rss
    answer = run(server, "flood(50_000_000)")
    assert answer.body == b"flooded"
    server.until(lambda: server.log().count("f" * 999) == 50_000, "all lines in the log")
    assert front.memory_info().rss - before < 30_000_000


def test_endless_line(server: Server) -> None:
    """A line without an end is cut."""
    assert run(server, "sys.stdout.write('g' * 5_000_000 + '\\n')").body == b"5000001"
    server.until(lambda: "g [cut]\n" in server.log(), "the line")
    assert server.log().count("g") < 100_000


def test_stream(server: Server, tmp_path: Path) -> None:
    """Each chunk of a streamed answer comes when it was sent, and the handler's return value is the last."""
    go = tmp_path / "go"
    code = f"stream(context, 4, {str(go)!r})".encode()
    parts = (b"chunk 0;", b"chunk 1;", b"chunk 2;", b"chunk 3;", b"last")
    with server.connect() as client:
        client.sendall(server.head("POST", "/predictions/module", f"Content-Length: {len(code)}") + code)
        received = b""
        for number, part in enumerate(parts):
            # The handler sends the next one when this one has come.
            received = server.read_until(client, part, received)
            go.with_name(f"go{number}").touch()
        received = server.read_until(client, b"0\r\n\r\n", received)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding: chunked" in head.lower()
    assert body == b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_large_answer(server: Server) -> None:
    """An answer of 20 MB arrives whole where ``max_response_size`` allows it; one over it is an error."""
    answer = run(server, "b'0123456789' * 2_000_000")
    assert answer.status == 200
    assert answer.body == b"0123456789" * 2_000_000
    pid = run(server, "os.getpid()").body
    answer = run(server, "b'0123456789' * 4_000_000")
    assert answer.status == 500
    assert b"max_response_size" in answer.body
    assert run(server, "os.getpid()").body == pid


def test_client_leaves(server: Server, tmp_path: Path) -> None:
    """A client that leaves keeps nobody waiting, and a streaming handler hears of it."""
    note = tmp_path / "note"
    code = f"until_cancelled(context, {str(note)!r})".encode()
    with server.connect() as client:
        client.sendall(server.head("POST", "/predictions/module", f"Content-Length: {len(code)}") + code)
        while b"more" not in client.recv(65536):
            pass
    server.until(note.exists, "the handler to hear of it", 10)
    # Nothing is sent in advance to a worker whose last batch took long.
    assert run(server, "time.sleep(0.1) or 2").body == b"2"
    # What waits in the queue when its client leaves is not run at all.
    go, never = tmp_path / "go", f"open({str(note) + '2'!r}, 'w').close()".encode()
    with contextlib.ExitStack() as stack:
        for body, there in (
            (f"begin_until({str(go)!r})".encode(), go.with_name("go.begun").exists),
            (never, lambda: queued(server) == 1),
        ):
            client = stack.enter_context(server.connect())
            client.sendall(server.head("POST", "/predictions/module", f"Content-Length: {len(body)}") + body)
            server.until(there, "the request to be in the worker, or in the queue")
    server.until(lambda: queued(server) == 0, "the server to see that its client has left")
    go.touch()
    assert run(server, "'well'").body == b"well"
    assert not Path(f"{note}2").exists()


def queued(server: Server) -> int:
    """Return how many requests wait for the first model."""
    [described] = manage(server, "GET", "/models/module").json()
    return int(described["jobQueueStatus"]["pendingRequests"])


def test_archive_over_the_api(server: Server) -> None:
    """A model comes, grows, gets another version, shrinks and goes over the management API."""
    first, second = (
        server.add_archive("api", f"def handle(d, c):\n    return d and ['{v}']\n", v) for v in ("1.0", "2.0")
    )
    registered = manage(server, "POST", f"/models?url={first}&initial_workers=1&synchronous=true")
    assert registered.json() == {"status": 'Model "api" Version: 1.0 registered with 1 initial workers'}
    assert server.predict("api").body == b"1.0"
    assert manage(server, "POST", f"/models?url={first}").status == 409

    before = len(server.workers())
    assert manage(server, "PUT", "/models/api?min_worker=3&synchronous=true").status == 200
    assert len(server.workers()) == before + 2
    (described,) = manage(server, "GET", "/models/api").json()
    assert [worker["status"] for worker in described["workers"]] == ["READY"] * 3
    assert {worker["pid"] for worker in described["workers"]} <= set(server.workers())

    assert manage(server, "POST", f"/models?url={second}&initial_workers=1&synchronous=true").status == 200
    assert [server.predict(path).body for path in ("api", "api/1.0", "api/2.0")] == [b"1.0", b"1.0", b"2.0"]
    assert manage(server, "PUT", "/models/api/2.0/set-default").status == 200
    assert server.predict("api").body == b"2.0"

    assert manage(server, "PUT", "/models/api/1.0?min_worker=0&synchronous=true").status == 200
    assert len(server.workers()) == before
    assert server.predict("api/1.0").status == 503
    unpacked = len(list(server.temp.glob("twisted_serve-*/models/*")))
    assert manage(server, "DELETE", "/models/api/1.0").status == 200
    assert manage(server, "DELETE", "/models/api").status == 200
    assert server.predict("api").status == 404
    assert len(server.workers()) == before - 1
    assert len(list(server.temp.glob("twisted_serve-*/models/*"))) == unpacked - 2


def test_stop_in_the_middle(make_server: MakeServer, tmp_path: Path) -> None:
    """A request that is being answered when the server is told to stop gets its answer; new clients find no port."""
    server = make_server({"module": MODULE})
    server.start("--models", "module=module")
    go = tmp_path / "go"
    code = f"begin_until({str(go)!r})".encode()
    with server.connect() as client:
        client.sendall(server.head("POST", "/predictions/module", f"Content-Length: {len(code)}") + code)
        server.until(go.with_name("go.begun").exists, "the handler to begin")
        assert server.front is not None
        server.front.terminate()
        server.until(lambda: not server.key_file.exists(), "the key file's end")

        def closed() -> bool:
            with contextlib.suppress(ConnectionRefusedError), server.connect():
                return False
            return True

        server.until(closed, "the port to close")
        go.touch()
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.endswith(b"\r\n\r\ndone")
    assert server.front.wait(40) == 0
    server.assert_clean()
