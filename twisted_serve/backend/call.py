# SPDX-License-Identifier: Apache-2.0
"""
This module implements one call of the handler: its requests, their chunks, and what becomes of its result.

Statuses and texts are the predecessor's (``docs/torchserve/archives_workers_handlers.md`` §7.5).
"""

from __future__ import annotations

from threading import Lock
from time import perf_counter
from typing import Any, Protocol

from twisted_serve.backend.encoding import FlawedInputError, UnsupportedOutputError, body, row
from twisted_serve.backend.faults import complain, out_of_resources, public_reason, text_of
from twisted_serve.backend.gathering import Gathering
from twisted_serve.backend.items import STREAM_HEADER, checked_item, is_status, item
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.metrics import keeper
from twisted_serve.wire.messages import FromWorker, Item, Job, LoadModel, Predict, Predicted, PredictFailed, StreamChunk

# A message for a client; it has to fit into a frame.
MAX_MESSAGE = 64 * 1024

# So many requests of a batch are named in the log.
MOST_NAMED = 32


class Outlet(Protocol):
    """What a call needs of the worker's channel."""

    def send(self, message: FromWorker) -> None:
        """Send a message to the server."""

    def is_cancelled(self, request_id: str) -> bool:
        """Whether the client of this request has gone."""

    def may_send(self, request_id: str) -> bool:
        """Say whether the client of this request is still there; wait first, if it can, until that takes a chunk."""


class Call:
    """
    A batch that is being answered.

    It is also what the context calls back for chunks, from any thread of the handler.

    :ivar context: What the handler is given; it knows this batch and no other.
    :param metrics: Where what is emitted meanwhile waits for the answer.
    """

    def __init__(self, load: LoadModel, context: Context, predict: Predict, outlet: Outlet, metrics: Gathering) -> None:
        self.context = context
        self._load = load
        self._predict = predict
        self._outlet = outlet
        self._metrics = metrics
        # Held while a chunk is sent: none may follow the answer it belongs before.
        self._streaming = Lock()
        self._opened = perf_counter()
        self._began = self._opened
        # What is wrong with the requests that the handler does not see, by their ids.
        self._flaws: dict[str, str] = {}
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
        """Make what the handler gets as ``data``, of the requests that can be read; nothing if none can."""
        rows = []
        for job in self._jobs:
            try:
                rows.append(row(job.parts, self._load.decode_input_request))
            except FlawedInputError as e:  # noqa: PERF203 - each for itself
                self._flaws[job.request_id] = str(e)
        if self._flaws:
            self._begin([job for job in self._jobs if job.request_id not in self._flaws])
        self._began = perf_counter()
        return rows

    def send_chunk(self, request_id: str, value: Any) -> None:
        """
        Send an intermediate answer, as soon as the client can take it; if it has gone, do nothing.

        :raise ValueError: if this request is not being answered now, or the answer cannot be sent.
        """
        self._position(request_id)
        # The answer may be far away.
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
        """Whether the client of this request has gone; ``False`` for one that is not being answered now."""
        return request_id in self._positions and self._outlet.is_cancelled(request_id)

    def answer(self, results: Any) -> Predicted | PredictFailed:
        """Make the answer of what the handler returned."""
        jobs = self._jobs
        if not jobs:
            return self._predicted([])
        self.context.metrics.add_time("PredictionTime", round((perf_counter() - self._began) * 1000, 2))
        if not isinstance(results, list):
            flaw = f"the handler must return a list, not {type(results).__name__:.80}"
            complain(f"{flaw}; {self._about()}")
            return self._failed(503, "Invalid model predict output", flaw)
        if len(results) != len(jobs):
            flaw = f"number of batch response mismatched, expect: {len(jobs)}, got: {len(results)}."
            complain(f"model: {self._load.model_name}, {flaw} {self._about()}")
            return self._failed(503, "number of batch response mismatched", flaw)
        try:
            bodies = [body(each) for each in results]
        except UnsupportedOutputError as e:
            complain(f"Unsupported model output data type. {self._about()}", e)
            return self._failed(503, "Unsupported model output data type.", str(e))
        limit = self._load.max_response_size
        # Who is asked may set headers.
        more = [self._goes_on(*each) for each in enumerate(results)] if self._load.continuous else [False] * len(jobs)
        answers = zip(jobs, self.context.request_processor, bodies, more, strict=True)
        return self._predicted([item(job.request_id, head, text, limit, on) for job, head, text, on in answers])

    def _predicted(self, items: list[Item]) -> Predicted:
        """Make the answer of items, with those of the requests that the handler has not seen in their places."""
        if self._flaws:
            seen = iter(items)
            items = [
                Item(job.request_id, 400, "", {}, b"", False, flaw)
                if (flaw := self._flaws.get(job.request_id))
                else next(seen)
                for job in self._predict.jobs
            ]
        return Predicted(self._predict.batch_id, items, perf_counter() - self._opened, self._metrics.take())

    def failure(self, error: BaseException) -> PredictFailed:
        """Make the answer of what the handler raised."""
        if isinstance(error, PredictionException):
            code = error.error_code if is_status(error.error_code) else 500
            return self._failed(int(code), text_of(error.message)[:MAX_MESSAGE])
        complain(f"Invoking custom service failed. {self._about()}", error)
        reason = public_reason(error, self._load.model_dir)
        if out_of_resources(error):
            return self._failed(507, "Out of resources", reason)
        return self._failed(503, "Prediction failed", reason)

    def end(self) -> None:
        """Let no chunk pass any more, and leave no metric behind."""
        with self._streaming:
            self._positions = {}
        keeper.set(None)
        self._metrics.end()

    def _failed(self, code: int, message: str, reason: str = "") -> PredictFailed:
        return PredictFailed(self._predict.batch_id, code, message, self._metrics.take(), reason)

    def _about(self) -> str:
        """Name the model, and the requests by what their answers have as ``X-Request-Id``, for the log."""
        ids = [job.request_id for job in self._jobs[:MOST_NAMED]]
        more = f" and {len(self._jobs) - MOST_NAMED} more" if len(self._jobs) > MOST_NAMED else ""
        return f"model: {self._load.model_name} {self._load.model_version}, requests: {', '.join(ids)}{more}"

    def _goes_on(self, index: int, result: Any) -> bool:
        """Say whether the handler wants to be called again for a request, by its stopping criterion or a header."""
        # A description is whole; a criterion that is left from the call before was not made for it.
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
    """Make what the handler sees as headers: the parts' types under their names, then the client's headers."""
    headers: dict[str, Any] = {part.name: {"content-type": part.content_type} for part in job.parts}
    headers.update(job.headers)
    return headers
