# SPDX-License-Identifier: Apache-2.0
"""
Run a server whose every effect is written down, to compare two ways of requests through it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from tests.auth.named.keys_case import KeyedServer
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.listening.roles import Role
from twisted_serve.testing.server import MemoryServer
from twisted_serve.wire.messages import Item, Job

CONNECTIONS = 2

# Answers by the first byte of a body.
ANSWERS: dict[bytes, Callable[[str, bytes], Item]] = {
    b"h": lambda name, body: Item(name, 200, "", {"Content-Type": "text/plain", "X-Own": "ü", "Date": "no"}, body),
    b"p": lambda name, body: Item(name, 200, "Fine\r\n", {}, body),
    b"s": lambda name, body: Item(name, 201, "", {"a": "b"}, body),
    b"n": lambda name, body: Item(name, 204, "", {}, body),
    b"e": lambda name, body: Item(name, 500, "", {}, body),
    b"l": lambda name, body: Item(name, 200, "", {"x": "y" * 2000}, body),
    b"u": lambda name, body: Item(name, 200, "", {"\u20ac": "no header"}, body),
    b"f": lambda name, body: Item(name, 0, "", {}, b"", flaw="no JSON"),
}


def respond(jobs: list[Job]) -> list[Item] | Exception:
    """Answer as the bodies say."""
    bodies = [job.parts[0].value if job.parts else b"" for job in jobs]
    if b"r" in [body[:1] for body in bodies]:
        return WorkerFailed(503, "The handler raised", "ValueError: x (handler.py, line 1)")
    plain = ANSWERS[b"h"]
    return [ANSWERS.get(body[:1], plain)(job.request_id, body) for job, body in zip(jobs, bodies, strict=True)]


class World:
    """
    A server with two connections, whose every effect is written down.

    :ivar seen: What happened, in order.
    :ivar clock: The reactor of the server; ``None`` for a new one in memory.
    """

    clock: Any = None

    def __init__(self, fast_lane: bool, tokens: bool, holding: bool) -> None:
        random.seed(13)
        self.seen: list[object] = []
        self.revoked = False
        options = {"fast_lane": fast_lane, "job_queue_size": 2, "keepalive_timeout": 50}
        if tokens:
            self.server: MemoryServer = KeyedServer(options, respond=respond, models={"m": {}}, clock=self.clock)
        else:
            options["disable_token_authorization"] = True
            self.server = MemoryServer(options, respond=respond, models={"m": {}}, clock=self.clock)
        self.workers = self.server.provider
        # No worker answers before a batch has been sent; if one did, lines about both would be in another order.
        self.workers.answer_delay = 0.001
        for worker in self.workers.workers:
            worker.holding = holding
        self.keys = self._keys() if tokens else dict.fromkeys((b"INFERENCE", b"MANAGEMENT", b"NAMED", b"OTHER"), b"x")
        self.connections: list[Any] = [self.connect() for _ in range(CONNECTIONS)]
        self._observer = cast(ILogObserver, self._log)
        globalLogPublisher.addObserver(self._observer)

    @staticmethod
    def masked(received: bytes) -> bytes:
        """Return bytes without their dates, which are the machine's."""
        return re.sub(rb"\r\nDate: [^\r]*", b"", received)

    def connect(self) -> Any:
        """Connect a client."""
        return self.server.connect()

    def _keys(self) -> dict[bytes, bytes]:
        keys = {kind.name.encode(): self.server.key(kind).encode() for kind in TokenKind}
        if isinstance(self.server, KeyedServer):
            for name, scope in (("NAMED", "inference:m"), ("OTHER", "inference:x*")):
                keys[name.encode()] = self.server.put(name, scope, rate=3, concurrent=1).encode()
        return keys

    def revoke(self) -> None:
        """Revoke the named key."""
        if isinstance(self.server, KeyedServer) and not self.revoked:
            self.revoked = True
            self.server.revoke("NAMED")

    def _log(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("twisted_serve"):
            text = re.sub(" at 0x[0-9a-f]+", "", formatEvent(event))
            self.seen.append((event.get("logger_name"), text, event.get("fields")))

    def close(self) -> None:
        """End the server."""
        globalLogPublisher.removeObserver(self._observer)
        self.server.close()

    def do(self, what: str, *arguments: Any) -> None:
        """Take a step."""
        getattr(self, what)(*arguments)
        self.seen += [(connection.open, self.masked(connection.received)) for connection in self.connections]
        self.seen.append([deepcopy((each.batches, each.cancelled, each.paused)) for each in self.workers.workers])

    def send(self, number: int, data: bytes, cuts: Sequence[int]) -> None:
        """Send bytes on a connection, in several reads, with the words for keys replaced by keys."""
        for word, key in self.keys.items():
            data = data.replace(b"<%s>" % word, key)
        ends = sorted({min(each, len(data)) for each in cuts} | {len(data)})
        for begin, end in zip([0, *ends], ends, strict=False):
            self.connections[number].send(data[begin:end])
            self.server.advance(0.002)

    def leave(self, number: int) -> None:
        """Disconnect, and connect again."""
        self.connections[number].leave()
        self.connections[number] = self.connect()

    def stop_reading(self, number: int) -> None:
        """Read no answers."""
        self.connections[number].stop_reading()

    def read_on(self, number: int) -> None:
        """Read answers again."""
        self.connections[number].read_on()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.server.advance(seconds)

    def answer(self) -> None:
        """Let each worker that holds a batch answer it."""
        for worker in self.workers.alive:
            worker.answer()

    def chunk(self) -> None:
        """Send a part of an answer."""
        for worker in self.workers.alive:
            for batch in worker.running[:1]:
                worker.chunk(Item(batch[0].request_id, 200, "", {"content-type": "text/event-stream"}, b"part"))

    def kill(self) -> None:
        """End each worker."""
        for worker in self.workers.alive:
            worker.kill()

    def finish_up(self) -> None:
        """Close idle connections, as a server that stops does."""
        site: Any = self.server.site_of(Role.INFERENCE)
        site.finish_up()


def counters(world: World) -> list[str]:
    """Return the metrics of a server, without those of its process."""
    text = world.server.request("GET", "/metrics", role=Role.METRICS).body.decode()
    return [line for line in text.splitlines() if "process_" not in line]


def outcome(world: World, steps: Sequence[tuple[Any, ...]]) -> list[object]:
    """Return all that happens in a world, which ends with it."""
    try:
        for what, *arguments in steps:
            world.do(what, *arguments)
        world.advance(1.0)
        return [*world.seen, counters(world)]
    finally:
        world.close()
