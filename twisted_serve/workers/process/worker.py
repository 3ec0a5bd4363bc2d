# SPDX-License-Identifier: Apache-2.0
"""
Implement ``IWorker`` as a process of this machine.

The end of a worker shows in three events, in any order: the socket closes, the process is reaped, its output closes.
Batches in flight fail as soon as the exit status is known, or `EXIT_STATUS_WAIT` seconds after the first event if it is
not known by then. ``lost`` fires after all three events.
"""

from __future__ import annotations

from collections.abc import Callable

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

_log = Logger("twisted_serve.workers")

# Seconds between the end of the socket and the exit of the process within which they count as one event.
EXIT_STATUS_WAIT = 1.0
# Seconds that an idle worker has to exit when it is asked to, before SIGKILL. Workers ignore SIGTERM, which may have
# been sent to all processes of the server, and leave it to the server.
EXIT_TIME = 5.0

_STOPPED = "The worker was stopped before it had loaded."


def error_status(code: int) -> int:
    """Return an HTTP status for a handler's error code: the code itself if it is valid (200 to 999), else 500."""
    return code if 200 <= code <= 999 else 500


@implementer(IWorker)
class ProcessWorker:
    """
    A worker process; `twisted_serve.workers.local` makes it.

    :ivar connection: The protocol for the worker's socket.
    :ivar process: The process protocol that watches the worker's process.
    :ivar shares_weights: See `IWorker`.
    :param startup_timeout: Seconds that the worker has to load its model.
    :param max_frame: The longest message that is accepted from the worker, in bytes.
    :param on_line: Called with the stream and the text of each line of output.
    :param on_metrics: Called with the metrics that come with responses.
    """

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
        self._started = False
        self._loading = True
        # The answer to each batch in flight, and the receiver of its chunks.
        self._batches: dict[int, tuple[Deferred[Predicted], Callable[[StreamChunk], None]]] = {}
        # Whether the worker was asked to stop; it may finish its batches.
        self._stopping = False
        # Whether the callbacks of a batch's response are running.
        self._answering = False
        self._exit: Exit | None = None
        self._output_closed = False
        self._killed_by_us = False
        self._why = ""
        self._gone = False

    @property
    def waiting(self) -> bool:
        """Whether the worker has neither started nor failed to start."""
        return not self._started and not self._gone

    @property
    def stopping(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._stopping

    def begin(self, pid: int | None, load: LoadModel) -> None:
        """
        Send the load message; the socket is connected and the process is running or being forked.

        :param pid: ``None`` while the process is being forked; see `forked`.
        """
        self._started = True
        self.connection.send(load)
        if self._exit is None:
            self.pid = pid
            self._timer("load", self._startup_timeout, self._load_too_slow)

    def forked(self, pid: int) -> None:
        """Set the process id of a forked worker."""
        if self._exit is None:
            self.pid = pid

    def fail_to_start(self, reason: str, status: int = 500) -> None:
        """Fail the worker before it has a process; it will not get one."""
        self._gone = True
        self._loading_failed(WorkerFailed(status, reason))
        self.lost.callback(reason)

    def abandon(self, reason: str) -> None:
        """End the worker after its start raised an exception, and release its socket and process."""
        if self.waiting:
            self.fail_to_start(reason)
        else:
            self._loading_failed(WorkerFailed(500, reason))
            self.stop(0.0)
        if self.connection.connected:
            self.connection.abort("it could not be started")
        if self.process.connected:
            self._kill()

    def run(self, batch_id: int, jobs: list[Job], on_chunk: Callable[[StreamChunk], None]) -> Deferred[Predicted]:
        """
        Send a batch; see `IWorker`.

        :raise WorkerDied: if the worker is lost or stopping.
        """
        if self._gone or not self.connection.is_open or self._exit is not None:
            raise WorkerDied()
        if self._stopping and not self._answering:
            raise WorkerDied()
        if self._batches:
            # The worker is running another batch and reads this message only after answering that one.
            self.connection.send_soon(Predict(batch_id, jobs))
        else:
            self.connection.send(Predict(batch_id, jobs))
        # Cancelling this Deferred only discards the response: the worker still sends it.
        answer: Deferred[Predicted] = Deferred()
        self._batches[batch_id] = (answer, on_chunk)
        return answer

    def cancel(self, request_ids: list[str]) -> None:
        """Cancel requests; see `IWorker`."""
        if not self._gone:
            self.connection.send(Cancel(request_ids))

    def pause(self, request_ids: list[str]) -> None:
        """Pause the streams of requests; see `IWorker`."""
        if not self._gone:
            self.connection.send(Pause(request_ids))

    def resume(self, request_ids: list[str]) -> None:
        """Resume the streams of requests; see `IWorker`."""
        if not self._gone:
            self.connection.send(Resume(request_ids))

    def stop(self, grace: float) -> Deferred[None]:
        """Stop the worker within ``grace`` seconds; see `IWorker`."""
        stopped: Deferred[None] = Deferred()

        def gone(how: str) -> str:
            stopped.callback(None)
            return how

        self.lost.addCallback(gone)
        if self.waiting:
            self._stopping = True
            self.fail_to_start(_STOPPED)
        elif not self._gone:
            self._stopping = True
            self._kill_after(grace)
            if not (self._batches or self._answering):
                self._ask_to_exit()
        return stopped

    def message_received(self, message: FromWorker) -> None:
        """Handle a message from the worker."""
        if isinstance(message, (Predicted, PredictFailed)) and message.batch_id in self._batches:
            answered = (
                message
                if isinstance(message, Predicted)
                else Failure(WorkerFailed(error_status(message.code), message.message, message.reason))
            )
            answer, _on_chunk = self._batches.pop(message.batch_id)
            self._answering = True
            answer.callback(answered)
            self._answering = False
            if message.metrics:
                try:
                    self._on_metrics(message.metrics)
                except Exception:
                    _log.failure("The metrics of worker {worker_id} could not be taken", worker_id=self.worker_id)
            # A callback of the response may have sent the next batch.
            if self._stopping and not self._batches:
                self._ask_to_exit()
        elif isinstance(message, StreamChunk) and message.batch_id in self._batches:
            self._batches[message.batch_id][1](message)
        elif isinstance(message, Loaded) and self._loading:
            self._loading = False
            self._cancel_timer("load")
            self.loaded.callback(None)
        elif isinstance(message, LoadFailed) and self._loading:
            self._loading_failed(WorkerFailed(error_status(message.code), message.reason, printed=message.printed))
            self.stop(EXIT_TIME)
        else:
            self.connection.abort(f"it said {type(message).__name__} when there was nothing to say it to")

    def connection_ended(self, why: str) -> None:
        """Handle the end of the socket or a protocol violation on it."""
        if self._gone:
            return
        self._why = self._why or why
        if self._exit is not None:
            self._conclude()
        else:
            self._timer("verdict", EXIT_STATUS_WAIT, self._conclude)
            if not self._stopping:
                self._kill_after(EXIT_STATUS_WAIT)
        self._check_gone()

    def exited(self, how: Exit) -> None:
        """Handle the exit of the process: it has been reaped."""
        self._exit = how
        self.pid = None
        # The last messages of the worker may not have been read yet.
        self._timer("verdict", EXIT_STATUS_WAIT, self._close_connection)
        self._timer("output", OUTPUT_WAIT, self.process.close_output)
        if not self.connection.is_open:
            self._conclude()

    def output_closed(self) -> None:
        """Handle the end of the output: the process has been reaped, and no descendant holds its output open."""
        self._output_closed = True
        self._check_gone()

    def _load_too_slow(self) -> None:
        log_no_response(_log)
        self._loading_failed(WorkerFailed(500, f"The worker did not load within {self._startup_timeout:g} seconds."))
        self.stop(0.0)

    def _loading_failed(self, error: WorkerFailed) -> None:
        if self._loading:
            self._loading = False
            self._cancel_timer("load")
            self.loaded.errback(error)

    def _ask_to_exit(self) -> None:
        """Ask the worker to exit by closing its connection; kill it after `EXIT_TIME` seconds."""
        self.connection.close()
        self._kill_after(EXIT_TIME)

    def _kill_after(self, seconds: float) -> None:
        """Schedule SIGKILL, unless an earlier one is scheduled."""
        due = self._timers.get("kill")
        if self._exit is None and (due is None or due.getTime() > self._clock.seconds() + seconds):
            self._timer("kill", seconds, self._kill)

    def _kill(self) -> None:
        self._killed_by_us = True
        self.process.kill()

    def _close_connection(self) -> None:
        # A process that the handler started holds the socket open.
        self.connection.abort("it left its connection open")

    def _conclude(self) -> None:
        """Fail the batches in flight and, if it is time, the loading."""
        self._cancel_timer("verdict")
        killed = self._exit is not None and self._exit.killed and not self._killed_by_us
        batches, self._batches = self._batches, {}
        for answer, _on_chunk in batches.values():
            answer.errback(WorkerDied(killed, self._cause()))
        # The last line that a worker prints usually says why it could not load: wait for the end of its output.
        if self._loading and (self._exit is None or self._output_closed):
            last_line = self.process.last_error_line
            how = f"{self._cause()}: {last_line}" if last_line else self._cause()
            reason = _STOPPED if self._stopping else f"The worker died before it had loaded: {how}"
            self._loading_failed(WorkerFailed(507 if killed else 500, reason))

    def _cause(self) -> str:
        """Return how the worker ended, as far as is known."""
        return self._why if self._exit is None else str(self._exit)

    def _check_gone(self) -> None:
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
