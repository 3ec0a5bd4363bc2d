# SPDX-License-Identifier: Apache-2.0
"""
Clients whose connections are in fronts: ask on one connection again and again, and see which process has it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

import psutil
from attrs import frozen

if TYPE_CHECKING:
    from tests.integration.conftest import Server

# How many processes read and write connections in these tests.
FRONTS = 2

# The time in which anything that is going to happen has happened, on a busy machine.
LONG = 60.0


def status_of(response: bytes) -> int:
    """Return the status of a response."""
    return int(response.split(b" ", 2)[1])


def written(key: str, body: bytes, model: str = "m", *lines: str) -> bytes:
    """Write a prediction."""
    head = [f"POST /predictions/{model} HTTP/1.1", "Host: h", f"Authorization: Bearer {key}", *lines]
    return "".join(f"{line}\r\n" for line in [*head, f"Content-Length: {len(body)}", ""]).encode() + body


def ports_of(pid: int) -> set[int]:
    """Return the clients' ports of the connections that a process has."""
    found = set()
    for connection in psutil.Process(pid).net_connections("tcp"):
        if connection.raddr and connection.status in (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT):
            found.add(connection.raddr.port)
    return found


class Client:
    """
    One connection to a server.

    :ivar socket: The connection.
    :ivar port: Its port here.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.socket = server.connect()
        self.socket.settimeout(LONG)
        self.port: int = self.socket.getsockname()[1]
        self.key = server.keys()["inference"]
        self._unread = bytearray()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def begin(self, code: str, model: str = "m", *lines: str) -> None:
        """Send a prediction, and read nothing."""
        self.send(written(self.key, code.encode(), model, *lines))

    def receive(self) -> bytes:
        """
        Read one response that has a length; return all its bytes.

        :raise ConnectionError: if the connection ends before.
        """
        while b"\r\n\r\n" not in self._unread:
            self._read_more()
        head = bytes(self._unread).partition(b"\r\n\r\n")[0]
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        size = len(head) + 4 + int(lengths[0])
        while len(self._unread) < size:
            self._read_more()
        response = bytes(self._unread[:size])
        del self._unread[:size]
        return response

    def _read_more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the connection has ended")
        self._unread += data

    def answer(self) -> tuple[int, bytes]:
        """Read one response that has a length; return status and body."""
        response = self.receive()
        return status_of(response), response.partition(b"\r\n\r\n")[2]

    def ask(self, code: str, model: str = "m", *lines: str) -> tuple[int, bytes]:
        """Have a model answer; return status and body."""
        self.begin(code, model, *lines)
        return self.answer()

    def front(self) -> int | None:
        """Return the process of the front that has the connection; ``None`` if it is in the server's own."""
        return next((pid for pid in self.server.fronts() if self.port in ports_of(pid)), None)

    def in_front(self) -> int:
        """Ask usual predictions until the connection is in a front; return the process of that."""

        def is_there() -> bool:
            assert self.ask("1") == (200, b"1")
            return self.front() is not None

        self.server.until(is_there, "a front to have the connection")
        pid = self.front()
        assert pid is not None
        return pid


def all_fronts(server: Server) -> list[int]:
    """Wait until all fronts take connections; return their processes."""

    def clients_in_each() -> bool:
        clients = [Client(server) for _ in range(2 * FRONTS)]
        try:
            for client in clients:
                assert client.ask("1") == (200, b"1")
            return len({client.front() for client in clients} - {None}) == FRONTS
        finally:
            for client in clients:
                client.socket.close()

    server.until(clients_in_each, "all fronts to have connections")
    return server.fronts()


def clients_of_both(server: Server, number: int) -> dict[int, list[Client]]:
    """Open connections, of which each front has some; return them by the processes of the fronts."""
    all_fronts(server)
    found: dict[int, list[Client]] = {}
    for _ in range(number):
        client = Client(server)
        found.setdefault(client.in_front(), []).append(client)
    assert len(found) == FRONTS
    return found


@frozen
class Asked:
    """
    A request of an `Asker` and its outcome.

    :ivar key: The key that it had.
    :ivar sent: When it was sent.
    :ivar status: The status of the response; 0 if the connection broke.
    """

    key: str
    sent: float
    status: int


class Asker(threading.Thread):
    """
    Asks on one connection until it is told to end, or the connection breaks; on another one after a refusal.

    :param key: Returns the key for the next request.
    :ivar asked: What came of each request.
    :ivar port: The port here of its connection.
    """

    def __init__(self, server: Server, key: Callable[[], str]) -> None:
        super().__init__(daemon=True)
        self.asked: list[Asked] = []
        self._client = Client(server)
        self.port = self._client.port
        self._key = key
        self._enough = threading.Event()

    def run(self) -> None:
        """See `threading.Thread`."""
        try:
            while not self._enough.is_set():
                key, sent, status = self._key(), time.monotonic(), 0
                try:
                    self._client.send(written(key, b"1"))
                    response = self._client.receive()
                    status = status_of(response)
                finally:
                    self.asked.append(Asked(key, sent, status))
                if b"\r\nConnection: close\r\n" in response:
                    self._client.socket.close()
                    self._client = Client(self._client.server)
                    self.port = self._client.port
        except OSError:
            pass
        finally:
            self._client.socket.close()

    def end(self) -> None:
        """Have no further request asked."""
        self._enough.set()


class Load:
    """
    Some askers at work.

    :ivar askers: They.
    """

    def __init__(self, server: Server, number: int, key: Callable[[], str] | None = None) -> None:
        current = server.keys()["inference"]
        self.askers = [Asker(server, key or (lambda: current)) for _ in range(number)]

    def __enter__(self) -> Load:
        for asker in self.askers:
            asker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for asker in self.askers:
            asker.end()
        for asker in self.askers:
            asker.join(LONG)

    def goes_on(self, server: Server, askers: Iterable[Asker] | None = None) -> None:
        """Wait until some askers, or all, have had ten more responses."""
        counts = {asker: len(asker.asked) + 10 for asker in (self.askers if askers is None else askers)}
        server.until(lambda: all(len(asker.asked) >= count for asker, count in counts.items()), "ten responses to each")

    def statuses(self) -> Counter[int]:
        """Count the requests by their statuses."""
        return Counter(asked.status for asker in self.askers for asked in asker.asked)
