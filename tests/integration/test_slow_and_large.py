# SPDX-License-Identifier: Apache-2.0
"""Tests for clients that send too much, too slowly, too many at once, or in odd ways; on real sockets."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

ECHO = "def handle(data, context):\n    return data and [bytes(row['body']) for row in data]\n"

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server that is strict: a body has at most 100000 bytes, a head takes at most a second."""
    server = make_module_server({"echo": ECHO}, max_request_size=100_000, header_timeout=1, body_timeout=2)
    return server.start("--models", "echo=echo")


def receive_all(connection: socket.socket) -> bytes:
    """Read to the end, whether the other side closes or cuts."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def receive_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read one answer and not more: head and body."""
    with connection.makefile("rb", buffering=0) as stream:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = stream.read(1)
            assert byte, head
            head += byte
        (length,) = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = b""
        while len(body) < length:
            body += stream.read(length - len(body)) or pytest.fail("the answer is not whole")
    return head, body


def send_some(client: socket.socket, open_clients: list[socket.socket]) -> int:
    """Send what can be sent now; a client that finds its connection closed is one no more."""
    try:
        return client.send(b"x" * MIB)
    except ConnectionError:
        open_clients.remove(client)
        return 0


def memory(server: Server) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


def test_five_gigabytes_with_bad_key(server: Server) -> None:
    """A client with a bad key that announces 5 GB is answered at once, and closed; what it sends fills no memory."""
    before = memory(server)
    most = 0
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(8)]
        for client in clients:
            began = time.monotonic()
            client.sendall(
                server.head(
                    "POST", "/predictions/echo", "Content-Length: 5368709120", "Authorization: Bearer x", key=None
                )
            )
            head, body = receive_answer(client)
            assert time.monotonic() - began < 2
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"\r\nconnection: close" in head.lower()
            assert json.loads(body)["type"] == "InvalidKeyException"
        sent = 0
        open_clients = list(clients)
        began = time.monotonic()
        while open_clients:
            assert time.monotonic() - began < 20, f"after {sent} bytes it still listens"
            for client in list(open_clients):
                client.settimeout(0.5)
                with suppress(TimeoutError):
                    sent += send_some(client, open_clients)
            most = max(most, memory(server) - before)
    assert sent < 200 * MIB
    assert most < 20 * MIB
    assert server.predict("echo", b"well").body == b"well"


def test_bytes_after_an_answer(server: Server) -> None:
    """A connection that was refused does not serve what its body seems to ask."""
    smuggled = server.head("GET", "/ping")
    with server.connect() as client:
        client.sendall(server.head("POST", "/ping", f"Content-Length: {len(smuggled)}", key=None) + smuggled)
        assert receive_all(client).count(b"HTTP/1.1 ") == 1


def test_slow_head(server: Server) -> None:
    """A client that sends its head byte by byte is closed by ``header_timeout``, however steadily it does."""
    with server.connect() as client:
        client.settimeout(0.1)
        began = time.monotonic()
        head = iter(b"GET /ping HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 200)
        closed = False
        while not closed:
            assert time.monotonic() - began < 5
            try:
                client.send(bytes([next(head)]))
                # It may be told why.
                closed = client.recv(4096) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
        assert time.monotonic() - began >= 0.9


def test_slow_body(server: Server) -> None:
    """A client with a right key whose body does not come is told so, and closed."""
    with server.connect() as client:
        began = time.monotonic()
        client.sendall(server.head("POST", "/predictions/echo", "Content-Length: 10") + b"12345")
        answer = receive_all(client)
        assert 1.5 < time.monotonic() - began < 10
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "options", [[], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]], ids=str
)
def test_too_large(server: Server, options: list[str]) -> None:
    """A body over ``max_request_size`` is refused with 413, and its sender gets to read that."""
    file = server.cwd / "large"
    file.write_bytes(b"x" * 5_000_000)
    answer = server.curl("inference", "/predictions/echo", "-T", str(file), *options, key="inference", fails=True)
    assert answer.status == 413
    assert answer.json()["code"] == 413
    assert "100000" in answer.json()["message"]


def test_just_large_enough(server: Server) -> None:
    """A body of exactly ``max_request_size`` bytes is served."""
    assert server.predict("echo", b"x" * 100_000).body == b"x" * 100_000
    assert server.predict("echo", b"x" * 100_001).status == 413


def test_idle_connections(server: Server) -> None:
    """Hundreds of connections that say nothing keep nobody else waiting."""
    with ExitStack() as stack:
        idle = [stack.enter_context(server.connect(role)) for role in ("inference", "management") for _ in range(150)]
        began = time.monotonic()
        assert server.predict("echo", b"hello").body == b"hello"
        assert server.curl("management", "/models", key="management").status == 200
        assert time.monotonic() - began < 5
        # And they are still served.
        idle[0].sendall(server.head("GET", "/ping"))
        assert receive_answer(idle[0])[0].startswith(b"HTTP/1.1 200 ")


def test_pipelining(server: Server) -> None:
    """Requests that are sent in one go are answered in their order."""
    bodies = [b"body %d" % i for i in range(20)]
    asked = b"".join(server.head("POST", "/predictions/echo", f"Content-Length: {len(body)}") + body for body in bodies)
    with server.connect() as client:
        client.sendall(asked)
        for body in bodies:
            assert receive_answer(client)[1] == body


def test_half_closed(server: Server) -> None:
    """
    A client that closes its side of the connection is not kept waiting.

    It may be taken for one that has gone, for it looks like that; then it gets nothing, and at once.
    """
    with server.connect() as client:
        client.sendall(server.head("POST", "/predictions/echo", "Content-Length: 5") + b"hello")
        client.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        answer = receive_all(client)
        assert time.monotonic() - began < 5
    assert answer == b"" or answer.endswith(b"\r\n\r\nhello")
    assert server.predict("echo", b"well").body == b"well"


def test_half_a_request(server: Server) -> None:
    """A client that leaves in the middle of a request leaves no connection behind."""
    front = psutil.Process(server.pid)
    before = len(front.net_connections("tcp"))
    for part in (b"", b"POST", server.head("POST", "/predictions/echo", "Content-Length: 5"), b"\x16\x03\x01\x02\x00"):
        with closing(server.connect()) as client:
            client.sendall(part)
    server.until(lambda: len(front.net_connections("tcp")) <= before, "the connections' end", 10)
    assert server.predict("echo", b"well").body == b"well"


def test_few_descriptors(make_server: MakeServer) -> None:
    """Where descriptors are few, clients are refused before any is missing: the others, and management, are served."""
    server = make_server({"echo": ECHO})
    words = server.command("--foreground", "--models", "echo=echo")
    server.start(command=["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *words])
    workers = server.workers()
    head = server.head("POST", "/predictions/echo", "Content-Length: 2") + b"hi"
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(100)]
        for client in clients:
            client.sendall(head)
        served = []
        for client in clients:
            answer = server.read_until(client, b"\r\n\r\n")
            if b"HTTP/1.1 200 " in answer:
                served.append(client)
            else:
                assert b"HTTP/1.1 503 " in answer
                client.close()
        assert len(served) >= 8
        assert server.curl("management", "/models", key="management").status == 200
        for client in served:
            client.sendall(head)
            assert b"HTTP/1.1 200 " in server.read_until(client, b"\r\n\r\n")
    assert server.workers() == workers
    assert server.log().count("Connections refused: ") == 1
    server.until(lambda: server.predict("echo", b"again").status == 200, "the connections to be closed")
    assert server.stop() == 0
    server.assert_clean()
