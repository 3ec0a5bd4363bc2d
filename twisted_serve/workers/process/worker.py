# SPDX-License-Identifier: Apache-2.0
"""
This module implements one worker that is a process of this machine.

Its end is seen in three ways, in any order: the socket ends, the process is
reaped, its output is closed.  What waits for an answer gets one at the first
moment when it is known how the process ended, or a second after the first sign
if that is not known by then; ``lost`` fires when all three have come.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.errors import WorkerDied, WorkerFailed
from twisted_serve.interfaces import IWorker
from twisted_serve.logs import log_no_response
from twisted_serve.wire.messages import (
    Cancel,
    FromWorker,
    Job,
    Loaded,
    LoadFailed,
    LoadModel,
    Pause,
    Predict,
    Predicted,
    PredictFailed,
    Reading,
    Resume,
    StreamChunk,
)
from twisted_serve.workers.process.connection import WorkerConnection
from twisted_serve.workers.process.process import OUTPUT_WAIT, Exit, Stream, WorkerProcess

# Seconds that the socket's end and the process' exit may lie apart; they are one event, seen twice.
VERDICT_WAIT = 1.0
# Seconds that a worker with nothing to do has to leave when it is asked to, before SIGKILL: it leaves SIGTERM, which
# may have been sent to all processes of the server, to the server.
LEAVE_TIME = 5.0

_STOPPED = "The worker was stopped before it had loaded."


@frozen(eq=False)
class _Batch:
    """What is at the worker."""

    answer: Deferred[Predicted]
    on_chunk: Callable[[StreamChunk], None]


def error_status(code: int) -> int:
    """Make an HTTP status of a handler's error code, which may be any number."""
    return code if 200 <= code <= 999 else 500


@implementer(IWorker)
class ProcessWorker:
    """
    A worker process; `twisted_serve.workers.local` makes it.

    :ivar connection: What its socket is to be read and written by.
    :ivar process: What its process is to be watched by.
    :ivar shares_weights: See `IWorker`.
    :param startup_timeout: Seconds that it has to load.
    :param max_frame: The longest message that is believed, in bytes.
    :param on_line: Gets each line that it prints, and where.
    :param on_metrics: Gets what comes with its answers.
    """

    _log = Logger("twisted_serve.workers")

    def __init__(
        self,
        worker_id: str,
        clock: IReactorTime,
        startup_timeout: float,
        max_frame: int,
        on_line: Callable[[Stream, str], None],
        on_metrics: Callable[[list[Reading]], None],
    ) -> None:
        self.worker_id: str = worker_id
        self.pid: int | None = None
        self.shares_weights: bool = False
        self.loaded: Deferred[None] = Deferred()
        self.lost: Deferred[str] = Deferred()
        self._clock = clock
        self._startup_timeout = startup_timeout
        self._on_metrics = on_metrics
        self.connection = WorkerConnection(clock, self.message_received, self.connection_ended, max_frame)
        self.process = WorkerProcess(on_line, self.exited, self.output_closed)
        self._timers: dict[str, IDelayedCall] = {}
        self._begun = False
        self._loading = True
        self._batches: dict[int, _Batch] = {}
        # Whether it was asked to stop; it may finish its batch then.
        self._stopping = False
        # Whether somebody is being told an answer.
        self._answering = False
        self._exit: Exit | None = None
        self._output_closed = False
        self._killed_by_us = False
        self._why = ""
        self._gone = False

    @property
    def waiting(self) -> bool:
        """Whether it has neither begun nor failed to."""
        return not self._begun and not self._gone

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopping

    def begin(self, pid: int | None, load: LoadModel) -> None:
        """
        There are a socket and a process: have it load its model.

        :param pid: ``None`` for a process that is on its way; see `born`.
        """
        self._begun = True
        self.connection.send(load)
        if self._exit is None:
            self.pid = pid
            self._timer("load", self._startup_timeout, self._load_too_slow)

    def born(self, pid: int) -> None:
        """Its process is this one, now."""
        if self._exit is None:
            self.pid = pid

    def fail_to_begin(self, reason: str, status: int = 500) -> None:
        """There is no process, and there will be none."""
        self._gone = True
        self._loading_failed(WorkerFailed(status, reason))
        self.lost.callback(reason)

    def abandon(self, reason: str) -> None:
        """End the worker because starting it has raised: nothing is left of what was made until then."""
        if self.waiting:
            self.fail_to_begin(reason)
        else:
            self._loading_failed(WorkerFailed(500, reason))
            self.stop(0.0)
        if self.connection.connected:
            self.connection.abort("it could not be started")
        if self.process.connected:
            self._kill()

    def run(self, batch_id: int, jobs: list[Job], on_chunk: Callable[[StreamChunk], None]) -> Deferred[Predicted]:
        """See `IWorker`."""
        if self._gone or not self.connection.is_open or self._exit is not None:
            raise WorkerDied()
        if self._stopping and not self._answering:
            raise WorkerDied()
        if self._batches:
            # It is at another one, and does not look for this before that is answered.
            self.connection.send_soon(Predict(batch_id, jobs))
        else:
            self.connection.send(Predict(batch_id, jobs))
        # A batch is not called back: whoever cancels hears no more of it, and the worker answers all the same.
        answer: Deferred[Predicted] = Deferred()
        self._batches[batch_id] = _Batch(answer, on_chunk)
        return answer

    def cancel(self, request_ids: list[str]) -> None:
        """See `IWorker`."""
        if not self._gone:
            self.connection.send(Cancel(request_ids))

    def pause(self, request_ids: list[str]) -> None:
        """See `IWorker`."""
        if not self._gone:
            self.connection.send(Pause(request_ids))

    def resume(self, request_ids: list[str]) -> None:
        """See `IWorker`."""
        if not self._gone:
            self.connection.send(Resume(request_ids))

    def stop(self, grace: float) -> Deferred[None]:
        """See `IWorker`."""
        stopped: Deferred[None] = Deferred()

        def gone(how: str) -> str:
            stopped.callback(None)
            return how

        self.lost.addCallback(gone)
        if self.waiting:
            self._stopping = True
            self.fail_to_begin(_STOPPED)
        elif not self._gone:
            self._stopping = True
            self._kill_in(grace)
            if not (self._batches or self._answering):
                self._leave()
        return stopped

    def message_received(self, message: FromWorker) -> None:
        """The worker has said something."""
        if isinstance(message, StreamChunk) and message.batch_id in self._batches:
            self._batches[message.batch_id].on_chunk(message)
        elif isinstance(message, (Predicted, PredictFailed)) and message.batch_id in self._batches:
            answered = (
                message
                if isinstance(message, Predicted)
                else Failure(WorkerFailed(error_status(message.code), message.message, message.reason))
            )
            answer = self._batches.pop(message.batch_id).answer
            self._answering = True
            answer.callback(answered)
            self._answering = False
            if message.metrics:
                try:
                    self._on_metrics(message.metrics)
                except Exception:
                    self._log.failure("The metrics of worker {worker_id} could not be taken", worker_id=self.worker_id)
            # Whoever got the answer may have gone on with the batch.
            if self._stopping and not self._batches:
                self._leave()
        elif isinstance(message, Loaded) and self._loading:
            self._loading = False
            self._cancel_timer("load")
            self.loaded.callback(None)
        elif isinstance(message, LoadFailed) and self._loading:
            self._loading_failed(WorkerFailed(error_status(message.code), message.reason, printed=message.printed))
            self.stop(LEAVE_TIME)
        else:
            self.connection.abort(f"it said {type(message).__name__} when there was nothing to say it to")

    def connection_ended(self, why: str) -> None:
        """The socket has ended, or the worker broke the protocol on it."""
        if self._gone:
            return
        self._why = self._why or why
        if self._exit is not None:
            self._conclude()
        else:
            self._timer("verdict", VERDICT_WAIT, self._conclude)
            if not self._stopping:
                self._kill_in(VERDICT_WAIT)
        self._see_if_gone()

    def exited(self, how: Exit) -> None:
        """The process has been reaped."""
        self._exit = how
        self.pid = None
        # What it said last may not have been read yet.
        self._timer("verdict", VERDICT_WAIT, self._close_connection)
        self._timer("output", OUTPUT_WAIT, self.process.close_output)
        if not self.connection.is_open:
            self._conclude()

    def output_closed(self) -> None:
        """The process has been reaped, and nobody can print in its name any more."""
        self._output_closed = True
        self._see_if_gone()

    def _load_too_slow(self) -> None:
        log_no_response(self._log)
        self._loading_failed(WorkerFailed(500, f"The worker did not load within {self._startup_timeout:g} seconds."))
        self.stop(0.0)

    def _loading_failed(self, error: WorkerFailed) -> None:
        if self._loading:
            self._loading = False
            self._cancel_timer("load")
            self.loaded.errback(error)

    def _leave(self) -> None:
        """Ask the worker to end itself."""
        self.connection.close()
        self._kill_in(LEAVE_TIME)

    def _kill_in(self, seconds: float) -> None:
        """Send SIGKILL then, or earlier if that was said before."""
        due = self._timers.get("kill")
        if self._exit is None and (due is None or due.getTime() > self._clock.seconds() + seconds):
            self._timer("kill", seconds, self._kill)

    def _kill(self) -> None:
        self._killed_by_us = True
        self.process.kill()

    def _close_connection(self) -> None:
        # Something that the handler started holds it open.
        self.connection.abort("it left its connection open")

    def _conclude(self) -> None:
        """Answer whatever waits."""
        self._cancel_timer("verdict")
        killed = self._exit is not None and self._exit.killed and not self._killed_by_us
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            batch.answer.errback(WorkerDied(killed, self._how()))
        # Why a worker could not load is most often the last thing that it prints: that is waited for.
        if self._loading and (self._exit is None or self._output_closed):
            words = self.process.last_words
            how = f"{self._how()}: {words}" if words else self._how()
            reason = _STOPPED if self._stopping else f"The worker died before it had loaded: {how}"
            self._loading_failed(WorkerFailed(507 if killed else 500, reason))

    def _how(self) -> str:
        """Say how the worker ended, as far as that is known."""
        return self._why if self._exit is None else str(self._exit)

    def _see_if_gone(self) -> None:
        if self._output_closed and not self.connection.is_open and not self._gone:
            self._gone = True
            self._conclude()
            for timer in list(self._timers):
                self._cancel_timer(timer)
            self.lost.callback(str(self._exit))

    def _timer(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        def due() -> None:
            del self._timers[name]
            call()

        self._cancel_timer(name)
        self._timers[name] = self._clock.callLater(seconds, due)

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
