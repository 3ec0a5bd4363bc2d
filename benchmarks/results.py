# SPDX-License-Identifier: Apache-2.0
"""
Store measurements, and compute the medians over their rounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from attrs import asdict, frozen

OURS = "twisted_serve"
OPEN = "twisted_serve, tokens off"
THEIRS = "TorchServe"
LOOP = "bare handler loop"
ECHO = "bare twisted.web"
LIMIT = "bare Twisted protocol"


@frozen
class Row:
    """
    One measurement.

    :ivar connections: 0 for what has no connections.
    :ivar cpu_us: Microseconds of all its server's processes for each request.
    :ivar clean: Whether nearly all of it was answers.
    """

    server: str
    case: str
    connections: int
    round: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    clean: bool = True

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What is measured once in a run."""
        return (self.server, self.case, self.connections, self.round)


@frozen
class Footprint:
    """
    A server with one model and one worker, and what another worker adds; sizes in bytes, times in seconds.

    :ivar further: The growth of the sum over all processes for each further worker.
    """

    server: str
    case: str
    round: int
    front: int
    first_worker: int
    further: int
    first_prediction: float
    further_worker: float

    @property
    def key(self) -> tuple[str, str, int]:
        """What is measured once in a run."""
        return (self.server, self.case, self.round)


@frozen
class Loaded:
    """
    What a server with one model and one worker takes right after its last load; sizes in bytes.

    :ivar front: All processes but the workers', as far as these are known: all of them, for other servers than ours
        and TorchServe.
    :ivar workers: All processes but the front's.
    """

    server: str
    case: str
    round: int
    front: int
    workers: int

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What is measured once in a run."""
        return (self.server, self.case, self.round, "loaded")


@frozen
class Paced:
    """
    What our server made of an open load under one of its batch policies.

    :ivar load: The arrivals per second, as a share of what a server with a full queue answers.
    :ivar offered: Arrivals per second.
    :ivar answered: Good answers per second.
    :ivar latencies_ms: Mean, p50, p95 and p99, from the scheduled arrival to a good answer.
    :ivar batch: The mean size of the batches.
    :ivar cpu_us: Microseconds of all the server's processes for each good answer.
    """

    policy: str
    traffic: str
    load: float
    round: int
    offered: float
    answered: float
    latencies_ms: tuple[float, float, float, float]
    batch: float
    cpu_us: float

    @property
    def key(self) -> tuple[str, str, float, int]:
        """The name of a measurement, which is made once in a run."""
        return (self.policy, self.traffic, self.load, self.round)


@frozen
class Called:
    """
    One measurement of gRPC.

    :ivar streams: Calls at a time on each connection.
    :ivar front_us: Microseconds of the server's processes, without those of workers, for each call.
    :ivar cpu_us: Microseconds of all the server's processes for each call.
    :ivar clean: Whether nearly all of it was answers.
    """

    server: str
    call: str
    connections: int
    streams: int
    round: int
    rate: float
    p50_ms: float
    p99_ms: float
    front_us: float
    cpu_us: float
    clean: bool = True

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What is measured once in a run."""
        return (self.server, self.call, self.connections, self.streams, self.round)


@frozen
class Idle:
    """
    The proportional set size, in bytes, of the front of a server that has made one prediction.

    :ivar grpc: Whether it serves gRPC.
    """

    server: str
    grpc: bool
    front: int

    @property
    def key(self) -> tuple[str, str, bool]:
        """What is measured once in a run."""
        return (self.server, "idle", self.grpc)


@frozen
class Scaled:
    """
    A load of our server beside more of something.

    :ivar subject: The thing there is more of.
    :ivar size: How many of it there are.
    :ivar cpu_us: Microseconds of all the server's processes for each request.
    :ivar front: The proportional set size of all processes which are no workers, in bytes, after the load.
    :ivar refused: Requests and connections that had no good answer.
    """

    subject: str
    size: int
    round: int
    rate: float
    p99_ms: float
    cpu_us: float
    front: int
    refused: int

    @property
    def key(self) -> tuple[str, int, int, str]:
        """The name of a measurement, which is made once in a run."""
        return (self.subject, self.size, self.round, "scaled")


#: Everything that is kept.
Measured: TypeAlias = "Row | Footprint | Loaded | Paced | Called | Idle | Scaled"


class Results:
    """
    All that was measured in a run, kept in a file of one JSON object a line, which is written at once.

    :param file: Where it is kept; what is there already counts.
    :raise ValueError: for a line that is no measurement.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows: list[Row] = []
        self.footprints: list[Footprint] = []
        self.loaded: list[Loaded] = []
        self.paced: list[Paced] = []
        self.called: list[Called] = []
        self.idle: list[Idle] = []
        self.scaled: list[Scaled] = []
        self.machine: dict[str, Any] = {}
        for line in file.read_text().splitlines() if file.exists() else ():
            self._take(json.loads(line))

    def add(self, measured: Measured) -> None:
        """Keep a measurement."""
        self._append({type(measured).__name__: asdict(measured)})

    def describe(self, machine: dict[str, Any]) -> None:
        """Keep what is known of the machine."""
        self._append({"machine": machine})

    def _append(self, document: dict[str, Any]) -> None:
        self._take(document)
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")

    def _take(self, document: dict[str, Any]) -> None:
        [(kind, members)] = document.items()
        if kind == "Row":
            self.rows.append(Row(**members))
        elif kind == "Footprint":
            self.footprints.append(Footprint(**members))
        elif kind == "Loaded":
            self.loaded.append(Loaded(**members))
        elif kind == "Paced":
            self.paced.append(Paced(**{**members, "latencies_ms": tuple(members["latencies_ms"])}))
        elif kind == "Called":
            self.called.append(Called(**members))
        elif kind == "Idle":
            self.idle.append(Idle(**members))
        elif kind == "Scaled":
            self.scaled.append(Scaled(**members))
        elif kind == "machine":
            self.machine = members
        else:
            raise ValueError(f"{self._file} has a {kind}, which is no measurement of this benchmark")

    def has(self, key: tuple[Any, ...]) -> bool:
        """Say whether something has been measured already."""
        kept = (*self.rows, *self.footprints, *self.loaded, *self.paced, *self.called, *self.idle, *self.scaled)
        return any(each.key == key for each in kept)

    def best(self, server: str, case: str, connections: int) -> Row | None:
        """Return the medians of the clean rounds."""
        found = [
            row
            for row in self.rows
            if (row.server, row.case, row.connections) == (server, case, connections) and row.clean
        ]
        if not found:
            return None
        middle = {name: median(getattr(row, name) for row in found) for name in ("rate", "p50_ms", "p99_ms", "cpu_us")}
        return Row(server, case, connections, 0, **middle)

    def footprint(self, server: str, case: str) -> Footprint | None:
        """Return the medians of the rounds."""
        found = [each for each in self.footprints if (each.server, each.case) == (server, case)]
        if not found:
            return None
        sizes = {name: int(median(getattr(f, name) for f in found)) for name in ("front", "first_worker", "further")}
        times = {name: median(getattr(f, name) for f in found) for name in ("first_prediction", "further_worker")}
        return Footprint(server, case, 0, **sizes, **times)

    def after_load(self, server: str, case: str) -> Loaded | None:
        """Return the medians of the rounds; there are none in results from before this was measured."""
        found = [each for each in self.loaded if (each.server, each.case) == (server, case)]
        if not found:
            return None
        return Loaded(
            server, case, 0, int(median(each.front for each in found)), int(median(each.workers for each in found))
        )

    def servers(self) -> list[str]:
        """List whom there are measurements of, in order."""
        return list(dict.fromkeys(row.server for row in self.rows))
