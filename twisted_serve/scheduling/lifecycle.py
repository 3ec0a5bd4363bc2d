# SPDX-License-Identifier: Apache-2.0
"""
Define the state machine of a replica.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from attrs import define, field
from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces import IWorker, Now, Placement
from twisted_serve.logs import RETRY
from twisted_serve.scheduling.backoff import retry_delay
from twisted_serve.scheduling.status import (
    BackingOff,
    Draining,
    Failing,
    GivenUp,
    Ready,
    Starting,
    Stopped,
    WorkerStatus,
)
from twisted_serve.scheduling.unstarted import UnstartedWorker

_log = Logger("twisted_serve.scheduling")


class ReplicaInputs(Protocol):
    """The inputs of the state machine. None returns a value, so that an input may arrive during another."""

    def start(self) -> None:
        """Start a worker; a replica that backs off or has given up makes an attempt immediately."""

    def stop(self, grace: float) -> None:
        """Stop the worker for good; a batch in flight has ``grace`` seconds."""

    def discard(self, reason: str) -> None:
        """End a worker that hangs or misbehaves, and start another as after any failure."""

    def _loaded(self, worker: IWorker) -> None:
        """Handle that the worker has loaded."""

    def _load_failed(self, error: WorkerFailed) -> None:
        """Handle that the worker failed to load; it stops by itself."""

    def _retry_later(self, reason: str) -> None:
        """Handle the end of the worker within the recovery window."""

    def _give_up(self, reason: str) -> None:
        """Handle the end of the worker after the recovery window."""

    def _retry(self) -> None:
        """Start the next attempt: the delay before it is over."""


@define(eq=False)
class Core:
    """
    The data of a replica, and the actions of its transitions.

    :ivar changed: Called when the status has changed.
    :ivar ready: Called with a worker that takes batches from now on.
    :ivar unready: Called with a worker that takes no more batches; it may still have batches in flight.
    """

    # Required.
    changed: Callable[[], None]
    ready: Callable[[IWorker], None]
    unready: Callable[[IWorker], None]
    launch: Callable[[Placement], IWorker]
    placement: Placement
    clock: IReactorTime
    now: Now
    max_retry_timeout: float
    circuit_retry: float

    # Internal state.
    status: WorkerStatus
    worker: IWorker | None = None
    end_worker: Callable[[float], object] = lambda grace: None
    failing_since: float | None = None
    attempt: int = 0
    next_attempt: IDelayedCall | None = None
    reason: str = ""
    # Whether the model's log has the traceback of ``reason``.
    printed: bool = False
    start_waiters: list[Deferred[None]] = field(factory=list)
    stop_waiters: list[Deferred[None]] = field(factory=list)

    def set_status(self, status: WorkerStatus) -> None:
        """Set the status and notify the owner."""
        self.status = status
        self.changed()

    def begin(self, inputs: ReplicaInputs) -> None:
        """Start a worker and feed its events to the state machine."""
        try:
            worker = self.launch(self.placement)
        except Exception as e:
            _log.failure("Cannot start worker {worker_id}", worker_id=self.placement.worker_id)
            worker = UnstartedWorker(self.placement, f"The worker could not be started: {type(e).__name__}: {e}")
        self.worker = worker
        self.end_worker = worker.stop
        self.set_status(Starting(self.now()))
        worker.loaded.addCallbacks(
            lambda _: inputs._loaded(worker), lambda failure: inputs._load_failed(_worker_failed(failure))
        )
        worker.lost.addBoth(lambda how: self.lost(inputs, str(how)))

    def lost(self, inputs: ReplicaInputs, how: str) -> None:
        """Handle the end of the worker: retry within the recovery window, give up after it."""
        self.mark_failing()
        if self.in_window():
            inputs._retry_later(how)
        else:
            inputs._give_up(how)

    def mark_failing(self) -> None:
        """Begin the recovery window if it has not begun."""
        if self.failing_since is None:
            self.failing_since = self.clock.seconds()

    def in_window(self) -> bool:
        """Return whether the replica works or has been failing for less than the recovery window."""
        return self.failing_since is None or self.clock.seconds() - self.failing_since < self.max_retry_timeout

    def cancel_attempt(self) -> None:
        """Cancel the attempt that is scheduled after giving up."""
        if self.next_attempt is not None and self.next_attempt.active():
            self.next_attempt.cancel()

    def notify_started(self, result: WorkerFailed | None) -> None:
        """Fire the Deferreds of `Replica.start` with the result."""
        self.start_waiters, waiting = [], self.start_waiters
        for waiter in waiting:
            if result is None:
                waiter.callback(None)
            else:
                waiter.errback(WorkerFailed(result.status, result.message, printed=result.printed))

    def end(self) -> None:
        """Enter the stopped state and fire all waiting Deferreds."""
        self.set_status(Stopped(self.now()))
        self.notify_started(WorkerFailed(500, "The worker was stopped before it had loaded."))
        self.notify_stopped()

    def notify_stopped(self) -> None:
        """Fire the Deferreds of `Replica.stop`."""
        self.stop_waiters, waiting = [], self.stop_waiters
        for waiter in waiting:
            waiter.callback(None)


def _worker_failed(failure: Failure) -> WorkerFailed:
    error = failure.value
    return error if isinstance(error, WorkerFailed) else WorkerFailed(500, str(error))


def make_machine() -> Callable[[Core], ReplicaInputs]:  # noqa: PLR0915 - one table
    """Build the state machine. An input that is not in this table for a state raises an error."""
    machine = TypeMachineBuilder(ReplicaInputs, Core)

    def schedule_retry(inputs: ReplicaInputs, core: Core, reason: str) -> IDelayedCall:
        delay = retry_delay(core.attempt)
        core.attempt += 1
        _log.info(
            RETRY,
            worker_id=core.placement.worker_id,
            delay=delay,
            reason="" if core.printed else core.reason or reason,
        )
        return core.clock.callLater(delay, inputs._retry)

    def keep_worker(inputs: ReplicaInputs, core: Core, worker: IWorker) -> IWorker:
        return worker

    # States:
    idle = machine.state("Idle")
    loading = machine.state("Loading")
    ready = machine.state("Ready", keep_worker)
    failing = machine.state("Failing")
    backoff = machine.state("Backoff", schedule_retry)
    given_up = machine.state("GivenUp")
    draining = machine.state("Draining")
    stopped = machine.state("Stopped")

    # Behavior-less state transitions:
    loading.upon(ReplicaInputs.start).loop().returns(None)
    ready.upon(ReplicaInputs.start, nodata=True).loop().returns(None)
    failing.upon(ReplicaInputs.start).loop().returns(None)
    failing.upon(ReplicaInputs.discard).loop().returns(None)
    failing.upon(ReplicaInputs._loaded).loop().returns(None)
    failing.upon(ReplicaInputs._load_failed).loop().returns(None)
    backoff.upon(ReplicaInputs.discard, nodata=True).loop().returns(None)
    backoff.upon(ReplicaInputs._loaded, nodata=True).loop().returns(None)
    backoff.upon(ReplicaInputs._load_failed, nodata=True).loop().returns(None)
    given_up.upon(ReplicaInputs.discard).loop().returns(None)
    given_up.upon(ReplicaInputs._loaded).loop().returns(None)
    given_up.upon(ReplicaInputs._load_failed).loop().returns(None)
    draining.upon(ReplicaInputs._loaded).loop().returns(None)
    draining.upon(ReplicaInputs._load_failed).loop().returns(None)
    stopped.upon(ReplicaInputs.discard).loop().returns(None)
    stopped.upon(ReplicaInputs._loaded).loop().returns(None)
    stopped.upon(ReplicaInputs._load_failed).loop().returns(None)

    # Behavior-full state transitions:
    @idle.upon(ReplicaInputs.start).to(loading)
    def first_start(inputs: ReplicaInputs, core: Core) -> None:
        core.begin(inputs)

    @given_up.upon(ReplicaInputs.start).to(loading)
    def restart(inputs: ReplicaInputs, core: Core) -> None:
        core.cancel_attempt()
        core.failing_since, core.attempt = None, 0
        core.begin(inputs)

    @backoff.upon(ReplicaInputs.start).to(loading)
    def retry_now(inputs: ReplicaInputs, core: Core, paused: IDelayedCall) -> None:
        paused.cancel()
        core.begin(inputs)

    @backoff.upon(ReplicaInputs._retry).to(loading)
    def retry(inputs: ReplicaInputs, core: Core, paused: IDelayedCall) -> None:
        core.begin(inputs)

    @given_up.upon(ReplicaInputs._retry).to(loading)
    def probe(inputs: ReplicaInputs, core: Core) -> None:
        # A single attempt: the recovery window is over, so another failure gives up immediately.
        core.begin(inputs)

    @loading.upon(ReplicaInputs._loaded).to(ready)
    def load_done(inputs: ReplicaInputs, core: Core, worker: IWorker) -> None:
        core.failing_since, core.attempt, core.reason, core.printed = None, 0, "", False
        core.set_status(Ready(core.now(), worker.pid))
        core.ready(worker)
        core.notify_started(None)

    @loading.upon(ReplicaInputs._load_failed).to(failing)
    def load_failed(inputs: ReplicaInputs, core: Core, error: WorkerFailed) -> None:
        core.mark_failing()
        core.reason, core.printed = error.message, error.printed
        core.set_status(Failing(core.now(), error.message))
        core.notify_started(error)

    @loading.upon(ReplicaInputs.discard).to(failing)
    def discard_loading(inputs: ReplicaInputs, core: Core, reason: str) -> None:
        core.mark_failing()
        core.reason, core.printed = reason, False
        core.set_status(Failing(core.now(), reason))
        core.notify_started(WorkerFailed(500, reason))
        core.end_worker(0.0)

    @ready.upon(ReplicaInputs.discard).to(failing)
    def discard_ready(inputs: ReplicaInputs, core: Core, worker: IWorker, reason: str) -> None:
        core.unready(worker)
        core.mark_failing()
        core.reason, core.printed = reason, False
        core.set_status(Failing(core.now(), reason))
        core.end_worker(0.0)

    @failing.upon(ReplicaInputs._retry_later).to(backoff)
    def wait(inputs: ReplicaInputs, core: Core, reason: str) -> None:
        back_off(core, reason)

    @loading.upon(ReplicaInputs._retry_later).to(backoff)
    def lose_loading(inputs: ReplicaInputs, core: Core, reason: str) -> None:
        back_off(core, reason)
        core.notify_started(WorkerFailed(500, reason))

    @ready.upon(ReplicaInputs._retry_later).to(backoff)
    def lose(inputs: ReplicaInputs, core: Core, worker: IWorker, reason: str) -> None:
        core.unready(worker)
        back_off(core, reason)

    def back_off(core: Core, reason: str) -> None:
        core.worker = None
        now = core.now()
        until = now + timedelta(seconds=retry_delay(core.attempt - 1))
        core.set_status(BackingOff(now, until, core.reason or reason))

    @loading.upon(ReplicaInputs._give_up).to(given_up)
    @failing.upon(ReplicaInputs._give_up).to(given_up)
    def give_up(inputs: ReplicaInputs, core: Core, reason: str) -> None:
        stop_retrying(inputs, core, reason)

    @ready.upon(ReplicaInputs._give_up).to(given_up)
    def lose_for_good(inputs: ReplicaInputs, core: Core, worker: IWorker, reason: str) -> None:
        core.unready(worker)
        stop_retrying(inputs, core, reason)

    def stop_retrying(inputs: ReplicaInputs, core: Core, reason: str) -> None:
        core.worker = None
        reason = core.reason or reason
        _log.warn(
            "Worker {worker_id} has been failing for {seconds} seconds and is started again {when}: {reason}",
            worker_id=core.placement.worker_id,
            seconds=core.max_retry_timeout,
            when=f"in {core.circuit_retry:g} seconds" if core.circuit_retry else "only when it is scaled",
            reason=reason,
        )
        now = core.now()
        until = None
        if core.circuit_retry:
            core.next_attempt = core.clock.callLater(core.circuit_retry, inputs._retry)
            until = now + timedelta(seconds=core.circuit_retry)
        core.set_status(GivenUp(now, reason, until))
        core.notify_started(WorkerFailed(500, reason))

    @ready.upon(ReplicaInputs.stop).to(draining)
    def drain(inputs: ReplicaInputs, core: Core, worker: IWorker, grace: float) -> None:
        core.unready(worker)
        core.set_status(Draining(core.now()))
        core.end_worker(grace)

    @loading.upon(ReplicaInputs.stop).to(draining)
    @failing.upon(ReplicaInputs.stop).to(draining)
    def abandon(inputs: ReplicaInputs, core: Core, grace: float) -> None:
        # No batch is in flight that could use the grace period.
        core.set_status(Draining(core.now()))
        core.end_worker(0.0)

    @draining.upon(ReplicaInputs.stop).loop()
    def shorten_grace(inputs: ReplicaInputs, core: Core, grace: float) -> None:
        core.end_worker(grace)

    @draining.upon(ReplicaInputs.discard).loop()
    def end_now(inputs: ReplicaInputs, core: Core, reason: str) -> None:
        core.end_worker(0.0)

    @draining.upon(ReplicaInputs._retry_later).to(stopped)
    @draining.upon(ReplicaInputs._give_up).to(stopped)
    def gone(inputs: ReplicaInputs, core: Core, reason: str) -> None:
        core.worker = None
        core.end()

    @idle.upon(ReplicaInputs.stop).to(stopped)
    def stop_without_worker(inputs: ReplicaInputs, core: Core, grace: float) -> None:
        core.end()

    @given_up.upon(ReplicaInputs.stop).to(stopped)
    def stop_given_up(inputs: ReplicaInputs, core: Core, grace: float) -> None:
        core.cancel_attempt()
        core.end()

    @stopped.upon(ReplicaInputs.stop).loop()
    def stop_again(inputs: ReplicaInputs, core: Core, grace: float) -> None:
        core.notify_stopped()

    @backoff.upon(ReplicaInputs.stop).to(stopped)
    def stop_waiting(inputs: ReplicaInputs, core: Core, paused: IDelayedCall, grace: float) -> None:
        paused.cancel()
        core.end()

    return machine.build()
