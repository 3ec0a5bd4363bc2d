# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the pool tests: a pool with fake workers and a recording observer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from twisted_serve.errors import ServeError
from twisted_serve.interfaces import WorkerSpec
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.metrics.timing import Timing
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeProvider, FakeWorker
from twisted_serve.wire.messages import Job, Part

E = TypeVar("E", bound=ServeError)

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


def job(request_id: str = "r", body: bytes = b"hi", headers: dict[str, str] | None = None) -> Job:
    """Make a request."""
    return Job(request_id, headers or {}, [Part("body", "", body)])


def spec() -> WorkerSpec:
    """Make the spec of a version's workers."""
    return worker_spec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 10.0)


class Seen(PoolObserver):
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.waited: list[float | None] = []
        self.worked: list[float | None] = []
        self.told: list[object] = []

    def batch_sent(self, batch: Sequence[Timing], overhead: float, going: int = 0) -> None:
        self.waited += [timing.waited for timing in batch]

    def batch_answered(self, batch: Sequence[Timing], overhead: float) -> None:
        self.worked += [timing.worked for timing in batch]

    def failed(self, status: int) -> None:
        self.told.append(status)

    def refused(self, reason: str) -> None:
        self.told.append(reason)

    def worker_loaded(self, name: str, seconds: float) -> None:
        self.told.append((name, seconds))

    def worker_died(self) -> None:
        self.told.append("died")

    def worker_restarted(self) -> None:
        self.told.append("restarted")

    def retired(self) -> None:
        self.told.append("retired")


class Bench:
    """
    A pool, its clock and its fake workers.

    :param reactor: A reactor in place of the clock.
    """

    def __init__(self, reactor: IReactorTime | None = None, **settings: Any) -> None:
        # The tests with a reactor have no use for the clock.
        self.clock: Clock = Clock() if reactor is None else cast(Clock, reactor)
        self.provider = FakeProvider(self.clock)
        self.seen = Seen()
        ids = count(9000)
        self.pool = Pool(
            spec(),
            ModelSettings(**{"max_workers": settings.get("min_workers", 1), "circuit_retry": 0, **settings}),
            self.provider,
            self.clock,
            lambda: EPOCH + timedelta(seconds=self.clock.seconds()),
            worker_ids=lambda: str(next(ids)),
            observer=self.seen,
        )

    @property
    def worker(self) -> FakeWorker:
        """The newest worker."""
        return self.provider.workers[-1]

    def words(self) -> list[str]:
        """The status of each worker in the model's description."""
        return [worker.status.word for worker in self.pool.status().workers]


class PoolTestCase(SynchronousTestCase):
    """The base class of the pool tests."""

    def failed(self, answer: Deferred[Any], kind: type[E]) -> E:
        """Return the error of exactly ``kind`` with which ``answer`` has failed."""
        error = self.failureResultOf(answer).value
        self.assertIs(kind, type(error))
        assert isinstance(error, kind)
        return error

    def running(self, holding: bool = False, **settings: Any) -> Bench:
        """Make a pool whose workers are ready."""
        bench = Bench(**settings)
        bench.provider.holding = holding
        self.successResultOf(bench.pool.start())
        return bench
