# SPDX-License-Identifier: Apache-2.0
"""
Prepare a batch for the handler, and convert its chunks, result or exception to messages.

Status codes and texts are TorchServe's (``docs/torchserve/archives_workers_handlers.md`` §7.5).
"""

from __future__ import annotations

from threading import Lock
from time import perf_counter
from typing import Any, Protocol

from twisted_serve.backend.encoding import FlawedInputError, UnsupportedOutputError, body, row
from twisted_serve.backend.faults import complain, out_of_resources, public_reason, text_of
from twisted_serve.backend.items import STREAM_HEADER, checked_item, is_status, item
from twisted_serve.backend.metric_buffer import Gathering
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.metrics import keeper
from twisted_serve.wire.messages import FromWorker, Item, Job, LoadModel, Predict, Predicted, PredictFailed, StreamChunk

# The longest message for a client, in characters; it has to fit into a frame.
MAX_MESSAGE = 64 * 1024

# The number of requests of a batch that are named in the log.
MAX_LOGGED_IDS = 32


class Outlet(Protocol):
    """The part of the worker's channel that a call uses."""

    def send(self, message: FromWorker) -> None:
        """Send a message to the server."""

    def is_cancelled(self, request_id: str) -> bool:
        """Return whether the client of this request has disconnected."""

    def may_send(self, request_id: str) -> bool:
        """
        Return whether the client of this request is still connected.

        An outlet that may block first waits until the client can take a chunk.
        """


class Call:
    """
    A batch in processing.

    The context calls it to send chunks, from any thread of the handler.

    :ivar context: The handler's context, set up for this batch.
    :param metrics: The buffer for metrics emitted until the response.
    """

    def __init__(self, load: LoadModel, context: Context, predict: Predict, outlet: Outlet, metrics: Gathering) -> None:
        self.context = context
        self._load = load
        self._predict = predict
        self._outlet = outlet
        self._metrics = metrics
        # Held while a chunk is sent: no chunk may follow the final response.
        self._streaming = Lock()
        self._started_at = perf_counter()
        self._handler_started_at = self._started_at
        # Request id to error, for malformed requests, which the handler does not get.
        self._malformed: dict[str, str] = {}
        context.requests = self
        self._begin(predict.jobs)
        keeper.set(metrics.keep)

    def _begin(self, jobs: list[Job]) -> None:
        self._jobs = jobs
        ids = [job.request_id for job in jobs]
        self._positions = {request_id: index for index, request_id in enumerate(ids)}
        self.context.begin_batch(ids, [_headers(job) for job in jobs])
        self.context.metrics.set_request_ids(dict(enumerate(ids)))

    def rows(self) -> list[dict[str, Any]]:
        """Return the handler's ``data``: one dict for each well-formed request."""
        rows = []
        for job in self._jobs:
            try:
                rows.append(row(job.parts, self._load.decode_input_request))
            except FlawedInputError as e:  # noqa: PERF203 - each request separately
                self._malformed[job.request_id] = str(e)
        if self._malformed:
            self._begin([job for job in self._jobs if job.request_id not in self._malformed])
        self._handler_started_at = perf_counter()
        return rows

    def send_chunk(self, request_id: str, value: Any) -> None:
        """
        Send an intermediate response, as soon as the client can take it; do nothing if it has disconnected.

        :raise ValueError: if the request is not in this batch, or the value cannot be sent.
        """
        self._position(request_id)
        # The final response may take long, so do not hold metrics back for it.
        self._metrics.flush()
        if not self._outlet.may_send(request_id):
            return
        with self._streaming:
            processor = self.context.request_processor[self._position(request_id)]
            try:
                chunk = checked_item(request_id, processor, body(value), self._load.max_response_size)
            except UnsupportedOutputError as e:
                raise ValueError(str(e)) from e
            self._outlet.send(StreamChunk(self._predict.batch_id, chunk))

    def is_cancelled(self, request_id: str) -> bool:
        """Return whether the client of this request has disconnected; ``False`` for a request not in this batch."""
        return request_id in self._positions and self._outlet.is_cancelled(request_id)

    def answer(self, results: Any) -> Predicted | PredictFailed:
        """Return the response message for the handler's result."""
        jobs = self._jobs
        if not jobs:
            return self._predicted([])
        self.context.metrics.add_time("PredictionTime", round((perf_counter() - self._handler_started_at) * 1000, 2))
        if not isinstance(results, list):
            flaw = f"the handler must return a list, not {type(results).__name__:.80}"
            complain(f"{flaw}; {self._log_context()}")
            return self._failed(503, "Invalid model predict output", flaw)
        if len(results) != len(jobs):
            flaw = f"number of batch response mismatched, expect: {len(jobs)}, got: {len(results)}."
            complain(f"model: {self._load.model_name}, {flaw} {self._log_context()}")
            return self._failed(503, "number of batch response mismatched", flaw)
        try:
            bodies = [body(each) for each in results]
        except UnsupportedOutputError as e:
            complain(f"Unsupported model output data type. {self._log_context()}", e)
            return self._failed(503, "Unsupported model output data type.", str(e))
        limit = self._load.max_response_size
        # Stopping criteria are called first, because they may set headers.
        more = [self._continues(*each) for each in enumerate(results)] if self._load.continuous else [False] * len(jobs)
        answers = zip(jobs, self.context.request_processor, bodies, more, strict=True)
        return self._predicted([item(job.request_id, head, text, limit, on) for job, head, text, on in answers])

    def _predicted(self, items: list[Item]) -> Predicted:
        """Return the response message for items, with errors for malformed requests inserted at their positions."""
        if self._malformed:
            seen = iter(items)
            items = [
                Item(job.request_id, 400, "", {}, b"", False, flaw)
                if (flaw := self._malformed.get(job.request_id))
                else next(seen)
                for job in self._predict.jobs
            ]
        return Predicted(self._predict.batch_id, items, perf_counter() - self._started_at, self._metrics.take())

    def failure(self, error: BaseException) -> PredictFailed:
        """Return the response message for an exception of the handler."""
        if isinstance(error, PredictionException):
            code = error.error_code if is_status(error.error_code) else 500
            return self._failed(int(code), text_of(error.message)[:MAX_MESSAGE])
        complain(f"Invoking custom service failed. {self._log_context()}", error)
        reason = public_reason(error, self._load.model_dir)
        if out_of_resources(error):
            return self._failed(507, "Out of resources", reason)
        return self._failed(503, "Prediction failed", reason)

    def end(self) -> None:
        """Refuse further chunks, and flush the metrics."""
        with self._streaming:
            self._positions = {}
        keeper.set(None)
        self._metrics.end()

    def _failed(self, code: int, message: str, reason: str = "") -> PredictFailed:
        return PredictFailed(self._predict.batch_id, code, message, self._metrics.take(), reason)

    def _log_context(self) -> str:
        """Return the model's name and the request ids (``X-Request-Id`` of the responses), for the log."""
        ids = [job.request_id for job in self._jobs[:MAX_LOGGED_IDS]]
        more = f" and {len(self._jobs) - MAX_LOGGED_IDS} more" if len(self._jobs) > MAX_LOGGED_IDS else ""
        return f"model: {self._load.model_name} {self._load.model_version}, requests: {', '.join(ids)}{more}"

    def _continues(self, index: int, result: Any) -> bool:
        """Return whether a request continues with another batch, by its stopping criterion or a header."""
        # A describe response is complete; a criterion left over from the previous call does not apply to it.
        if "describe" in self._jobs[index].headers:
            return False
        criteria = self.context.stopping_criteria
        if criteria:
            stops = criteria[index](result)
            return stops is not None and not stops
        headers = self.context.request_processor[index].get_response_headers()
        return any(name.lower() == STREAM_HEADER and value == "true" for name, value in headers.items())

    def _position(self, request_id: str) -> int:
        try:
            return self._positions[request_id]
        except KeyError:
            raise ValueError(f"request {request_id} is not being answered") from None


def _headers(job: Job) -> dict[str, Any]:
    """Return the handler's view of the headers: content types by part name, then the client's headers."""
    headers: dict[str, Any] = {part.name: {"content-type": part.content_type} for part in job.parts}
    headers.update(job.headers)
    return headers
