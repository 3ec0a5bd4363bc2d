# SPDX-License-Identifier: Apache-2.0
"""
Kill fronts, workers, templates and servers under load, and show what clients notice.

A connection whose process lives on has to be answered, and of what was killed nothing may be left.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import psutil
from attrs import define, field

from benchmarks.cases import case_named
from benchmarks.processes import exit_on_signals
from benchmarks.servers import OURS, Peer, Running, start
from benchmarks.soak import DELAYED, RECOVERY, Look, settled, whole, workers_of
from twisted_serve.backend.template.after_load import TEMPLATE_NAME

FRONTS = 2
WORKERS = 2
# That of the model, and the one that it is forked from.
TEMPLATES = 2
CONNECTIONS = 16
# Seconds between two requests of a connection: the load leaves processors for what starts again.
PAUSE = 0.002
# What a process is killed as often as, unless the command says something else.
TIMES = 50
# Responses that each connection has had between two deaths.
BETWEEN_DEATHS = 3
# Responses after which a client opens another connection, so that all fronts have some, new ones, too.
RENEWED = 100
# Seconds in which a server's processes have ended after it.
LAST_END = 10.0

KINDS = ("front", "worker", "template", "server")


@define
class Outcome:
    """
    What came of all deaths of one kind.

    :ivar deaths: How many processes were killed.
    :ivar broken: Connections that broke whose process was killed.
    :ivar wrong: What should not have been.
    """

    deaths: int = 0
    requests: int = 0
    broken: int = 0
    wrong: list[str] = field(factory=list)


class Client(threading.Thread):
    """
    Asks on one connection again and again, and on another one when it breaks.

    :param renewing: Whether it opens another connection now and then.
    :ivar statuses: The responses, by status.
    :ivar broken: The ports here of connections that broke.
    :ivar port: That of the connection; 0 while there is none.
    """

    def __init__(self, running: Running, enough: threading.Event, renewing: threading.Event) -> None:
        super().__init__(daemon=True)
        self.statuses: Counter[int] = Counter()
        self.broken: list[int] = []
        self.port = 0
        self._enough, self._renewing = enough, renewing
        host, _, port = running.url.removeprefix("http://").partition("/")[0].partition(":")
        self._address = host, int(port)
        path = running.url.removeprefix(f"http://{host}:{port}")
        head = [f"GET {path} HTTP/1.1", "Host: h", f"Authorization: Bearer {running.keys['inference']}", "", ""]
        self._request = "\r\n".join(head).encode()

    def run(self) -> None:
        """See `threading.Thread`."""
        while not self._enough.is_set():
            self._ask_on_one()

    def _ask_on_one(self) -> None:
        try:
            with socket.create_connection(self._address, timeout=30) as connection:
                self.port = connection.getsockname()[1]
                self._ask_on(connection)
        except OSError:
            self.broken.append(self.port)
            time.sleep(0.05)

    def _ask_on(self, connection: socket.socket) -> None:
        for number in count():
            if self._enough.is_set() or (number >= RENEWED and self._renewing.is_set()):
                return
            connection.sendall(self._request)
            received = b""
            while b"\r\n\r\n" not in received or len(received) < _size(received):
                data = connection.recv(1 << 16)
                if not data:
                    raise ConnectionError("the connection has ended")
                received += data
            self.statuses[int(received.split(b" ", 2)[1])] += 1
            if b"\r\nConnection: close\r\n" in received:
                return
            time.sleep(PAUSE)


def _size(received: bytes) -> int:
    """Return the size of a response whose head has been received."""
    head = received.partition(b"\r\n\r\n")[0]
    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(head) + 4 + int(lengths[0])


class Load:
    """
    Some clients at work.

    :ivar renewing: Whether they open other connections now and then.
    """

    def __init__(self, running: Running) -> None:
        self._enough, self.renewing = threading.Event(), threading.Event()
        self.renewing.set()
        self.clients = [Client(running, self._enough, self.renewing) for _ in range(CONNECTIONS)]
        for client in self.clients:
            client.start()

    def end(self) -> None:
        """Have no further request asked."""
        self._enough.set()
        for client in self.clients:
            client.join()

    def responses(self) -> list[int]:
        """Count the responses with status 200 of each client."""
        return [client.statuses[200] for client in self.clients]

    def goes_on(self) -> bool:
        """Wait until each client has had a few more responses."""
        before = self.responses()
        return _until(
            lambda: all(now >= then + BETWEEN_DEATHS for now, then in zip(self.responses(), before, strict=True))
        )


def _until(condition: Callable[[], bool], seconds: float = RECOVERY) -> bool:
    """Wait for a condition; return whether it has come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def ports_of(pid: int) -> set[int]:
    """Return the clients' ports of the connections that a process has."""
    return {each.raddr.port for each in psutil.Process(pid).net_connections("tcp") if each.raddr}


def processes_of(running: Running, kind: str) -> list[int]:
    """Return the processes of one kind."""
    if kind == "server":
        return [running.group.leader.pid]
    if kind == "worker":
        return workers_of(running)
    children = psutil.Process(running.group.leader.pid).children(recursive=True)
    if kind == "template":
        return [child.pid for child in children if child.name() == TEMPLATE_NAME]
    return [child.pid for child in children if any("twisted_serve.fronts" in word for word in child.cmdline())]


def is_ready(running: Running, load: Load) -> bool:
    """Return whether all processes are there, and all connections in fronts."""
    ports = {client.port for client in load.clients}
    try:
        fronts, templates = processes_of(running, "front"), processes_of(running, "template")
        counts = [len(ports & ports_of(pid)) for pid in fronts]
    except psutil.Error:
        # A process has ended meanwhile.
        return False
    return (
        len(fronts) == FRONTS
        and len(templates) == TEMPLATES
        and min(counts) >= CONNECTIONS // 4
        and sum(counts) == CONNECTIONS
        and whole(running, WORKERS)
    )


def kill_some(running: Running, kind: str, times: int, chance: random.Random, outcome: Outcome) -> None:
    """Kill processes of one kind under load, one after the other, and note what came of it."""
    time.sleep(1.0)
    first = Look.at(running)
    load = Load(running)
    doomed: set[int] = set()
    for number in range(times):
        if not _until(lambda: is_ready(running, load)) or not load.goes_on():
            outcome.wrong.append(f"{kind} {number}: the service was not whole after {RECOVERY:g} seconds")
            break
        load.renewing.clear()
        load.goes_on()
        victim = psutil.Process(chance.choice(processes_of(running, kind)))
        # What it has does not change any more.
        victim.suspend()
        doomed |= ports_of(victim.pid)
        victim.kill()
        outcome.deaths += 1
        # Connections that are opened meanwhile may be given to the process that ends.
        victim.wait(RECOVERY)
        time.sleep(0.1)
        load.renewing.set()
    if not _until(lambda: is_ready(running, load)) or not load.goes_on():
        outcome.wrong.append(f"after the last {kind} the service was not whole")
    load.end()
    _judge(load, doomed, kind, outcome)
    outcome.wrong += [f"after {outcome.deaths} of {kind}: {grown}" for grown in settled(running, first).exceeds(first)]


def _judge(load: Load, doomed: set[int], kind: str, outcome: Outcome) -> None:
    for client in load.clients:
        outcome.requests += sum(client.statuses.values())
        outcome.broken += len(set(client.broken) & doomed)
        others = set(client.broken) - doomed
        if others:
            outcome.wrong.append(f"{kind}: {len(others)} connections broke whose process lived")
        refused = {status: count for status, count in client.statuses.items() if status != 200}
        if refused:
            outcome.wrong.append(f"{kind}: requests were refused: {refused}")


def kill_server(running: Running, outcome: Outcome) -> None:
    """Kill a server under load, and see that nothing of it is left."""
    load = Load(running)
    if not _until(lambda: is_ready(running, load)) or not load.goes_on():
        outcome.wrong.append("server: it was not whole")
    running.group.pids()
    running.group.leader.kill()
    running.group.leader.wait()
    outcome.deaths += 1
    if not _until(lambda: not running.group.pids(), LAST_END):
        outcome.wrong.append(f"server: {len(running.group.pids())} processes are left")
    load.end()
    doomed = {port for client in load.clients for port in client.broken}
    _judge(load, doomed, "server", outcome)


def begin(work: Path, number: int) -> Running:
    """Start a server in a directory of its own."""
    ours = (str(Path(__file__).with_name("delayed_calls.py")), DELAYED)
    peer = Peer("twisted_serve", "torchserve", OURS)
    running = start(peer, case_named("noop"), work / f"server-{number}", f"front_processes={FRONTS}\n", ours)
    running.scale(WORKERS)
    return running


def main(arguments: Sequence[str]) -> int:
    """
    Run the command.

    :return: 1 if anything is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument(
        "--times", type=int, default=TIMES, help=f"how often a process of each kind is killed ({TIMES})"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which are killed (all)")
    parser.add_argument("--seed", type=int, default=0, help="which of several processes are killed (0)")
    said = parser.parse_args(arguments)
    exit_on_signals()
    outcomes = {kind: Outcome() for kind in said.kinds}
    chance = random.Random(said.seed)
    with tempfile.TemporaryDirectory(prefix="twisted_serve-chaos-") as work:
        print("| killed | times | responses | connections of the killed | wrong |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for kind, outcome in outcomes.items():
            for number in range(said.times if kind == "server" else 1):
                running = begin(Path(work) / kind, number)
                try:
                    if kind == "server":
                        kill_server(running, outcome)
                    else:
                        kill_some(running, kind, said.times, chance, outcome)
                finally:
                    running.stop()
            wrong = len(outcome.wrong)
            print(f"| {kind} | {outcome.deaths} | {outcome.requests} | {outcome.broken} | {wrong} |", flush=True)
    wrong_ones = [text for outcome in outcomes.values() for text in outcome.wrong]
    print("\n".join(wrong_ones) or "Nothing was wrong.")
    return 1 if wrong_ones else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
