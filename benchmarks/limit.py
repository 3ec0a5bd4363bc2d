# SPDX-License-Identifier: Apache-2.0
"""
Answer predictions with a bare Twisted protocol and one worker: what the language allows.

It is run as a script, ``python limit.py CASE PORT``.  It knows no errors, limits, tokens, metrics or log, and reads
only requests that ``wrk`` sends: one at a time on a connection, with ``Content-Length``.

Front and worker send each other frames: the number of requests and their sizes, then their bodies.  All requests of a
turn of the reactor make one frame, and at most two frames are on their way.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

# The most requests in a frame, and frames that the worker has not answered.
REQUESTS, FRAMES = 32, 2

_COUNT = struct.Struct("=I")


def frame(bodies: list[bytes]) -> bytes:
    """Return the bytes of a frame."""
    return b"".join((struct.pack(f"={1 + len(bodies)}I", len(bodies), *map(len, bodies)), *bodies))


def bodies_in(data: bytes | bytearray) -> tuple[list[bytes], int]:
    """Return what the first frame holds, and its size; nothing, and the bytes that are needed, if it is not whole."""
    if len(data) < _COUNT.size:
        return [], _COUNT.size
    count = _COUNT.unpack_from(data)[0]
    at = _COUNT.size * (1 + count)
    if len(data) < at:
        return [], at
    sizes = struct.unpack_from(f"={count}I", data, _COUNT.size)
    size = at + sum(sizes)
    bodies = []
    if len(data) >= size:
        view = memoryview(data)
        for each in sizes:
            bodies.append(bytes(view[at : at + each]))
            at += each
        view.release()
    return bodies, size


class Link(Protocol):
    """The front's end of the connection to the worker."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[bytes, Client]] = deque()
        self._sent: deque[list[Client]] = deque()
        self._data = bytearray()
        self._due = False

    def ask(self, body: bytes, client: Client) -> None:
        """Send a request with all others of this turn."""
        from twisted.internet import reactor

        self._waiting.append((body, client))
        if not self._due:
            self._due = True
            turns: Any = reactor
            turns.callLater(0, self._send)

    def _send(self) -> None:
        self._due = False
        while self._waiting and len(self._sent) < FRAMES:
            taken = [self._waiting.popleft() for _ in range(min(REQUESTS, len(self._waiting)))]
            self._sent.append([client for _, client in taken])
            self.transport.write(frame([body for body, _ in taken]))

    def dataReceived(self, data: bytes) -> None:
        """Answer the clients of each whole frame."""
        self._data += data
        answers, size = bodies_in(self._data)
        while answers:
            for client, answer in zip(self._sent.popleft(), answers, strict=True):
                client.answer(answer)
            del self._data[:size]
            answers, size = bodies_in(self._data)
        self._send()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End with the worker."""
        from twisted.internet import reactor

        running: Any = reactor
        if running.running:
            running.stop()


class Client(Protocol):
    """A connection of a client."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._parts: list[bytes] = []
        self._missing = 0

    def connectionMade(self) -> None:
        """Send answers at once."""
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        """Ask the worker when a request is whole."""
        if not self._missing:
            if self._parts:
                data = self._parts.pop() + data
            head, found, body = data.partition(b"\r\n\r\n")
            if not found:
                self._parts = [data]
                return
            _, given, rest = head.lower().partition(b"\r\ncontent-length: ")
            self._missing = int(rest.partition(b"\r\n")[0]) if given else 0
            data = body
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing <= 0:
            whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts, self._missing = [], 0
            self._link.ask(whole, self)

    def answer(self, body: bytes) -> None:
        """Send an answer."""
        if self.connected:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class Clients(Factory):
    """Makes the connections."""

    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: object) -> Client:
        """Make one."""
        return Client(self._link)


def work(handler: Any, batched: bool, link: socket.socket) -> None:
    """Answer frames until the front is gone."""
    data = bytearray()
    while True:
        bodies, size = bodies_in(data)
        if bodies:
            rows = [{"body": body} for body in bodies]
            batches = [rows] if batched else [[row] for row in rows]
            answers = [answer for batch in batches for answer in handler.handle(batch, None)]
            link.sendall(frame([a.encode() if isinstance(a, str) else json.dumps(a).encode() for a in answers]))
            del data[:size]
            continue
        piece = link.recv(max(65536, size - len(data)))
        if not piece:
            return
        data += piece


def serve(case: str, port: int) -> None:
    """Start the worker, and serve on a port of the loopback address."""
    from twisted.internet import reactor

    ours, its = socket.socketpair()
    with its:
        command = [sys.executable, str(Path(__file__).resolve()), case, "work", str(its.fileno())]
        worker = subprocess.Popen(command, pass_fds=[its.fileno()])
    ours.setblocking(False)
    link = Link()
    adopting: Any = reactor
    adopting.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Once(link))
    ours.close()
    adopting.listenTCP(port, Clients(link), backlog=512, interface="127.0.0.1")
    adopting.run()
    worker.wait(10)


class _Once(Factory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: object) -> Link:
        """Give the one there is."""
        return self._link


def main() -> None:
    """Be the front, or its worker."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks.bare import handler_of
    from benchmarks.cases import HANDLERS, case_named

    case = case_named(sys.argv[1])
    if sys.argv[2] == "work":
        with socket.socket(fileno=int(sys.argv[3])) as link:
            work(handler_of(HANDLERS / case.handler), case.batch_size > 1, link)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        serve(case.name, int(sys.argv[2]))


if __name__ == "__main__":
    main()
