# SPDX-License-Identifier: Apache-2.0
"""
What the fault tests share: a handler that does as it is told, clients of all manners, and a look at what is left.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import psutil
from attrs import frozen

if TYPE_CHECKING:
    from tests.integration.answer import Answer
    from tests.integration.conftest import Server

MIB = 1 << 20

# The time in which anything that is going to happen has happened, on a busy machine.
LONG = 60.0

# Does what the body says, which is Python; sleeps, the first time only, after having left a mark, or until there is
# another one.
HANDLER = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data is None:
        return None
    names = {**globals(), "context": context}
    return [eval(bytes(row["body"]), names) for row in data]

def once(path, then=lambda: time.sleep(600)):
    if not os.path.exists(path):
        open(path, "w").close()
        then()
    return os.getpid()

def sleep(path, seconds):
    open(path, "w").close()
    time.sleep(seconds)
    return os.getpid()

def hold(path, go):
    open(path, "w").close()
    while not os.path.exists(go):
        time.sleep(0.02)
    return os.getpid()

def stream(context, path, count, pause):
    for i in range(count):
        send([f"chunk {i};"], context.request_ids, "", 200, context)
        if context.is_cancelled(0):
            open(path, "w").close()
            return "cancelled"
        time.sleep(pause)
    return "last"
"""


@frozen
class Belongings:
    """What a server has: descriptors of its own process and of fronts, memory of its own, and the number of others."""

    descriptors: int
    processes: int
    memory: int

    @classmethod
    def of(cls, server: Server) -> Belongings:
        """Count them now."""
        front = psutil.Process(server.pid)
        descriptors = sum(psutil.Process(pid).num_fds() for pid in (server.pid, *server.fronts()))
        return cls(descriptors, len(front.children(recursive=True)), front.memory_info().rss)


@contextmanager
def nothing_leaks(server: Server, memory: int = 32 * MIB) -> Iterator[None]:
    """
    See that the server is whole again after something was done to it, and has no more than it had before.

    :param memory: What its own process may grow by, in bytes: what was in use at once stays with the allocator.
    """
    ask(server, "1")
    before = Belongings.of(server)
    yield
    server.until(lambda: ask(server, "'well'").body == b"well", "the service to be whole again", LONG)

    def as_before() -> bool:
        now = Belongings.of(server)
        return now.descriptors <= before.descriptors and now.processes == before.processes

    server.until(as_before, f"what it had before, {before}", LONG)
    assert Belongings.of(server).memory - before.memory < memory


def ask(server: Server, code: str, model: str = "m") -> Answer:
    """Have a model's handler evaluate ``code``."""
    return server.predict(model, code.encode())


def manage(server: Server, method: str, path: str) -> Answer:
    """Ask the management API."""
    return server.curl("management", path, "-X", method, key="management")


def request(server: Server, code: str, model: str = "m") -> bytes:
    """Write a request for a model's handler to evaluate ``code``."""
    return server.head("POST", f"/predictions/{model}", f"Content-Length: {len(code)}") + code.encode()


def begin(server: Server, code: str, model: str = "m") -> socket.socket:
    """Send such a request; the caller reads the answer, or not."""
    client = server.connect()
    client.settimeout(LONG)
    client.sendall(request(server, code, model))
    return client


def keep_talking(server: Server) -> Callable[[str], tuple[int, bytes]]:
    """Open a connection, and make the function that asks on it, again and again."""
    connection = HTTPConnection("127.0.0.1", server.ports["inference"], timeout=LONG)
    headers = {"Authorization": f"Bearer {server.keys()['inference']}", "Content-Type": "application/octet-stream"}
    connection.connect()

    def talk(code: str) -> tuple[int, bytes]:
        connection.request("POST", "/predictions/m", code.encode(), headers)
        response = connection.getresponse()
        return response.status, response.read()

    return talk


def receive_all(client: socket.socket) -> bytes:
    """Read to the end, whether the other side closes or cuts."""
    received = bytearray()
    try:
        while data := client.recv(1 << 16):
            received += data
    except ConnectionError:
        pass
    return bytes(received)


def receive_answer(client: socket.socket) -> tuple[int, bytes]:
    """Read one answer that has a length: its status and body."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += client.recv(1 << 16) or b"\r\n\r\n"
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    whole = bytearray(body)
    while len(whole) < length:
        data = client.recv(1 << 16)
        assert data, f"{len(whole)} of {length} bytes"
        whole += data
    return int(head.split(b" ", 2)[1]), bytes(whole)


def reset(client: socket.socket) -> None:
    """Leave without a word: the other side gets a RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def describe(server: Server, model: str = "m") -> Any:
    """Describe a model."""
    [described] = manage(server, "GET", f"/models/{model}").json()
    return described


def ready(server: Server, count: int, model: str = "m") -> Callable[[], bool]:
    """Say whether ``count`` workers are ready, and no other is there."""
    return lambda: [worker["status"] for worker in describe(server, model)["workers"]] == ["READY"] * count
