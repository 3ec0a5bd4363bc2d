# SPDX-License-Identifier: Apache-2.0
"""
Define the messages between the server and a worker process.

The server sends :class:`LoadModel` once, then :class:`Predict` messages, which a worker that is not asynchronous
answers one after the other; :class:`Cancel`, :class:`Pause` and :class:`Resume` may be sent at any time.

The worker sends :class:`Loaded` or :class:`LoadFailed` once, then for every ``Predict`` any number of
:class:`StreamChunk` and exactly one :class:`Predicted` or :class:`PredictFailed`.  An :class:`Item` of ``Predicted``
may request that its job is included in the next ``Predict``.  The transport is described in
``docs/designs/worker-wire.md``.
"""

from __future__ import annotations

from typing import Any, Union

from msgspec import Struct

__all__ = [
    "Cancel",
    "FromWorker",
    "Item",
    "Job",
    "LoadFailed",
    "LoadModel",
    "Loaded",
    "MetricDefinition",
    "Part",
    "Pause",
    "Predict",
    "PredictFailed",
    "Predicted",
    "Reading",
    "Resume",
    "StreamChunk",
    "ToWorker",
]


class Part(Struct, frozen=True, array_like=True):
    """
    One named input of a request: the raw body (``name="body"``) or a form field.

    :ivar content_type: The media type without parameters; ``""`` if none was sent.
    :ivar decode: Whether ``decode_input_request`` applies (form fields without a file name are always passed as bytes;
        ``docs/torchserve/rest_api.md`` §3).
    """

    name: str
    content_type: str
    value: bytes
    decode: bool = True


class Job(Struct, frozen=True, array_like=True):
    """
    One client's request.

    :ivar headers: In the client's spelling, with the last value of a repeated name; plus ``url_path``, ``explain`` and
        ``describe``, set by the server.
    """

    request_id: str
    headers: dict[str, str]
    parts: list[Part]


class MetricDefinition(Struct, frozen=True, array_like=True):
    """
    A metric that ``metrics_config`` defines for handlers.

    :ivar kind: ``counter``, ``gauge`` or ``histogram``.
    :ivar dimensions: The names of its labels, in order, without the host label.
    """

    name: str
    unit: str
    kind: str
    dimensions: list[str]


class LoadModel(Struct, frozen=True, tag="load"):
    """
    Load a model version and serve it.

    :ivar handler: ``file.py``, ``module:function`` or a built-in handler's name.
    :ivar manifest: The parsed ``MANIFEST.json`` as it is on disk; empty if there is none.
    :ivar model_config: The parsed ``model-config.yaml``; empty if there is none.
    :ivar envelope: A built-in envelope's name, or a module that defines one; ``None`` for none.
    :ivar gpu_id: The device, ``None`` for the CPU.
    :ivar max_response_size: Maximum bytes per response; a larger one is an error of that request alone.
    :ivar asynchronous: Whether the server may send further batches before the first is answered; the handler is then a
        coroutine function.
    :ivar continuous: Whether the handler may return partial responses (`Item.more`).
    :ivar allow_pickled_weights: Whether weights may contain more than tensors; loading these runs code.
    :ivar metrics: The initial metrics of the handler's ``context.metrics``.
    :ivar import_path: Absolute directories that the handler's modules are imported from, besides ``model_dir``.
    """

    model_name: str
    model_version: str
    model_dir: str
    handler: str
    batch_size: int
    manifest: dict[str, Any]
    model_config: dict[str, Any]
    server_version: str
    envelope: str | None = None
    gpu_id: int | None = None
    limit_max_image_pixels: bool = True
    decode_input_request: bool = True
    max_response_size: int = 6553500
    asynchronous: bool = False
    allow_pickled_weights: bool = False
    continuous: bool = False
    metrics: list[MetricDefinition] = []
    import_path: list[str] = []


class Predict(Struct, frozen=True, tag="predict"):
    """Answer these jobs as one batch."""

    batch_id: int
    jobs: list[Job]


class Cancel(Struct, frozen=True, tag="cancel"):
    """The clients of these requests have disconnected; a streaming handler may stop."""

    request_ids: list[str]


class Pause(Struct, frozen=True, tag="pause"):
    """Send no more chunks for these requests until `Resume`: their clients read too slowly (back-pressure)."""

    request_ids: list[str]


class Resume(Struct, frozen=True, tag="resume"):
    """Continue these requests: their clients have read the pending chunks."""

    request_ids: list[str]


class Loaded(Struct, frozen=True, tag="loaded"):
    """The handler is imported and initialized."""


class LoadFailed(Struct, frozen=True, tag="load-failed"):
    """
    The handler could not be loaded; the worker exits after this message.

    :ivar code: 507 when memory was exhausted, otherwise 500.
    :ivar reason: One line for the client, e.g. ``SyntaxError: invalid syntax (handler.py, line 3)``.
    :ivar printed: Whether the worker has printed the traceback, so that it is in the model log.
    """

    code: int
    reason: str
    printed: bool = False


class Item(Struct, frozen=True, array_like=True):
    """
    The response to one job of a batch.

    :ivar phrase: The handler's reason phrase; ``""`` if it set none.
    :ivar headers: The handler's response headers, including the content type.
    :ivar more: Whether the job must be in the next batch, too, to continue its response.
    :ivar flaw: The error in a request that was not passed to the handler; the other fields are then empty.
    """

    request_id: str
    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes
    more: bool = False
    flaw: str = ""


class Reading(Struct, frozen=True, array_like=True):
    """
    One value of a metric from a worker.

    :ivar labels: Comma-separated ``Name:value`` pairs.
    :ivar kind: ``COUNTER``, ``GAUGE`` or ``HISTOGRAM``.
    :ivar time: Seconds since the epoch.
    :ivar request_ids: The comma-separated ids of the requests it belongs to; may be empty.
    """

    name: str
    unit: str
    value: float
    labels: str
    kind: str
    host: str
    time: int
    request_ids: str


class Predicted(Struct, frozen=True, tag="predicted", omit_defaults=True):
    """
    The handler's responses: one item for each job, in the order of the jobs.

    :ivar seconds: The worker's time for the whole batch; ``0`` if it was not measured.
    :ivar metrics: Metrics emitted during the batch that have not been printed.
    """

    batch_id: int
    items: list[Item]
    seconds: float = 0.0
    metrics: list[Reading] = []


class PredictFailed(Struct, frozen=True, tag="predict-failed", omit_defaults=True):
    """
    The handler raised, or returned an invalid value: one error for the whole batch.

    :ivar metrics: As in `Predicted`.
    :ivar reason: The error and its location in one line; not shown to every client.
    """

    batch_id: int
    code: int
    message: str
    metrics: list[Reading] = []
    reason: str = ""


class StreamChunk(Struct, frozen=True, tag="chunk"):
    """An intermediate response; more will follow."""

    batch_id: int
    item: Item


ToWorker = Union[LoadModel, Predict, Cancel, Pause, Resume]
FromWorker = Union[Loaded, LoadFailed, Predicted, PredictFailed, StreamChunk]
