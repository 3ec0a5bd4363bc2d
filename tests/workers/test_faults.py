# SPDX-License-Identifier: Apache-2.0
"""Tests that an exception on a batch's way to a worker or back costs no more than that batch and worker."""

from __future__ import annotations

import errno
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
from hypothesis import given
from hypothesis.strategies import integers, sampled_from
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure

import twisted_serve
from tests.scheduling.pool_bench import Seen
from tests.specs import changed
from tests.workers.local_case import SPEC, Child, LocalTestCase
from tests.workers.wire import Wire
from twisted_serve.batching.sequences import SequenceLimits
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.pending import fail_all
from twisted_serve.scheduling.pool import Pool
from twisted_serve.wire.codec import UnsendableError, encode, encode_apart
from twisted_serve.wire.messages import (
    FromWorker,
    Item,
    Job,
    Loaded,
    LoadModel,
    Part,
    Predict,
    Predicted,
    PredictFailed,
    Reading,
    StreamChunk,
)
from twisted_serve.workers.process import connection

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)

_HOME = Path(twisted_serve.__file__).parent
# The way of a batch: what can raise on it, and what calls what can.
WAY = {
    str(_HOME / name)
    for name in (
        "alarm.py",
        "batching/prefetch.py",
        "batching/queue.py",
        "batching/sequences.py",
        "transports.py",
        "wire/codec.py",
        "workers/process/worker.py",
        "workers/process/connection.py",
        "scheduling/in_flight.py",
        "scheduling/dispatcher.py",
        "workers/process/framing.py",
        "scheduling/pool.py",
        "scheduling/quarantine.py",
        "scheduling/admission.py",
        "scheduling/retries.py",
        "scheduling/sequence_headers.py",
        "scheduling/pending.py",
    )
}

LAST = (fail_all.__code__,)

HYPOTHESIS = str(Path(hypothesis.__file__).parent)

ERRORS: list[Callable[[], Exception]] = [
    MemoryError,
    lambda: OSError(errno.ENOBUFS, "No buffer space available"),
    RecursionError,
    lambda: KeyError("planted"),
]


class Planted:
    """
    An error that is raised by the call of a given number which is made on the way of a batch.

    :ivar calls: How many have been made.
    :param step: The number; 0 for none.
    """

    def __init__(self, step: int = 0, error: Callable[[], Exception] = MemoryError) -> None:
        self.calls = 0
        self._step = step
        self._error = error

    @contextmanager
    def active(self) -> Iterator[None]:
        """Count, and raise, meanwhile."""
        before = sys.getprofile()
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _see(self, frame: FrameType, event: str, _arg: object) -> None:
        # A call by the reactor, or by a test, is none of ours to answer for; what it calls is.  And without Deferreds,
        # and without what answers when all else has failed, there is no way to answer anything.
        if (
            event != "call"
            or frame.f_back is None
            or frame.f_code in LAST
            or frame.f_code.co_filename == defer.__file__
            # The garbage collector calls Hypothesis back wherever it happens to run; no step of ours does.
            or frame.f_code.co_filename.startswith(HYPOTHESIS)
        ):
            return
        if frame.f_back.f_code.co_filename in WAY:
            self.calls += 1
            if self.calls == self._step:
                raise self._error()


class Stage:
    """
    A pool whose workers are the real ones, with processes, sockets and time in memory.

    :param kind: Changes of the specification and the settings.
    """

    def __init__(self, case: FaultTests, planted: Planted, kind: dict[str, Any]) -> None:
        self._reactor = case.reactor
        self._planted = planted
        self._ids = count(1)
        self._worker_ids = count(9000)
        self._said: dict[Child, bool] = {}
        self.clients: list[Deferred[Any]] = []
        self.results: list[list[Any]] = []
        spec = changed(SPEC, asynchronous=kind.get("asynchronous", False), continuous=kind.get("continuous", False))
        self.pool = Pool(
            spec,
            ModelSettings(**{"min_workers": 2, "max_workers": 2, "job_queue_size": 20, **kind}),
            case.provider,
            case.reactor,
            lambda: EPOCH + timedelta(seconds=self._reactor.seconds()),
            worker_ids=lambda: str(next(self._worker_ids)),
            observer=Seen(),
        )
        self.pool.start()
        self.pass_time(1.0)

    def ask(self, deadline: float | None = None) -> None:
        """Submit a request; an exception counts as its response."""
        number = next(self._ids)
        headers = {"ts_request_sequence_id": f"s{number % 2}"}
        job = Job(f"r{number}", headers, [Part("body", "", b"%d" % number)])
        try:
            with self._planted.active():
                answer = self.pool.submit(job, self._chunk, deadline)
        except Exception:
            answer = Deferred()
            answer.errback(Failure())
        results: list[Any] = []
        answer.addBoth(results.append)
        self.clients.append(answer)
        self.results.append(results)

    def leave(self, number: int) -> None:
        """Disconnect a client."""
        with self._planted.active():
            self.clients[number].cancel()

    def play(self, answers: Callable[[Predict], list[FromWorker]]) -> None:
        """Let each process read what it was sent, and say something to it, or end if it is to."""
        for child in list(self._reactor.children):
            if child.pid is None:
                continue
            for message in child.messages():
                if isinstance(message, LoadModel):
                    self._say(child, [Loaded()])
                elif isinstance(message, Predict):
                    self._say(child, answers(message))
            if child.signals or child.wire.closed:
                child.die()

    def pass_time(self, seconds: float, answers: Callable[[Predict], list[FromWorker]] | None = None) -> None:
        """Let time pass, in small steps."""
        for _ in range(round(seconds / 0.25)):
            self.play(answers or final)
            self.advance(0.25)

    def advance(self, seconds: float) -> None:
        """Let time pass, as a reactor does: what a call raises is logged, and the next one is made."""
        self._reactor.rightNow += seconds
        for _ in range(100):
            try:
                with self._planted.active():
                    self._reactor.advance(0.0)
            except Exception:
                continue
            return

    def _say(self, child: Child, messages: list[FromWorker]) -> None:
        data = b"".join(encode(message) for message in messages)
        if child.wire.closed:
            return
        try:
            with self._planted.active():
                child.wire.protocol.dataReceived(data)
        except Exception:
            # As a reactor does.
            child.wire.closed = True
            child.wire.protocol.connectionLost(Failure(ConnectionLost()))

    def _chunk(self, _item: Item, producer: IPushProducer) -> None:
        # A client that does not read for a moment.
        producer.pauseProducing()
        producer.resumeProducing()


def final(predict: Predict) -> list[FromWorker]:
    """Answer everything."""
    items = [Item(job.request_id, 200, "", {}, b"ho") for job in predict.jobs]
    return [Predicted(predict.batch_id, items, 0.0001, [Reading("M", "ms", 1.0, "", "COUNTER", "h", 1, "")])]


def piecemeal(predict: Predict) -> list[FromWorker]:
    """Answer everything, the first one in two pieces."""
    first = Item(predict.jobs[0].request_id, 200, "", {}, b"h")
    return [StreamChunk(predict.batch_id, first), *final(predict)]


def raising(predict: Predict) -> list[FromWorker]:
    """Have a handler that raises."""
    return [PredictFailed(predict.batch_id, 503, "Prediction failed")]


KINDS: list[dict[str, Any]] = [
    {},
    {"batch_size": 3, "isolate_failures": True},
    {"asynchronous": True},
    {"continuous": True, "batch_size": 2},
    {"sequences": SequenceLimits(4, 4, 60.0, 60.0), "batch_size": 2},
    {"sequences": SequenceLimits(4, 4, 60.0, 60.0), "batch_size": 2, "continuous": True},
]

# How many steps each story has; the same ones each time.
STEPS: dict[tuple[int, object], int] = {}


class FaultTests(LocalTestCase):
    """An exception at any step."""

    def tell(self, planted: Planted, kind: dict[str, Any], says: Callable[[Predict], list[FromWorker]]) -> None:
        """Serve requests of all kinds; then assert that all are answered, and that further ones succeed."""
        self.setUp()
        stage = Stage(self, Planted(), kind)
        stage._planted = planted
        # What two workers have at once, and what waits; one client does not wait long, and one goes away.
        for number in range(8):
            stage.ask(self.reactor.seconds() + 0.2 if number == 6 else None)
        stage.leave(5)
        stage.play(says)
        stage.leave(7)
        stage.pass_time(1.0, says)
        stage._planted = Planted()
        stage.pass_time(10.0)
        self.assertEqual([1] * 8, [len(results) for results in stage.results], "not each request has one answer")
        for _ in range(4):
            stage.ask()
        stage.pass_time(10.0)
        self.assertEqual([200] * 4, [getattr(results[0], "status", results) for results in stage.results[-4:]])
        status = stage.pool.status()
        self.assertEqual((0, 0, 0), (status.pending, status.running, status.busy))
        self.assertEqual(["READY", "READY"], [worker.status.word for worker in status.workers])
        retired = stage.pool.retire(1.0)
        stage.pass_time(5.0)
        self.successResultOf(retired)
        self.assertEqual([], self.reactor.getDelayedCalls())

    @given(integers(0, 10**6), sampled_from(ERRORS), sampled_from(KINDS), sampled_from([final, piecemeal, raising]))
    def test_at_any_step(
        self,
        number: int,
        error: Callable[[], Exception],
        kind: dict[str, Any],
        says: Callable[[Predict], list[FromWorker]],
    ) -> None:
        """After an exception at any step each request is answered, and all workers are running afterwards."""
        story = (KINDS.index(kind), says)
        if story not in STEPS:
            # What earlier examples have left unsaid.
            gc.collect()
            self.flushLoggedErrors()
            counted = Planted()
            self.tell(counted, kind, says)
            self.assertEqual([], self.flushLoggedErrors())
            STEPS[story] = counted.calls
        self.tell(Planted(1 + number % STEPS[story], error), kind, says)
        gc.collect()
        self.flushLoggedErrors()

    def test_no_memory_to_send(self) -> None:
        """A batch that there is no memory to send fails immediately; its worker, which has seen nothing, stays."""
        stage = Stage(self, Planted(), {})
        pids = [worker.worker_id for worker in stage.pool.status().workers]
        self.patch(connection, "encode_apart", _raise_memory_error)
        stage.ask()
        [[failure]] = stage.results
        self.assertEqual(
            (500, "The request could not be sent to a worker."), (failure.value.status, str(failure.value))
        )
        self.assertEqual(1, len(self.flushLoggedErrors(UnsendableError)))
        self.patch(connection, "encode_apart", encode_apart)
        stage.ask()
        stage.pass_time(0.25)
        self.assertEqual(200, stage.results[1][0].status)
        self.assertEqual(pids, [worker.worker_id for worker in stage.pool.status().workers])
        self.assertEqual(2, len(self.reactor.children))

    def test_half_written(self) -> None:
        """A worker that has received half of a frame is replaced: another one answers its request."""
        stage = Stage(self, Planted(), {})
        whole = Wire.write
        broken: list[Wire] = []

        def half(wire: Wire, data: bytes) -> None:
            whole(wire, data[: len(data) // 2])
            broken.append(wire)
            raise MemoryError

        self.patch(Wire, "write", half)
        stage.ask()
        self.patch(Wire, "write", whole)
        self.assertEqual(1, len(self.flushLoggedErrors(MemoryError)))
        stage.pass_time(5.0)
        self.assertEqual([200], [result.status for result in stage.results[0]])
        self.assertTrue(broken[0].closed)
        self.assertEqual(["READY", "READY"], [worker.status.word for worker in stage.pool.status().workers])

    def test_metrics_that_cannot_be_taken(self) -> None:
        """An error in a worker's metrics costs no request and no worker."""
        self.patch(self.provider, "_on_metrics", _raise_memory_error)
        stage = Stage(self, Planted(), {})
        stage.ask()
        stage.pass_time(0.25)
        self.assertEqual(200, stage.results[0][0].status)
        self.assertEqual(1, len(self.flushLoggedErrors(MemoryError)))
        stage.pass_time(5.0)
        self.assertEqual(2, len(self.reactor.children))


def _raise_memory_error(*_arguments: object) -> None:
    raise MemoryError
