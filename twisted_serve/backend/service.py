# SPDX-License-Identifier: Apache-2.0
"""
This module implements the answer to a batch: one call of the handler between decoding and encoding.

Statuses and texts are the predecessor's (``spec/archives_workers_handlers.md`` §7.5).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol
from uuid import uuid4

from twisted_serve.backend.encoding import UnsupportedOutputError, body, row
from twisted_serve.backend.faults import out_of_resources, text_of
from twisted_serve.backend.items import checked_item, is_status, item
from twisted_serve.backend.loader import EntryPoint, load_entry_point
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.metrics import MetricsCacheYamlImpl
from twisted_serve.wire.messages import FromWorker, Job, LoadModel, Predict, Predicted, PredictFailed, StreamChunk

_log = logging.getLogger(__name__)


class Outlet(Protocol):
    """What a service needs of the worker's channel."""

    def send(self, message: FromWorker) -> None:
        """Send a message to the server."""

    def is_cancelled(self, request_id: str) -> bool:
        """Whether the client of this request has gone."""


class Service:
    """
    A model version in this process, ready to answer.

    It is also what its context calls back for chunks, from any thread of the handler.
    """

    def __init__(self, load: LoadModel, context: Context, entry: EntryPoint, outlet: Outlet) -> None:
        self._load = load
        self._context = context
        self._entry = entry
        self._outlet = outlet
        # Held while a chunk is sent: none may follow the answer it belongs before.
        self._streaming = Lock()
        self._batch_id = 0
        self._positions: dict[str, int] = {}
        context.requests = self

    def answer(self, predict: Predict) -> Predicted | PredictFailed:
        """
        Have the handler answer a batch.

        Its exceptions become answers; ``SystemExit`` and ``KeyboardInterrupt`` it may keep.
        """
        self._begin(predict)
        try:
            rows = [row(job.parts, self._load.decode_input_request) for job in predict.jobs]
            return self._checked(predict.batch_id, predict.jobs, self._entry(rows, self._context))
        except PredictionException as e:
            code = e.error_code if is_status(e.error_code) else 500
            return PredictFailed(predict.batch_id, int(code), text_of(e.message))
        except Exception as e:
            _log.warning("Invoking custom service failed.", exc_info=True)
            if out_of_resources(e):
                return PredictFailed(predict.batch_id, 507, "Out of resources")
            return PredictFailed(predict.batch_id, 503, "Prediction failed")
        finally:
            with self._streaming:
                self._positions = {}

    def send_chunk(self, request_id: str, value: Any) -> None:
        """
        Send an intermediate answer; if the client has gone, do nothing.

        :raise ValueError: if this request is not being answered now, or the answer cannot be sent.
        """
        with self._streaming:
            if request_id not in self._positions:
                raise ValueError(f"request {request_id} is not being answered")
            if self._outlet.is_cancelled(request_id):
                return
            processor = self._context.request_processor[self._positions[request_id]]
            try:
                chunk = checked_item(request_id, processor, body(value), self._load.max_response_size)
            except UnsupportedOutputError as e:
                raise ValueError(str(e)) from e
            self._outlet.send(StreamChunk(self._batch_id, chunk))

    def is_cancelled(self, request_id: str) -> bool:
        """Whether the client of this request has gone."""
        return self._outlet.is_cancelled(request_id)

    def _begin(self, predict: Predict) -> None:
        ids = [job.request_id for job in predict.jobs]
        self._batch_id = predict.batch_id
        self._positions = {request_id: index for index, request_id in enumerate(ids)}
        self._context.begin_batch(ids, [_headers(job) for job in predict.jobs])
        self._context.metrics.set_request_ids(dict(enumerate(ids)))

    def _checked(self, batch_id: int, jobs: Sequence[Job], results: Any) -> Predicted | PredictFailed:
        if not isinstance(results, list):
            _log.warning("model: %s, the handler must return a list, not %s", self._load.model_name, type(results))
            return PredictFailed(batch_id, 503, "Invalid model predict output")
        if len(results) != len(jobs):
            _log.warning(
                "model: %s, number of batch response mismatched, expect: %s, got: %s.",
                self._load.model_name,
                len(jobs),
                len(results),
            )
            return PredictFailed(batch_id, 503, "number of batch response mismatched")
        try:
            bodies = [body(each) for each in results]
        except UnsupportedOutputError:
            _log.warning("Unsupported model output data type.", exc_info=True)
            return PredictFailed(batch_id, 503, "Unsupported model output data type.")
        limit = self._load.max_response_size
        answers = zip(jobs, self._context.request_processor, bodies, strict=True)
        return Predicted(batch_id, [item(job.request_id, processor, each, limit) for job, processor, each in answers])


def open_service(load: LoadModel, outlet: Outlet) -> Service:
    """
    Load and initialize the handler.  The model directory must be on the import path.

    :raise Exception: whatever keeps the handler from loading.
    """
    if load.envelope is not None:
        name = f"ts.torch_handler.request_envelope.{load.envelope}"
        raise ModuleNotFoundError(f"{name} is not provided by twisted_serve", name=name)
    metrics = MetricsCacheYamlImpl(load.model_name)
    # What is emitted while loading needs an id too.
    metrics.set_request_ids(str(uuid4()))
    context = Context(
        load.model_name,
        load.model_dir,
        load.manifest or None,
        load.batch_size,
        load.gpu_id,
        load.server_version,
        load.limit_max_image_pixels,
        metrics,
        load.model_config,
    )
    return Service(load, context, load_entry_point(load.handler, context), outlet)


def _headers(job: Job) -> dict[str, Any]:
    """Make what the handler sees as headers: the parts' types under their names, then the client's headers."""
    headers: dict[str, Any] = {part.name: {"content-type": part.content_type} for part in job.parts}
    headers.update(job.headers)
    return headers
