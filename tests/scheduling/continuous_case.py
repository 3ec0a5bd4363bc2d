# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the tests of continuous batching: a handler that counts letters, and its clients."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock

from tests.specs import worker_spec
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.metrics.timing import Timing
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeProvider, FakeWorker, Respond
from twisted_serve.wire.messages import Item, Job, Part

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


@define(eq=False)
class Client:
    """A client with its request, the chunks that it has received, and the outcome."""

    request_id: str
    wanted: int
    pieces: list[bytes] = field(factory=list)
    answers: list[Any] = field(factory=list)
    answer: Deferred[Any] = field(factory=Deferred)
    producer: IPushProducer | None = None

    @property
    def text(self) -> bytes:
        """The chunks and the response so far."""
        return b"".join([*self.pieces, *(each.body for each in self.answers if isinstance(each, Item))])

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        self.producer = producer
        self.pieces.append(item.body)

    def done(self, result: Any) -> None:
        self.answers.append(getattr(result, "value", result))


class Generator:
    """A handler: gives each request as many letters as its body says, one for each call."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.given: dict[str, int] = {}

    def __call__(self, jobs: list[Job]) -> list[Item]:
        # A request that is not in this batch has left.
        self.left = {each: left for each, left in self.left.items() if each in {job.request_id for job in jobs}}
        items = []
        for job in jobs:
            if job.parts:
                assert job.request_id not in self.left, "given its inputs twice"
                self.left[job.request_id] = int(job.parts[0].value)
                self.given[job.request_id] = 0
            letter = b"%c" % (97 + self.given[job.request_id])
            self.given[job.request_id] += 1
            self.left[job.request_id] -= 1
            items.append(Item(job.request_id, 200, "", {}, letter, more=self.left[job.request_id] > 0))
        return items


class Seen(PoolObserver):
    """An observer that records the sizes of batches and the timings of finished requests."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.finished: list[tuple[float | None, float | None]] = []

    def batch_sent(self, batch: Sequence[Timing], overhead: float, going: int = 0) -> None:
        self.sizes.append(len(batch) + going)

    def batch_answered(self, batch: Sequence[Timing], overhead: float) -> None:
        self.finished += [(timing.waited, timing.worked) for timing in batch]


class Scene:
    """A pool with fake workers that hold their batches until told otherwise; each has its own handler."""

    def __init__(self, workers: int = 1, holding: bool = True, respond: Respond | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.handlers: dict[FakeWorker, Generator] = {}
        self.provider = FakeProvider(self.clock, respond=respond or Generator())
        self.provider.holding = holding
        self.observer = Seen()
        ids, self.ids = count(9000), count(1)
        self.pool = Pool(
            worker_spec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 120.0, continuous=True),
            ModelSettings(**{"min_workers": workers, "max_workers": workers, "continuous": True, **settings}),
            self.provider,
            self.clock,
            lambda: EPOCH + timedelta(seconds=self.clock.seconds()),
            worker_ids=lambda: str(next(ids)),
            observer=self.observer,
        )
        self.pool.start()

    def ask(self, wanted: int, headers: dict[str, str] | None = None) -> Client:
        client = Client(f"r{next(self.ids)}", wanted)
        job = Job(client.request_id, headers or {}, [Part("body", "", b"%d" % wanted)])
        client.answer = self.pool.submit(job, client.chunk)
        client.answer.addBoth(client.done)
        return client

    def step(self, number: int = 0) -> None:
        """Let a worker call its handler once."""
        worker = self.provider.alive[number]
        if worker.busy:
            worker.answer(self.handlers.setdefault(worker, Generator())(worker.batches[-1]))

    def running(self, number: int = 0) -> list[str]:
        """The requests at a worker."""
        worker = self.provider.alive[number]
        return [job.request_id for job in worker.batches[-1]] if worker.busy else []
