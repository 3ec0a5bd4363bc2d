# SPDX-License-Identifier: Apache-2.0
"""Tests for connections that processes of their own read and write: clients find no difference."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.faults.world import HANDLER, receive_all
from tests.integration.front_clients import (
    FRONTS,
    Client,
    all_fronts,
    clients_of_both,
    ports_of,
    written,
)

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Streams numbered pieces of a megabyte, as fast as it may, and notes how far it has come.
FLOOD = """
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data is None:
        return None
    path = bytes(data[0]["body"]).decode()
    for number in range(48):
        send([b"%06d" % number + b"x" * 999_993 + b"\\n"], context.request_ids, "", 200, context)
        with open(path, "a") as note:
            note.write("sent\\n")
    return ["end"]
"""

# Appends what comes to a text of each sequence, which is the response.
APPENDER = """
class Appender:
    def initialize(self, context):
        self.texts = {}

    def handle(self, data, context):
        answers = []
        for i, row in enumerate(data):
            name = context.get_sequence_id(i)
            self.texts[name] = self.texts.get(name, "") + bytes(row["body"]).decode()
            answers.append(self.texts[name])
        return answers
"""

STATEFUL = {"minWorkers": 2, "maxWorkers": 2, "batchSize": 2, "sequenceBatching": True, "maxNumSequence": 8}

# The requests that wait for the model ``narrow``.
WAIT = 3


def start(make: MakeServer, **properties: object) -> Server:
    """Start a server with all models, and no limit of its turns: it shares the machine with all clients."""
    server = make({"m": HANDLER, "flood": FLOOD}, ts_header_key_sequence_id="x-seq", **properties)
    server.add_model("appender", APPENDER, **STATEFUL)
    server.add_model("narrow", HANDLER, jobQueueSize=WAIT)
    return server.start("--models", *(f"{name}={name}" for name in ("m", "flood", "appender", "narrow")))


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with fronts."""
    server = start(make_module_server, front_processes=FRONTS)
    all_fronts(server)
    return server


@pytest.fixture(scope="module")
def plain(make_module_server: MakeServer) -> Server:
    """Start the same server without fronts."""
    return start(make_module_server, front_processes=0)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Give the name of a file that is not there."""
    return tmp_path / "mark"


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """Open a connection, and have it in a front."""
    with Client(server) as client:
        client.in_front()
        yield client


def test_balanced(server: Server) -> None:
    """Forty connections are spread over the fronts; the server's own process has none."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(40)]
        for number in range(5):
            for client in clients:
                assert client.ask(str(number)) == (200, b"%d" % number)
        ports = {client.port for client in clients}
        counts = [len(ports & ports_of(pid)) for pid in server.fronts()]
        assert ports & ports_of(server.pid) == set()
    assert sum(counts) == 40
    assert all(16 <= count <= 24 for count in counts), counts


# The same bytes

_VARIES = re.compile(rb"(?im)^(date: |x-request-id: |server-timing: ).*$")


def exchange(client: Client, parts: list[bytes], responses: int) -> list[bytes]:
    """Send parts with a pause between them; return the responses without what differs each time, and ``closed``."""
    said = []
    try:
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.05)
            client.send(part)
        for _ in range(responses):
            said.append(_VARIES.sub(rb"\1", client.receive()))  # noqa: PERF401 - those before an error, too
    except ConnectionError:
        said.append(b"closed")
    return said


def conversations(key: str) -> dict[str, tuple[list[bytes], int]]:
    """Return what is sent in each case, and the number of responses."""
    usual = written(key, b"'usual'")
    large = written(key, b"len('%s')" % (b"x" * 200_000))
    wrong = written("0" * 32, b"1")
    head, body = written(key, b"'parts'")[: -len(b"'parts'")], b"'parts'"
    chunked = head.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked")
    get = usual.replace(b"POST", b"GET", 1).replace(b"Content-Length: 7\r\n", b"")[: -len(b"'usual'")]
    return {
        "usual": ([usual], 1),
        "wrong key": ([wrong], 1),
        "no key": ([usual.replace(b"Authorization", b"X-Nothing")], 1),
        "no model": ([written(key, b"1", "nothing")], 1),
        "no path": ([usual.replace(b"/predictions/m", b"/nothing")], 1),
        "handler fails": ([written(key, b"1 / 0")], 1),
        "handler's type": ([written(key, b"{'a': 1}")], 1),
        "pipelined": ([usual * 20], 20),
        "pipelined with an error": ([usual + written(key, b"1", "nothing") + usual], 3),
        "in two parts": ([head, body], 1),
        "in parts": ([head[:9], head[9:40], head[40:] + body[:3], body[3:]], 1),
        "large": ([large], 1),
        "large response": ([written(key, b"b'y' * 200_000")], 1),
        "GET": ([get], 1),
        "OPTIONS": ([get.replace(b"GET", b"OPTIONS", 1)], 1),
        "DELETE": ([get.replace(b"GET", b"DELETE", 1)], 1),
        "query": ([usual.replace(b"/predictions/m", b"/predictions/m?a=1")], 1),
        "chunked": (
            [chunked + b"3\r\n'ab\r\n1\r\n'\r\n0\r\n\r\n"],
            1,
        ),
        "form": ([usual.replace(b"Host: h", b"Host: h\r\nContent-Type: application/x-www-form-urlencoded")], 1),
        "no host": ([usual.replace(b"Host: h\r\n", b"")], 1),
        "two hosts": ([usual.replace(b"Host: h", b"Host: h\r\nHost: i")], 1),
        "empty line before": ([b"\r\n" + usual], 1),
        "close": ([usual.replace(b"Host: h", b"Host: h\r\nConnection: close")], 1),
        "HTTP/1.0": ([usual.replace(b"HTTP/1.1", b"HTTP/1.0")], 1),
        "nonsense": ([b"nonsense\r\n\r\n"], 1),
    }


@pytest.mark.parametrize("case", sorted(conversations("")))
def test_same_bytes(server: Server, plain: Server, case: str) -> None:
    """What a connection that was in a front answers is what one of a server without fronts does, and so is its end."""
    outcomes = []
    for each in (server, plain):
        with Client(each) as client:
            for number in range(3):
                assert client.ask(str(number)) == (200, b"%d" % number)
            if each is server:
                client.in_front()
            parts, number = conversations(client.key)[case]
            said = exchange(client, parts, number)
            # Whether the connection goes on.
            said += exchange(client, [written(client.key, b"'after'")], 1)
            outcomes.append(said)
    assert outcomes[0] == outcomes[1]


def test_head(server: Server, plain: Server) -> None:
    """A request for a head only, on a connection in a front, is answered with that."""
    answers = []
    for each in (server, plain):
        with Client(each) as client:
            if each is server:
                client.in_front()
            client.send(each.head("HEAD", "/ping") + each.head("GET", "/ping", "Connection: close"))
            answers.append(_VARIES.sub(rb"\1", receive_all(client.socket)))
    assert answers[0] == answers[1]
    assert answers[0].count(b"HTTP/1.1 200 ") == 2


def test_continue(server: Server, plain: Server) -> None:
    """``100 Continue`` is sent to a client that asks for it, unless its request is refused."""
    for each in (server, plain):
        for key, expected in ((None, b"HTTP/1.1 100 Continue\r\n\r\n"), ("0" * 32, b"HTTP/1.1 400 ")):
            with Client(each) as client:
                if each is server:
                    client.in_front()
                whole = written(key or client.key, b"'late'", "m", "Expect: 100-continue")
                client.send(whole[:-6])
                assert client.socket.recv(len(expected)) == expected
                if key is None:
                    client.send(whole[-6:])
                    assert client.answer() == (200, b"late")


def test_handed_out_again(client: Client) -> None:
    """A connection that has come back is in a front again after some usual requests."""
    for _ in range(3):
        client.send(client.server.head("GET", "/ping"))
        assert client.answer()[0] == 200
        assert client.front() is None
        client.in_front()


# More than one response, or none


def test_slow_stream(client: Client, mark: Path) -> None:
    """A stream to a client that does not read pauses its handler; all pieces come, in their order."""
    server = client.server
    client.begin(str(mark), "flood")
    server.until(mark.exists, "the first piece")
    lines = -1
    while lines != len(mark.read_text().splitlines()):
        lines = len(mark.read_text().splitlines())
        time.sleep(0.3)
    assert lines < 36, "the handler was not paused"
    received = bytearray()
    while not received.endswith(b"3\r\nend\r\n0\r\n\r\n"):
        data = client.socket.recv(1 << 20)
        assert data
        received += data
    assert [int(number) for number in re.findall(rb"\r\n(\d{6})x", received)] == list(range(48))
    assert received.count(b"x" * 999_993 + b"\n") == 48
    client.in_front()


def test_disconnects(client: Client, mark: Path) -> None:
    """A client that disconnects during its prediction in a front cancels it: 499 in the log, and nothing is run."""
    server = client.server
    with Client(server) as busy:
        busy.begin(f"sleep({str(mark)!r}, 1)")
        server.until(mark.exists, "the worker to be busy")
        never = mark.with_name("never")
        code = f"open({str(never)!r}, 'w').close()"
        assert client.front() is not None
        client.begin(code, "m", "X-Request-Id: gone-1")
        time.sleep(0.1)
        client.socket.close()
        assert busy.answer()[0] == 200
    server.until(lambda: " gone-1" in server.log(), "the line of the log")
    [line] = [line for line in server.log().splitlines() if "gone-1" in line and "POST" in line]
    assert re.search(r'"POST /predictions/m HTTP/1\.1" 499 \d+ gone-1', line)
    assert not never.exists()


def test_counted_once(server: Server) -> None:
    """Each request is one line of the access log, and is counted once."""

    def counted() -> float:
        text = server.curl("metrics", "/metrics").body.decode()
        return sum(map(float, re.findall(r'(?m)^ts_inference_requests_total\{.*model_name="m".*\} (\S+)$', text)))

    def lines(status: int) -> int:
        return len(re.findall(rf'(?m) - /127.0.0.1:\d+ "POST /predictions/\w+ HTTP/1.1" {status} \d+', server.log()))

    # Of what has been before.
    time.sleep(0.5)
    before = [counted(), lines(200), lines(404)]
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(8)]
        for _ in range(5):
            for client in clients:
                assert client.ask("1")[0] == 200
        assert len({client.front() for client in clients}) == FRONTS
        for client in clients:
            assert client.ask("1", "nothing")[0] == 404
    time.sleep(0.5)
    assert [counted(), lines(200), lines(404)] == [before[0] + 40, before[1] + 40, before[2] + 8]


def test_sequences(server: Server) -> None:
    """The requests of a sequence keep their order when their connections are in different fronts."""
    found = clients_of_both(server, 4)
    first, second = (clients[0] for clients in found.values())
    said = dict.fromkeys("abc", "")
    for number in range(60):
        for name, so_far in said.items():
            said[name] = so_far + f"{number};"
            client = (first, second)[(number + ord(name)) % 2]
            assert client.ask(f"{number};", "appender", f"X-Seq: {name}") == (200, said[name].encode())
    for clients in found.values():
        for client in clients:
            client.socket.close()


def test_queue_size(server: Server, plain: Server, mark: Path) -> None:
    """As many requests wait as may, over all fronts; the others get the status that they get without fronts."""
    outcomes = []
    for each in (server, plain):
        note = mark.with_name(f"busy-{each.pid}")
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(each)) for _ in range(WAIT + 8)]
            for client in clients:
                assert client.ask("1")[0] == 200
            clients[0].begin(f"sleep({str(note)!r}, 2)", "narrow")
            each.until(note.exists, "the worker to be busy")
            for client in clients[1:]:
                client.begin("1", "narrow")
            outcomes.append(sorted(client.answer()[0] for client in clients))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].count(503) >= 1
