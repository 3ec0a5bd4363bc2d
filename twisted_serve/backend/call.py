# SPDX-License-Identifier: Apache-2.0
"""
This module implements one call of the handler: its requests, their chunks, and what becomes of its result.

Statuses and texts are the predecessor's (``spec/archives_workers_handlers.md`` §7.5).
"""

from __future__ import annotations

from threading import Lock
from time import perf_counter
from typing import Any, Protocol

from twisted_serve.backend.encoding import UnsupportedOutputError, body, row
from twisted_serve.backend.faults import complain, out_of_resources, text_of
from twisted_serve.backend.gathering import Gathering
from twisted_serve.backend.items import STREAM_HEADER, checked_item, is_status, item
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.metrics import keeper
from twisted_serve.wire.messages import FromWorker, Job, LoadModel, Predict, Predicted, PredictFailed, StreamChunk

# A message for a client; it has to fit into a frame.
MAX_MESSAGE = 64 * 1024


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
        ids = [job.request_id for job in predict.jobs]
        self._positions = {request_id: index for index, request_id in enumerate(ids)}
        self._began = self._opened
        context.requests = self
        context.begin_batch(ids, [_headers(job) for job in predict.jobs])
        context.metrics.set_request_ids(dict(enumerate(ids)))
        keeper.set(metrics.keep)

    def rows(self) -> list[dict[str, Any]]:
        """Make what the handler gets as ``data``."""
        rows = [row(job.parts, self._load.decode_input_request) for job in self._predict.jobs]
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
        jobs = self._predict.jobs
        self.context.metrics.add_time("PredictionTime", round((perf_counter() - self._began) * 1000, 2))
        if not isinstance(results, list):
            complain(f"model: {self._load.model_name}, the handler must return a list, not {type(results)}")
            return self._failed(503, "Invalid model predict output")
        if len(results) != len(jobs):
            complain(
                f"model: {self._load.model_name}, number of batch response mismatched, "
                f"expect: {len(jobs)}, got: {len(results)}."
            )
            return self._failed(503, "number of batch response mismatched")
        try:
            bodies = [body(each) for each in results]
        except UnsupportedOutputError as e:
            complain("Unsupported model output data type.", e)
            return self._failed(503, "Unsupported model output data type.")
        limit = self._load.max_response_size
        # Who is asked may set headers.
        more = [self._goes_on(*each) for each in enumerate(results)] if self._load.continuous else [False] * len(jobs)
        answers = zip(jobs, self.context.request_processor, bodies, more, strict=True)
        items = [item(job.request_id, head, text, limit, on) for job, head, text, on in answers]
        return Predicted(self._predict.batch_id, items, perf_counter() - self._opened, self._metrics.take())

    def failure(self, error: BaseException) -> PredictFailed:
        """Make the answer of what the handler raised."""
        if isinstance(error, PredictionException):
            code = error.error_code if is_status(error.error_code) else 500
            return self._failed(int(code), text_of(error.message)[:MAX_MESSAGE])
        complain("Invoking custom service failed.", error)
        if out_of_resources(error):
            return self._failed(507, "Out of resources")
        return self._failed(503, "Prediction failed")

    def end(self) -> None:
        """Let no chunk pass any more, and leave no metric behind."""
        with self._streaming:
            self._positions = {}
        keeper.set(None)
        self._metrics.end()

    def _failed(self, code: int, message: str) -> PredictFailed:
        return PredictFailed(self._predict.batch_id, code, message, self._metrics.take())

    def _goes_on(self, index: int, result: Any) -> bool:
        """Say whether the handler wants to be called again for a request, by its stopping criterion or a header."""
        # A description is whole; a criterion that is left from the call before was not made for it.
        if "describe" in self._predict.jobs[index].headers:
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
