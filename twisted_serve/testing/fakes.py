# SPDX-License-Identifier: Apache-2.0
"""
Fake workers without processes, in virtual time.

:class:`FakeProvider` implements `twisted_serve.interfaces.IWorkerProvider`, so that everything above it (queue,
    batches, restarts, scaling, responses) is the real code.  With its default delays it answers before ``run`` returns;
    set delays, or hold its workers, to test the states in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, Union

from attrs import field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_serve.errors import WorkerDied, WorkerFailed
from twisted_serve.interfaces import IWorker, IWorkerProvider, Placement, WorkerSpec
from twisted_serve.wire.messages import Item, Job, Predicted, StreamChunk

__all__ = ["FakeProvider", "FakeWorker", "Respond", "echo"]

#: Makes a fake worker's response to a batch: items in the order of the jobs, or an error for the whole batch.
Respond: TypeAlias = Callable[[list[Job]], Union[list[Item], Exception]]


def echo(jobs: list[Job]) -> list[Item]:
    """Answer each job with the bytes of its first part."""
    return [Item(job.request_id, 200, "", {}, job.parts[0].value if job.parts else b"") for job in jobs]


@frozen(eq=False)
class _Running:
    """A batch in flight at a worker."""

    jobs: list[Job]
    on_chunk: Callable[[StreamChunk], None]
    answer: Deferred[Predicted] = field(factory=Deferred)


@implementer(IWorker)
class FakeWorker:
    """
    A worker controlled by the test.

    :ivar spec: The specification that it was started with.
    :ivar placement: Where it was started.
    :ivar batches: All batches that it has received, the running ones last.
    :ivar cancelled: The ids of cancelled requests.
    :ivar paused: The ids of requests whose clients are not reading at present.
    :ivar holding: While true, batches wait until `answer` is called.
    :ivar alive: Whether the worker has not ended.
    """

    def __init__(self, provider: FakeProvider, spec: WorkerSpec, placement: Placement, pid: int) -> None:
        self.worker_id: str = placement.worker_id
        self.pid: int | None = pid
        self.shares_weights: bool = False
        self.loaded: Deferred[None] = Deferred()
        self.lost: Deferred[str] = Deferred()
        self.spec = spec
        self.placement = placement
        self.batches: list[list[Job]] = []
        self.cancelled: list[str] = []
        self.paused: set[str] = set()
        self.holding = provider.holding
        self.alive = True
        self._provider = provider
        self._loading = True
        self._stopping = False
        self._answering = False
        self._running: dict[int, _Running] = {}
        # The batch to which `chunk` refers when no batch is running.
        self._last: tuple[int, _Running] = (0, _Running([], lambda chunk: None))
        self._calls: list[IDelayedCall] = []

    @property
    def busy(self) -> bool:
        """Whether a batch is running."""
        return bool(self._running)

    @property
    def running(self) -> list[list[Job]]:
        """The unanswered batches, the one in progress first."""
        return [each.jobs for each in self._running.values()]

    def run(self, batch_id: int, jobs: list[Job], on_chunk: Callable[[StreamChunk], None]) -> Deferred[Predicted]:
        """Accept a batch, and answer it after the provider's delay unless holding."""
        if not self.alive or (self._stopping and not self._answering):
            raise WorkerDied()
        # Batches are prefetched only to a worker that reports its times.
        several = self.spec.load.asynchronous or self._provider.seconds
        if self._loading or (self._running and not several):
            raise AssertionError("a batch was given to a worker that is not ready for it")
        self.batches.append(jobs)
        running = self._running[batch_id] = _Running(jobs, on_chunk)
        if not self.holding:
            self._later(self._provider.answer_delay, lambda: self._answer(batch_id, None))
        return running.answer

    def cancel(self, request_ids: list[str]) -> None:
        """Record cancelled requests."""
        self.cancelled += request_ids

    def pause(self, request_ids: list[str]) -> None:
        """Record requests as paused."""
        self.paused.update(request_ids)

    def resume(self, request_ids: list[str]) -> None:
        """Record requests as no longer paused."""
        self.paused.difference_update(request_ids)

    def stop(self, grace: float) -> Deferred[None]:
        """End when no batch is running, or after ``grace`` seconds."""
        stopped: Deferred[None] = Deferred()

        def gone(how: str) -> str:
            stopped.callback(None)
            return how

        self.lost.addCallback(gone)
        self._stopping = True
        if not (self._running or self._answering):
            self._end("stopped", WorkerDied())
        elif self.alive:
            self._later(grace, lambda: self._end("terminated", WorkerDied()))
        return stopped

    def load(self) -> None:
        """Complete loading."""
        if self._loading and self.alive:
            self._loading = False
            self.loaded.callback(None)

    def fail_to_load(self, error: WorkerFailed) -> None:
        """Fail to load the handler, and stop."""
        self._end(f"could not load: {error.message}", error)

    def chunk(self, item: Item) -> None:
        """Send an intermediate response for the batch that contains its request, or else for the last batch."""
        batches = [self._last, *self._running.items()]
        theirs = [each for each in batches[1:] if any(job.request_id == item.request_id for job in each[1].jobs)]
        batch_id, running = [*batches, *theirs][-1]
        running.on_chunk(StreamChunk(batch_id, item))

    def answer(self, answer: list[Item] | Exception | None = None, request_id: str | None = None) -> None:
        """
        Answer a running batch with ``answer``, by default with the response of the provider's ``respond``.

        :param request_id: A request of the batch; by default the oldest batch is answered.
        """
        for batch_id, running in self._running.items():
            if request_id is None or any(job.request_id == request_id for job in running.jobs):
                self._answer(batch_id, answer)
                return

    def _answer(self, batch_id: int, answer: list[Item] | Exception | None) -> None:
        running = self._running.pop(batch_id, None)
        if running is None:
            return
        self._last = batch_id, running
        if answer is None:
            answer = self._provider.respond(running.jobs)
        nested, self._answering = self._answering, True
        if isinstance(answer, Exception):
            running.answer.errback(answer)
        else:
            running.answer.callback(Predicted(batch_id, answer, self._provider.seconds))
        self._answering = nested
        # The receiver of the response may have sent another batch.
        if self._stopping and not (self._running or nested):
            self._end("stopped", WorkerDied())

    def kill(self, killed: bool = False) -> None:
        """
        End the worker unexpectedly.

        :param killed: As if by SIGKILL, for which clients receive 507.
        """
        self._end("killed" if killed else "exited", WorkerDied(killed))

    def _end(self, how: str, error: WorkerFailed) -> None:
        if not self.alive:
            return
        self.alive = False
        self.pid = None
        for call in self._calls:
            if call.active():
                call.cancel()
        batches, self._running = self._running, {}
        for running in batches.values():
            running.answer.errback(error)
        if self._loading:
            self._loading = False
            self.loaded.errback(error)
        self.lost.callback(how)

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        if delay:
            self._calls = [waiting for waiting in self._calls if waiting.active()]
            self._calls.append(self._provider.clock.callLater(delay, call))
        else:
            call()


@implementer(IWorkerProvider)
class FakeProvider:
    """
    A provider of fake workers.

    :ivar clock: The clock of all delays.
    :ivar respond: Makes the workers' responses.
    :ivar load_delay: Seconds until a worker has loaded; ``0``: before ``start`` returns; ``None``: only when told to.
    :ivar answer_delay: Seconds per batch; ``0``: it is answered before ``run`` returns.
    :ivar seconds: The time per batch that workers report; ``0``: none.
    :ivar load_error: The error with which the next workers fail to load, if any.
    :ivar holding: Whether the next workers hold their batches until told to answer.
    :ivar workers: All workers ever started, oldest first.
    :ivar forgotten: The specifications passed to `forget`.
    """

    def __init__(
        self,
        clock: IReactorTime | Clock,
        respond: Respond = echo,
        load_delay: float | None = 0.0,
        answer_delay: float = 0.0,
    ) -> None:
        self.clock = clock
        self.respond = respond
        self.load_delay = load_delay
        self.answer_delay = answer_delay
        self.seconds = 0.0
        self.load_error: WorkerFailed | None = None
        self.holding = False
        self.workers: list[FakeWorker] = []
        self.forgotten: list[WorkerSpec] = []

    @property
    def alive(self) -> list[FakeWorker]:
        """The workers that have not ended."""
        return [worker for worker in self.workers if worker.alive]

    @property
    def batches(self) -> list[list[Job]]:
        """All batches ever sent to a worker, grouped by worker."""
        return [batch for worker in self.workers for batch in worker.batches]

    def start(self, spec: WorkerSpec, placement: Placement) -> IWorker:
        """Start a fake worker, which loads after the provider's delay."""
        worker = FakeWorker(self, spec, placement, pid=1000 + len(self.workers))
        self.workers.append(worker)
        error = self.load_error
        if self.load_delay is not None:
            worker._later(self.load_delay, worker.load if error is None else lambda: worker.fail_to_load(error))
        return worker

    def prepare(self) -> None:
        """Do nothing: fake workers share no resources."""

    def forget(self, spec: WorkerSpec) -> None:
        """Record the specification."""
        self.forgotten.append(spec)

    def stop(self) -> Deferred[None]:
        """Stop all workers without a grace period."""
        return gatherResults([worker.stop(0.0) for worker in self.alive]).addCallback(lambda _: None)
