# SPDX-License-Identifier: Apache-2.0
"""
Measure what grows with the number of front processes, connections, models and keys (``make bench SCALE=1``).

Each run adds a round to the results; tables show the medians.  Where two sizes are compared, both servers run at the
same time and loads alternate between them.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import attrs

from benchmarks.cases import Case, build_archive, case_named
from benchmarks.load import Load
from benchmarks.processes import exit_on_signals
from benchmarks.results import Results, Scaled
from benchmarks.scaling import scaling
from benchmarks.servers import OURS, DidNotStartError, Peer, Running, start
from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.named.records import NamedKey
from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.auth.named.secrets import fresh_secret
from twisted_serve.auth.named.store import KeyStore
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.command.run import raise_descriptor_limit

HERE = Path(__file__).resolve().parent

FRONTS = (0, 1, 2, 4)
CONNECTIONS = (1, 10, 100, 1000, 10_000)
MODELS = (1, 200)
NAMED_KEYS = (3, 4, 10_000)

# The connections of the load beside which there is something many of.
ACTIVE = 64

_NOOP = case_named("noop")
_PEER = Peer("twisted_serve", "torchserve", OURS)


class IdleClients:
    """Connections of clients, each of which has had an answer and keeps its connection open."""

    def __init__(self, running: Running) -> None:
        place = urlsplit(running.url)
        self._address = (place.hostname or "", place.port or 0)
        name, value = running.secret or ("X-None", "-")
        self._request = f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n{name}: {value}\r\n\r\n".encode()
        self._open: list[socket.socket] = []

    def grow(self, number: int) -> int:
        """Have so many connections that were answered, as far as possible; return how many were refused."""
        refused = 0
        for _ in range(number - len(self._open)):
            with suppress(OSError):
                client = socket.create_connection(self._address, timeout=30)
                if self._answered(client):
                    self._open.append(client)
                    continue
                client.close()
            refused += 1
        return refused

    def lost(self) -> int:
        """Ask once more on each connection; return how many gave no answer."""
        lost = 0
        for client in self._open:
            lost += not self._answered(client)
        return lost

    def _answered(self, client: socket.socket) -> bool:
        with suppress(OSError):
            return self._ask(client)
        return False

    def _ask(self, client: socket.socket) -> bool:
        client.sendall(self._request)
        data = b""
        while not data.endswith(b"\r\n\r\nok"):
            piece = client.recv(65536)
            if not piece or len(data) > 65536:
                return False
            data += piece
        return data.startswith(b"HTTP/1.1 200 ")

    def close(self) -> None:
        """Close all of them."""
        for client in self._open:
            client.close()


class Scale:
    """
    One round.

    :param seconds: How long each load lasts.
    :param loads: How often each server has it.
    :param work: Where servers get their directories.
    """

    def __init__(self, results: Results, seconds: float, loads: int, work: Path, say: Callable[[str], None]) -> None:
        self._results = results
        self._round = 1 + max((each.round for each in results.scaled), default=0)
        self._seconds = seconds
        self._loads = loads
        self._work = work
        self._say = say
        self._count = 0

    def fronts(self) -> None:
        """Measure up to 4 processes for connections, with MLP requests and no-op ones."""
        for case in (_NOOP, case_named("mlp32")):
            with ExitStack() as stack:
                servers = {n: self._started(stack, f"front_processes={n}\n", case) for n in FRONTS}
                self._compare(f"front processes, {case.title}", servers)

    def connections(self, sizes: Sequence[int]) -> None:
        """Measure requests, and the front's memory, beside idle connections."""
        with ExitStack() as stack:
            running = self._started(stack, f"max_connections={max(sizes) + 2 * ACTIVE}\nkeepalive_timeout=600\n")
            clients = IdleClients(running)
            stack.callback(clients.close)
            running.load(ACTIVE, self._seconds)
            for size in sizes:
                refused = clients.grow(size)
                costs = [running.cost(ACTIVE, self._seconds) for _ in range(self._loads)]
                lost = clients.lost()
                self._keep("idle connections", size, running, costs, refused + lost)

    def models(self, sizes: Sequence[int]) -> None:
        """Measure requests to one of many models, each with a worker."""
        with ExitStack() as stack:
            servers = {}
            for size in sizes:
                servers[size] = running = self._started(stack, "")
                for number in range(1, size):
                    other = attrs.evolve(_NOOP, name=f"other{number}")
                    build_archive(other, running.directory / "store")
                    running.register(other)
            self._compare("models", servers)

    def keys(self, sizes: Sequence[int]) -> None:
        """Measure requests with one of the three keys, and with a named key, beside many named keys."""
        with ExitStack() as stack:
            servers, holders = {}, {}
            for size in sizes:
                path = self._work / f"keys-{size}.json"
                named = size - len(TokenKind)
                if named > 0:
                    holders[size] = make_keys(path, named)
                servers[size] = self._started(stack, f"token_store={path}\n" if named > 0 else "")
            self._compare("keys, one of the three used", servers)
            for size, secret in holders.items():
                servers[size].keys["inference"] = secret
            self._compare("keys, a named one used", {size: servers[size] for size in holders})

    def _started(self, stack: ExitStack, properties: str, case: Case = _NOOP) -> Running:
        self._count += 1
        running = start(_PEER, case, self._work / f"{os.getpid()}-{self._count}", properties)
        stack.callback(shutil.rmtree, running.directory, ignore_errors=True)
        stack.callback(running.stop)
        return running

    def _compare(self, subject: str, servers: dict[int, Running]) -> None:
        """Let loads alternate between servers of several sizes."""
        costs: dict[int, list[tuple[Load, float]]] = {size: [] for size in servers}
        for running in servers.values():
            running.load(ACTIVE, self._seconds)
        for turn in range(self._loads):
            for size in list(servers)[:: -1 if turn % 2 else 1]:
                costs[size].append(servers[size].cost(ACTIVE, self._seconds))
        for size, running in servers.items():
            self._keep(subject, size, running, costs[size], 0)

    def _keep(self, subject: str, size: int, running: Running, costs: list[tuple[Load, float]], refused: int) -> None:
        loads = [load for load, _ in costs]
        refused += sum(load.refused + load.broken for load in loads)
        scaled = Scaled(
            subject,
            size,
            self._round,
            round(median(load.rate for load in loads), 1),
            round(median(load.p99_ms for load in loads), 3),
            round(median(cpu for _, cpu in costs), 1),
            running.settled_front(),
            refused,
        )
        self._results.add(scaled)
        self._say(
            f"{subject:32} {size:6}  {scaled.rate:10.1f}/s  {scaled.cpu_us:.1f} µs  "
            f"front {scaled.front / 1e6:.1f} MB  {refused} refused"
        )


def make_keys(path: Path, number: int) -> str:
    """Write a store of so many named keys, which open predictions, and return the secret of one."""
    now = datetime.now(timezone.utc)
    texts = [fresh_secret(secrets.token_bytes) for _ in range(number)]
    records = [
        NamedKey(
            f"consumer-{n}",
            sha256(text.encode()).hexdigest(),
            KeyScopes(("inference",)),
            now,
            now + timedelta(days=1),
        )
        for n, text in enumerate(texts)
    ]
    KeyStore(path).transaction(lambda _: KeyRecords(records))
    return texts[-1]


def main() -> int:
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench SCALE=1", description=__doc__)
    parser.add_argument("--subjects", nargs="*", default=["fronts", "connections", "models", "keys"])
    parser.add_argument("--connections", type=int, nargs="+", default=list(CONNECTIONS))
    parser.add_argument("--models", type=int, nargs="+", default=list(MODELS))
    parser.add_argument("--keys", type=int, nargs="+", default=list(NAMED_KEYS))
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each load lasts (2)")
    parser.add_argument("--loads", type=int, default=4, help="how many loads each size has (4)")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "latest.jsonl")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk, which makes the load, is not installed: nothing can be measured.", file=sys.stderr)
        return 1
    exit_on_signals()
    raise_descriptor_limit()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.results)
    failed = False
    with tempfile.TemporaryDirectory(prefix="twisted-serve-scale-") as work:
        scale = Scale(results, arguments.seconds, arguments.loads, Path(work), lambda line: print(line, flush=True))
        parts: dict[str, Callable[[], None]] = {
            "fronts": scale.fronts,
            "connections": lambda: scale.connections(arguments.connections),
            "models": lambda: scale.models(arguments.models),
            "keys": lambda: scale.keys(arguments.keys),
        }
        for subject in arguments.subjects:
            began = time.monotonic()
            try:
                parts[subject]()
            except (OSError, ValueError, DidNotStartError) as e:
                failed = True
                print(f"{subject}: {type(e).__name__}: {e}", file=sys.stderr)
            print(f"{subject}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"\n{scaling(results.scaled)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
