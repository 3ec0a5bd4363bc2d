# SPDX-License-Identifier: Apache-2.0
"""Tests for continuous batching over real sockets: a generator, its clients, and the batches that its worker sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import socket

    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Says each request's body letter by letter, one letter a call, when the file ``go`` has a line for the call.
HANDLER = """
import json, os, time

class Speller:
    def initialize(self, context):
        self.directory = context.model_yaml_config["directory"]
        self.calls = 0
        context.cache = {}

    def handle(self, data, context):
        self.calls += 1
        ids = [context.get_request_id(i) for i in range(len(data))]
        for gone in set(context.cache) - set(ids):
            del context.cache[gone]
        fresh = 0
        for i, row in zip(ids, data):
            if row:
                fresh += 1
                context.cache[i] = list(row["body"].decode())
        words = [context.get_request_header(i, "x-name") for i in range(len(data))]
        with open(self.directory + "/calls", "a") as note:
            note.write(json.dumps([fresh, words]) + "\\n")
        while not os.path.exists(self.directory + "/go"):
            time.sleep(0.01)
        time.sleep(0.05)
        letters = [context.cache[i].pop(0) for i in ids]
        if "!" in letters:
            raise ValueError("shouted at")
        if "x" in letters:
            os._exit(3)
        context.stopping_criteria = {n: (lambda _, i=i: not context.cache[i]) for n, i in enumerate(ids)}
        return letters
"""


class Speller:
    """A server with the generator, which says nothing before it is told to."""

    def __init__(self, make: MakeServer, **config: object) -> None:
        self.server: Server = make(enable_model_api="true")
        self.directory = self.server.cwd / "notes"
        self.directory.mkdir()
        self.server.add_model(
            "speller", HANDLER, directory=str(self.directory), continuousBatching=True, batchSize=3, **config
        )
        self.server.start("--models", "speller=speller")

    @property
    def go(self) -> Path:
        return self.directory / "go"

    def calls(self) -> list[tuple[int, list[str]]]:
        """What the handler was called with: how many had inputs, and whose requests they were."""
        path = self.directory / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(fresh, names) for fresh, names in map(json.loads, lines)]

    def ask(self, name: str, text: str) -> socket.socket:
        client = self.server.connect()
        length = f"Content-Length: {len(text)}"
        client.sendall(self.server.head("POST", "/predictions/speller", length, f"x-name: {name}") + text.encode())
        return client

    def waiting(self, number: int) -> None:
        """Wait until so many requests are in the queue."""

        def there() -> bool:
            (described,) = self.server.curl("management", "/models/speller", key="management").json()
            return bool(described["jobQueueStatus"]["pendingRequests"] == number)

        self.server.until(there, f"{number} requests to wait")


@pytest.fixture
def speller(make_server: MakeServer) -> Speller:
    """Start a server with one worker."""
    return Speller(make_server)


def chunks_of(text: str) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % letter for letter in text.encode()) + b"0\r\n\r\n"


def test_three_clients(speller: Speller) -> None:
    """Each gets its own text, piece by piece; the batch grows as they come and shrinks as they are done."""
    server = speller.server
    first = speller.ask("first", "abcdefghijklmnopqrst")
    server.until(lambda: len(speller.calls()) == 1, "the first call")
    second, third = speller.ask("second", "uvw"), speller.ask("third", "z")
    speller.waiting(2)
    speller.go.touch()
    received = {}
    for name, client in (("first", first), ("second", second)):
        with client:
            head, _, body = server.read_until(client, b"0\r\n\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        assert b"ts_stream_next" not in head.lower()
        assert b"transfer-encoding: chunked" in head.lower()
        received[name] = body
    assert received == {"first": chunks_of("abcdefghijklmnopqrst"), "second": chunks_of("uvw")}
    with third:
        head, _, body = server.read_until(third, b"\r\n\r\nz").partition(b"\r\n\r\n")
    # One piece is an ordinary answer.
    assert (b"content-length: 1" in head.lower(), body) == (True, b"z")
    calls = speller.calls()
    assert [fresh for fresh, _names in calls] == [1, 2, *[0] * 18]
    assert [len(names) for _fresh, names in calls] == [1, 3, 2, 2, *[1] * 16]
    assert sorted(calls[1][1]) == ["first", "second", "third"]


def test_client_gone(speller: Speller) -> None:
    """A client that goes is not in the calls any more; who stays gets all of its text."""
    server = speller.server
    leaving = speller.ask("leaving", "a" * 100_000)
    server.until(lambda: len(speller.calls()) == 1, "the first call")
    staying = speller.ask("staying", "abcdef")
    speller.waiting(1)
    speller.go.touch()
    server.read_until(leaving, b"1\r\na\r\n")
    leaving.close()
    with staying:
        body = server.read_until(staying, b"0\r\n\r\n").partition(b"\r\n\r\n")[2]
    assert body == chunks_of("abcdef")
    assert server.predict("speller", b"z", "-H", "x-name: next").body == b"z"
    server.until(lambda: speller.calls()[-1][1] == ["next"], "a call without the one that has gone")


def test_failure_and_death(speller: Speller) -> None:
    """Who is in a call that fails, or that the worker dies of, is told or cut off; the next request is answered."""
    server = speller.server
    for end, status in ((b"!", 503), (b"x", 500)):
        speller.go.unlink(missing_ok=True)
        before = len(speller.calls())
        first = speller.ask("first", "abcdef")
        server.until(lambda before=before: len(speller.calls()) > before, "the first call")  # type: ignore[misc]
        second = speller.ask("second", end.decode())
        speller.waiting(1)
        speller.go.touch()
        with second:
            assert server.read_until(second, b"\r\n\r\n").startswith(b"HTTP/1.1 %d" % status)
        with first:
            received = b""
            while data := first.recv(65536):
                received += data
        # It is broken off: nobody can take it for whole.
        assert received.partition(b"\r\n\r\n")[2] == b"1\r\na\r\n"
        server.until(lambda: len(server.workers()) == 1, "a worker")
        assert server.predict("speller", b"z").body == b"z"


def test_unregistered(speller: Speller) -> None:
    """A model that is removed finishes what goes on."""
    server = speller.server
    client = speller.ask("first", "abcd")
    server.until(lambda: len(speller.calls()) == 1, "the first call")
    with server.connect("management") as removal, client:
        removal.sendall(server.head("DELETE", "/models/speller", key="management"))
        path = "/models/speller"
        server.until(lambda: server.curl("management", path, key="management").status == 404, "the model to go")
        speller.go.touch()
        body = server.read_until(client, b"0\r\n\r\n").partition(b"\r\n\r\n")[2]
        server.until(lambda: server.workers() == [], "its worker to end")
    assert body == chunks_of("abcd")
