# SPDX-License-Identifier: Apache-2.0
"""
Schedule the requests of one model version to a scalable pool of workers, and answer each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf

from twisted.internet.defer import Deferred, DeferredList, FirstError, fail, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.errors import BadRequest, ServiceUnavailable
from twisted_serve.eventloop.timeout import Timeout
from twisted_serve.interfaces import IWorker, IWorkerProvider, Now, Placement, WorkerSpec
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.metrics.timing import Timing
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.admission import RequestAdmission, Unavailability
from twisted_serve.scheduling.autoscaling import LoadSample, ScalingRules, next_check, wanted_workers
from twisted_serve.scheduling.dispatcher import Dispatcher
from twisted_serve.scheduling.pending import DeferredAnswer, OnChunk, PendingRequest, Recipient
from twisted_serve.scheduling.quarantine import Quarantine
from twisted_serve.scheduling.queues import make_queue
from twisted_serve.scheduling.replica import Replica
from twisted_serve.scheduling.retries import Retries
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.scheduling.status import Circuit, GivenUp, PoolStatus, Ready, ScaleResult, circuit_of
from twisted_serve.scheduling.worker_events import OnDeath, WorkerEvents
from twisted_serve.wire.messages import Item, Job

_log = Logger("twisted_serve.scheduling")

# Seconds that a batch in flight has to finish when its worker is scaled down.
DRAIN_GRACE = 30.0


class Pool:
    """
    The workers of a model version.

    A new pool has no workers. `start` and `scale` start them; the first request does, too, if ``min_workers`` is 0 and
    ``max_workers`` is not.

    :ivar settled: A Deferred that fires once with ``None`` when every worker started by `start` has loaded or failed
        to load. It never fails; call `ready` for the outcome.
    :ivar min_workers: The lower bound, as last scaled.
    :ivar max_workers: The upper bound, as last scaled.
    :param provider: The provider that runs workers.
    :param worker_ids: Returns the id of each new worker; ids must be unique.
    :param next_gpu: Returns the GPU of each new worker; ``None`` for the CPU.
    :param sequences: The names of the sequence headers of a stateful model.
    :param observer: Called with events of requests, batches and workers.
    :param on_death: Called with the id of a worker that was lost, and the reason.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        settings: ModelSettings,
        provider: IWorkerProvider,
        clock: IReactorTime,
        now: Now,
        *,
        worker_ids: Callable[[], str],
        next_gpu: Callable[[], int | None] = lambda: None,
        sequences: SequenceHeaders | None = None,
        observer: PoolObserver | None = None,
        on_death: OnDeath | None = None,
    ) -> None:
        self.settled: Deferred[None] = Deferred()
        self.min_workers = settings.min_workers
        self.max_workers = settings.max_workers
        self._spec = spec
        self._provider = provider
        self._clock = clock
        self._now = now
        self._worker_ids = worker_ids
        self._next_gpu = next_gpu
        self._settings = settings
        self._client_timeout = settings.client_timeout / 1000
        names = sequences or SequenceHeaders()
        self._sequences = None if settings.sequences is None else names
        self._queue = make_queue(settings, names)
        self._observer = observer or PoolObserver()
        self._events = WorkerEvents(f"{spec.load.model_name}_{spec.load.model_version}", self._observer, on_death)
        self._admission = RequestAdmission(spec.load.model_name, spec.load.model_version, self._observer)
        quarantine = Quarantine()
        # An asynchronous worker has many requests, any of which may have killed it; a stateful one has partial state.
        stateful = settings.sequences is not None
        # Each partial response of a continuous batch was a handler call that a retry would repeat.
        once = stateful or settings.continuous
        after_death = settings.retry_on_worker_death and not settings.asynchronous and not once
        self._dispatcher = Dispatcher(
            self._queue,
            clock,
            settings.response_timeout,
            self._admission,
            quarantine,
            Retries(settings.isolate_failures and not once, after_death, quarantine),
            self._unavailability,
            self._observer,
            concurrency=settings.job_queue_size if settings.asynchronous and not stateful else 1,
            continuous=settings.continuous,
            prefetches=not (settings.asynchronous or once),
            ended_by=names.ended_by if stateful else None,
        )
        self._next_check = Timeout(clock, self._autoscale)
        self._pressed = False
        self._replicas: list[Replica] = []
        self._leaving: list[Replica] = []
        self._retired = False
        self._retired_by = inf
        self._retiring: list[Deferred[None]] = []
        self._set_bounds(self.min_workers, self.max_workers)
        self._update_availability()

    def start(self) -> Deferred[ScaleResult]:
        """Start ``min_workers`` workers and return a Deferred as `scale` does."""
        try:
            waiters, result = self._change(self.min_workers, self.max_workers, DRAIN_GRACE)
        except BaseException:
            self.settled.callback(None)
            raise
        started = _all_of(waiters, result)
        # Added last, so that ``settled`` fires after the callbacks of the start itself.
        DeferredList(waiters).addCallback(lambda _: self.settled.callback(None))
        return started

    def submit(
        self,
        job: Job,
        on_chunk: OnChunk | None = None,
        deadline: float | None = None,
        versioned: bool = False,
        timing: Timing | None = None,
    ) -> Deferred[Item]:
        """
        Queue a request for a worker.

        :param on_chunk: Called with each chunk of a streamed response, in order and before the result, and with the
            producer to pause while the client is not reading; ``None`` to drop the chunks.
        :param deadline: The time at which the client stops waiting, in seconds of the clock; the version's
            ``client_timeout`` applies as well.
        :param versioned: Whether the client named the version: the text of a refusal depends on it.
        :param timing: The request's timestamps, to be filled in.
        :return: A Deferred that fires with the response. It fails with `ServiceUnavailable` if no worker can take the
            request, `RequestTimeout` after the deadline, `WorkerFailed` if the handler raised, and its subclass
            `WorkerDied` if the worker was lost or too slow. Cancel it when the client has disconnected.
        """
        recipient = DeferredAnswer(on_chunk)
        try:
            return recipient.of(self.enter(job, recipient, deadline, versioned, timing))
        except Exception:
            return fail()

    def enter(
        self,
        job: Job,
        recipient: Recipient,
        deadline: float | None = None,
        versioned: bool = False,
        timing: Timing | None = None,
    ) -> PendingRequest:
        """
        Queue a request for a worker, as `submit` does.

        :param recipient: Receives the response, or the errors with which the Deferred of `submit` fails later.
        :return: The request, to be abandoned when the client has disconnected.
        :raise ServiceUnavailable: if no worker can take the request.
        """
        # ``client_timeout`` applies to predictions, not to descriptions.
        if self._client_timeout and "describe" not in job.headers:
            own = self._clock.seconds() + self._client_timeout
            deadline = own if deadline is None else min(own, deadline)
        if self._retired:
            refusal = self._admission.no_worker(versioned, self._unavailability())
            self._observer.failed(refusal.status)
            raise refusal
        if self._sequences is not None:
            job = self._sequences.named(job)
        timing = timing or Timing(self._clock.seconds())
        timing.versioned = versioned
        request = PendingRequest(job, recipient, deadline, versioned, self._dispatcher.forget, timing, self._observer)
        try:
            self._dispatcher.submit(request)
        except ServiceUnavailable as e:
            self._observer.failed(e.status)
            raise
        except Exception:
            # The client gets this error, so the request must not stay in the queue.
            self._dispatcher.forget(request)
            raise
        return request

    def scale(self, min_workers: int, max_workers: int, grace: float = DRAIN_GRACE) -> Deferred[ScaleResult]:
        """
        Set the bounds on the number of workers and start or stop workers to meet them.

        Replicas that have given up or are backing off are started immediately. Between the bounds the number of
        workers follows the load.

        :param grace: Seconds that a stopped worker has for its batch.
        :return: A Deferred that fires when all started workers have loaded and all stopped workers are gone. It fails
            with the first `WorkerFailed`, while the other workers continue. It fails with `BadRequest` for impossible
            bounds and with `ServiceUnavailable` once the pool is retired; in both cases nothing has changed.
        """
        if min_workers < 0:
            return fail(BadRequest(f"min_worker is {min_workers}, it cannot be negative."))
        if max_workers < min_workers:
            return fail(BadRequest("max_worker cannot be less than min_worker."))
        if self._retired:
            return fail(ServiceUnavailable(f"Model {self._spec.load.model_name} is being removed."))
        return _all_of(*self._change(min_workers, max_workers, grace))

    def retire(self, grace: float) -> Deferred[None]:
        """
        Stop the pool: refuse new requests and give the accepted ones ``grace`` seconds to be answered.

        A second call can shorten the grace.

        :return: A Deferred that fires when all workers are gone.
        """
        self._retired = True
        self._observer.retired()
        self._retired_by = min(self._retired_by, self._clock.seconds() + grace)
        retired: Deferred[None] = Deferred()
        self._retiring.append(retired)
        self._dispatcher.after_dispatch = self._finish
        self._finish()
        return retired

    def _finish(self) -> None:
        """Stop the workers once the queue is empty, no worker takes from it, or the grace is over."""
        left = self._retired_by - self._clock.seconds()
        if left > 0 and len(self._queue) and self._dispatcher.at_work:
            self._next_check.set(self._retired_by)
            return
        self._next_check.cancel()
        self._dispatcher.after_dispatch = None
        retiring, self._retiring = self._retiring, []
        leaving, self._replicas = self._replicas + self._leaving, []
        waiters = [self._stop_replica(replica, max(0.0, left)) for replica in leaving]
        self._update_availability()
        gatherResults(waiters).addCallback(lambda _: self._end(retiring))

    def _end(self, retiring: list[Deferred[None]]) -> None:
        self._dispatcher.close()
        self._provider.forget(self._spec)
        for retired in retiring:
            retired.callback(None)

    def status(self) -> PoolStatus:
        """Return a snapshot of the workers and the queue."""
        return PoolStatus(
            workers=tuple(replica.info() for replica in self._replicas + self._leaving),
            pending=len(self._queue),
            remaining=self._queue.remaining,
            running=self._dispatcher.running,
            circuit=self._circuit(),
            busy=self._dispatcher.busy,
        )

    def healthy(self) -> bool:
        """
        Return whether enough workers are healthy, as TorchServe's ``/ping`` reports it.

        A worker that has not loaded yet counts as healthy, as does one whose first failure is less than the recovery
        window ago (``docs/torchserve/rest_api.md`` §4.1).
        """
        return sum(replica.healthy for replica in self._replicas) >= self.min_workers

    def ready(self) -> bool:
        """Return whether at least ``min_workers`` workers are ready."""
        return sum(isinstance(replica.status, Ready) for replica in self._replicas) >= self.min_workers

    def replica_ready(self, replica: Replica, worker: IWorker) -> None:
        """Add the worker to the dispatcher; see `ReplicaOwner`."""
        self._dispatcher.join(worker, replica.discard)
        self._autoscale()

    def replica_unready(self, replica: Replica, worker: IWorker) -> None:
        """Remove the worker from the dispatcher; see `ReplicaOwner`."""
        self._dispatcher.leave(worker)

    def replica_changed(self, replica: Replica) -> None:
        """Log the new status and update the availability; see `ReplicaOwner`."""
        self._pressed = False
        self._events.changed(replica.info())
        self._update_availability()

    def _change(self, min_workers: int, max_workers: int, grace: float) -> tuple[list[Deferred[None]], ScaleResult]:
        keep = min(len(self._replicas), max_workers)
        # Made before anything changes: ``worker_ids`` and ``next_gpu`` may raise.
        new = [self._new_replica() for _ in range(min_workers - keep)]
        self._set_bounds(min_workers, max_workers)
        surplus, self._replicas = self._replicas[keep:], self._replicas[:keep]
        starting = [replica for replica in self._replicas if not isinstance(replica.status, Ready)] + new
        self._replicas += new
        result = ScaleResult(
            workers=len(self._replicas),
            started=tuple(replica.placement.worker_id for replica in starting),
            stopped=tuple(replica.placement.worker_id for replica in surplus),
        )
        waiters = [replica.start() for replica in starting] + [
            self._stop_replica(replica, grace) for replica in surplus
        ]
        self._update_availability()
        self._autoscale()
        return waiters, result

    def _set_bounds(self, min_workers: int, max_workers: int) -> None:
        self.min_workers, self.max_workers = min_workers, max_workers
        settings = self._settings
        self._rules = ScalingRules(
            min_workers, max_workers, settings.scale_up_delay, settings.scale_idle_time, settings.batch_size
        )
        # A pool with a fixed number of workers does not pay for autoscaling.
        self._dispatcher.after_dispatch = self._check_pressure if self._rules.elastic else None

    def _check_pressure(self) -> None:
        # The condition holds for every request while all workers are busy: check the load once, until a change.
        if not (self._pressed or self._dispatcher.free) and len(self._queue):
            self._pressed = True
            self._autoscale()

    def _autoscale(self) -> None:
        """Scale to the number of workers that the load asks for, and schedule the next check."""
        if self._retired:
            self._finish()
            return
        if not self._rules.elastic:
            self._next_check.set(None)
            return
        self._pressed = self._dispatcher.free == 0 and len(self._queue) > 0
        sample = self._sample()
        wanted = wanted_workers(self._rules, sample)
        if wanted > sample.workers:
            _log.info(
                "Model {name} gets {more} more workers: {waiting} requests wait, for up to {seconds:.3f} seconds",
                name=self._spec.load.model_name,
                more=wanted - sample.workers,
                waiting=sample.waiting,
                seconds=sample.oldest_wait,
            )
            new = [self._new_replica() for _ in range(wanted - sample.workers)]
            self._replicas += new
            for replica in new:
                # A failure is in the replica's status and in the log.
                replica.start().addErrback(lambda _: None)
            sample = self._sample()
        while (
            wanted_workers(self._rules, sample) < sample.workers and (idlest := self._dispatcher.idlest()) is not None
        ):
            replica = next(replica for replica in self._replicas if replica.holds(idlest[0]))
            _log.info(
                "Model {name} ends worker {worker_id}, which had nothing to do for {seconds:.0f} seconds",
                name=self._spec.load.model_name,
                worker_id=replica.placement.worker_id,
                seconds=sample.longest_idle,
            )
            self._replicas.remove(replica)
            self._stop_replica(replica, DRAIN_GRACE)
            sample = self._sample()
        delay = next_check(self._rules, sample)
        self._next_check.set(None if delay is None else self._clock.seconds() + delay)

    def _sample(self) -> LoadSample:
        now = self._clock.seconds()
        idlest = self._dispatcher.idlest()
        return LoadSample(
            workers=len(self._replicas),
            starting=sum(not isinstance(replica.status, (Ready, GivenUp)) for replica in self._replicas),
            free=self._dispatcher.free,
            waiting=len(self._queue),
            oldest_wait=self._queue.oldest_wait(now),
            longest_idle=0.0 if idlest is None else now - idlest[1],
        )

    def _new_replica(self) -> Replica:
        return Replica(
            Placement(self._worker_ids(), self._next_gpu()),
            lambda placement: self._provider.start(self._spec, placement),
            self,
            clock=self._clock,
            now=self._now,
            max_retry_timeout=self._settings.max_retry_timeout,
            circuit_retry=self._settings.circuit_retry,
        )

    def _stop_replica(self, replica: Replica, grace: float) -> Deferred[None]:
        if replica not in self._leaving:
            self._leaving.append(replica)
        return replica.stop(grace).addCallback(lambda _: self._gone(replica))

    def _gone(self, replica: Replica) -> None:
        if replica in self._leaving:
            self._leaving.remove(replica)

    def _update_availability(self) -> None:
        """Refuse queued requests if no worker can be expected."""
        from_none = not (self._replicas or self.min_workers or self._retired) and self.max_workers > 0
        self._dispatcher.available = from_none or any(replica.available_soon for replica in self._replicas)
        if not self._dispatcher.available:
            self._dispatcher.refuse_waiting()
        if self._retiring:
            self._finish()

    def _circuit(self) -> Circuit | None:
        return circuit_of([replica.status for replica in self._replicas], self._dispatcher.available)

    def _unavailability(self) -> Unavailability:
        """Return the reason why no worker takes requests."""
        if self._retired:
            return Unavailability("The model is being removed.")
        circuit = self._circuit()
        if circuit is None:
            return Unavailability() if self.max_workers else Unavailability("It is scaled to zero workers.")
        if circuit.until is None:
            return Unavailability("Its workers have failed for too long and are not started again.", circuit.reason)
        left = max(1, ceil((circuit.until - self._now()).total_seconds()))
        return Unavailability(f"Its workers keep failing; the next attempt is in {left} seconds.", circuit.reason, left)


def _all_of(waiters: list[Deferred[None]], result: ScaleResult) -> Deferred[ScaleResult]:
    """Return a Deferred that fires with ``result`` when all have fired, or fails with the first failure."""

    def first_failure(failure: Failure) -> Failure:
        error = failure.value
        return error.subFailure if isinstance(error, FirstError) else failure

    return gatherResults(waiters, consumeErrors=True).addCallbacks(lambda _: result, first_failure)
