# SPDX-License-Identifier: Apache-2.0
"""
Run a whole server through an hour in which workers die, hang and fail to load, clients leave, and models are scaled.

Time is virtual and randomness is seeded, so the hour takes seconds and is reproducible.
"""

from __future__ import annotations

import gc
import random
from collections import Counter
from itertools import product

import pytest
from twisted.logger import Logger

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.fakes import echo
from twisted_serve.testing.server import MemoryConnection, MemoryServer, Role
from twisted_serve.wire.messages import Item, Job

# So many ways to fail there are: statuses and reasons.
FAILURES = 12
HOUR = 3600

# The expected statuses: success, timeout, the handler's error or a worker's death, no worker, worker killed.
KNOWN = {200, 408, 500, 503, 507}

_log = Logger()


class Client:
    """A client with a connection; it sends one request after the other, and records the responses."""

    def __init__(self, server: MemoryServer) -> None:
        self.connection: MemoryConnection = server.connect()
        self.sent = 0
        self.left = False
        self._bearer = server.key(TokenKind.INFERENCE)

    @property
    def statuses(self) -> list[int]:
        return [int(piece[:3]) for piece in self.connection.received.split(b"HTTP/1.1 ")[1:]]

    @property
    def waiting(self) -> bool:
        """Whether no part of the response to the last request has arrived."""
        return len(self.statuses) < self.sent

    @property
    def streaming(self) -> bool:
        """Whether the last response is a stream that has not ended."""
        last = self.connection.received.rpartition(b"HTTP/1.1 ")[2]
        return b"chunked" in last and not last.endswith(b"\r\n0\r\n\r\n")

    def ask(self, body: bytes, timeout: int | None) -> None:
        limit = "" if timeout is None else f"X-Request-Timeout-Ms: {timeout}\r\n"
        head = f"POST /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {self._bearer}\r\n{limit}"
        self.sent += 1
        self.connection.send(head.encode() + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def leave(self) -> None:
        self.left = True
        self.connection.leave()


class Hour:
    """The events of an hour, by a seed."""

    def __init__(self, server: MemoryServer, seed: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.clients: list[Client] = []
        self.answers: Counter[int] = Counter()
        self.happened: Counter[str] = Counter()
        server.provider.respond = self.respond
        server.provider.answer_delay = 0.3

    def respond(self, jobs: list[Job]) -> list[Item] | Exception:
        return WorkerFailed(500, "It raised.") if self.chance.random() < 0.1 else echo(jobs)

    def pass_by(self, seconds: float) -> None:
        """Let the time pass, with an event about every second."""
        end = self.server.clock.seconds() + seconds
        while self.server.clock.seconds() < end:
            for _ in range(self.chance.choice((0, 1, 1, 2, 6))):
                self.ask()
            self.misfortune()
            self.server.advance(self.chance.expovariate(1.0))
            self.look()

    def ask(self) -> None:
        idle = [
            client for client in self.clients if client.connection.open and not (client.waiting or client.streaming)
        ]
        if not idle or self.chance.random() < 0.3:
            idle = [Client(self.server)]
            self.clients += idle
        # Few bodies, so that some are remembered as deadly.
        timeout = self.chance.choice((None, None, 100, 5000))
        self.chance.choice(idle).ask(b"body %d" % self.chance.randrange(500), timeout)

    def misfortune(self) -> None:
        what = self.chance.choice(
            ("nothing", "nothing", "nothing", "kill", "hang", "answer", "chunk", "load", "scale", "leave")
        )
        self.happened[what] += 1
        busy = [worker for worker in self.server.provider.alive if worker.busy]
        if what == "kill" and self.server.provider.alive:
            self.chance.choice(busy or self.server.provider.alive).kill(self.chance.random() < 0.5)
        elif what == "hang" and self.server.provider.alive:
            self.chance.choice(self.server.provider.alive).holding = True
        elif what == "answer" and busy:
            self.chance.choice(busy).answer()
        elif what == "chunk" and busy:
            worker = self.chance.choice(busy)
            worker.chunk(Item(self.chance.choice(worker.batches[-1]).request_id, 200, "", {}, b"a part"))
        elif what == "load":
            provider = self.server.provider
            provider.load_error = WorkerFailed(500, "It is broken.") if self.chance.random() < 0.3 else None
            provider.load_delay = self.chance.choice((0.0, 0.5, 20.0, None))
        elif what == "scale":
            low = self.chance.randrange(4)
            self.scale(low, low + self.chance.randrange(3))
        elif what == "leave" and self.clients:
            self.chance.choice(self.clients).leave()

    def scale(self, low: int, high: int) -> None:
        key = self.server.key(TokenKind.MANAGEMENT)
        connection = self.server.connect(Role.MANAGEMENT)
        connection.send(
            f"PUT /models/m?min_worker={low}&max_worker={high} HTTP/1.1\r\nHost: h\r\n"
            f"Authorization: Bearer {key}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        assert connection.received.startswith(b"HTTP/1.1 202 "), connection.received

    def look(self) -> None:
        """Count the responses of clients that are done, and remove these clients."""
        for client in list(self.clients):
            assert set(client.statuses) <= KNOWN, client.statuses
            if client.left or not client.connection.open:
                assert client.left or not client.waiting
                self.answers.update(client.statuses)
                self.clients.remove(client)

    def calm(self) -> None:
        """Stop causing faults, and check that the server recovers and answers all pending requests."""
        provider = self.server.provider
        provider.load_error, provider.load_delay, provider.holding = None, 0.0, False
        self.server.provider.respond = echo
        self.scale(2, 2)
        for _ in range(2 * HOUR // 5):
            self.server.advance(5)
            for worker in provider.alive:
                worker.load()
        self.look()
        assert [client for client in self.clients if client.waiting or client.streaming] == []
        for client in self.clients:
            client.leave()
        self.look()
        connection = self.server.connect()
        assert connection.get("/readyz") == 200
        connection.leave()
        assert len(provider.alive) == 2
        # Fakes keep batches, for tests to look at: new ones have none.
        self.scale(0, 0)
        self.scale(2, 2)
        assert len(provider.alive) == 2
        provider.workers[:] = provider.alive


def living() -> Counter[str]:
    """Count the live objects of this package by class."""
    # Until logging begins, Twisted buffers this many events, and the objects they refer to.
    for _ in range(1 << 16):
        _log.debug("")
    gc.collect()
    ours = (type(each) for each in gc.get_objects() if str(type(each).__module__).startswith("twisted_serve"))
    return Counter(kind.__name__ for kind in ours)


@pytest.mark.parametrize("seed", range(2))
def test_an_hour(seed: int) -> None:
    """Whatever happens in an hour, each request is answered, and in the end no objects are leaked."""
    options = {
        "token_expiration_min": 1000,
        "default_response_timeout": 10,
        "default_startup_timeout": 60,
        "scale_idle_time": 20,
        "circuit_retry_time": 60,
        "job_queue_size": 20,
    }
    model = {"model-config.yaml": "batchSize: 4\nmaxRetryTimeoutInSec: 30\n"}
    with MemoryServer(options, models={"m": model}) as server:
        hour = Hour(server, seed)
        # All that a cache of targets may hold.
        for low, more in product(range(4), range(3)):
            hour.scale(low, low + more)
        hour.pass_by(60)
        hour.calm()
        before, timers, objects = living(), len(server.clock.getDelayedCalls()), len(gc.get_objects())
        pids = {worker.pid for worker in server.provider.workers}
        hour.pass_by(HOUR)
        hour.calm()
        after = living()
        # One for each way in which a request can fail, from when it first happened.
        assert 0 <= after.pop("CounterValue") - before.pop("CounterValue") <= FAILURES
        assert after == before
        assert len(server.clock.getDelayedCalls()) == timers
        # Counters, and what Twisted and Python remember, may have grown by a little; there were thousands of requests.
        assert len(gc.get_objects()) - objects < 500
        assert pids.isdisjoint(worker.pid for worker in server.provider.workers)
    assert sum(hour.answers.values()) > HOUR
    assert set(hour.answers) == KNOWN
    assert min(hour.happened.values()) > HOUR // 30


def test_living() -> None:
    """What is left is seen."""
    with MemoryServer(models={"m": {}}) as server:
        before = living()
        connection = server.connect()
        assert (living() - before)["ServeChannel"] == 1
        connection.leave()
