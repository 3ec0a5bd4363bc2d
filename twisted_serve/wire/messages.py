# SPDX-License-Identifier: Apache-2.0
"""
This module implements the messages which pass between the server and a worker process.

The server sends :class:`LoadModel` once, then :class:`Predict` frames, of which a worker that is not asynchronous
answers one after the other; :class:`Cancel`, :class:`Pause` and :class:`Resume` may come at any time.
The worker sends :class:`Loaded` or :class:`LoadFailed` once, then for every
``Predict`` any number of :class:`StreamChunk` and exactly one :class:`Predicted`
or :class:`PredictFailed`.  An :class:`Item` of ``Predicted`` may say that its job
is to be in the next ``Predict`` again.  The transport is ``docs/designs/worker-wire.md``.
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

    :ivar content_type: The media type without parameters; ``""`` when none was given.
    :ivar decode: Whether ``decode_input_request`` applies to it (form fields without
        a file name are always handed over as bytes; ``docs/torchserve/rest_api.md`` §3).
    """

    name: str
    content_type: str
    value: bytes
    decode: bool = True


class Job(Struct, frozen=True, array_like=True):
    """
    One client's request.

    :ivar headers: As the client spelled them, repeated names: the last one; plus
        ``url_path``, ``explain`` and ``describe`` set by the server.
    """

    request_id: str
    headers: dict[str, str]
    parts: list[Part]


class MetricDefinition(Struct, frozen=True, array_like=True):
    """
    A metric that ``metrics_config`` defines for handlers.

    :ivar kind: ``counter``, ``gauge`` or ``histogram``.
    :ivar dimensions: The names of its labels, in order, without the host's.
    """

    name: str
    unit: str
    kind: str
    dimensions: list[str]


class LoadModel(Struct, frozen=True, tag="load"):
    """
    Become a worker of this model version.

    :ivar handler: ``file.py``, ``module:function`` or a built-in handler's name.
    :ivar manifest: The parsed ``MANIFEST.json`` as it is on disk; empty for none.
    :ivar model_config: The parsed ``model-config.yaml``; empty for none.
    :ivar envelope: A built-in envelope's name, or a module that has one; ``None`` for none.
    :ivar gpu_id: The device, ``None`` for the CPU.
    :ivar max_response_size: Bytes that one answer may have; a larger one is an error of that request alone.
    :ivar asynchronous: Whether several batches may be asked for before the first is answered; the handler is a
        coroutine function then.
    :ivar continuous: Whether the handler may say that an answer is not the last of its request (`Item.more`).
    :ivar allow_pickled_weights: Whether weights may hold more than tensors, which runs code.
    :ivar metrics: The metrics that the handler's ``context.metrics`` begins with.
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


class Predict(Struct, frozen=True, tag="predict"):
    """Answer these jobs, as one batch."""

    batch_id: int
    jobs: list[Job]


class Cancel(Struct, frozen=True, tag="cancel"):
    """The clients of these requests have gone; a streaming handler may stop for them."""

    request_ids: list[str]


class Pause(Struct, frozen=True, tag="pause"):
    """The clients of these requests read slower than they are sent to: no more chunks for them until further notice."""

    request_ids: list[str]


class Resume(Struct, frozen=True, tag="resume"):
    """These clients have taken what was sent; go on."""

    request_ids: list[str]


class Loaded(Struct, frozen=True, tag="loaded"):
    """The handler is imported and initialized."""


class LoadFailed(Struct, frozen=True, tag="load-failed"):
    """
    The handler could not be loaded; the worker exits after this.

    :ivar code: 507 when memory was exhausted, else 500.
    :ivar reason: One line for the caller, e.g. ``SyntaxError: invalid syntax (handler.py, line 3)``.
    :ivar printed: Whether the worker has printed the traceback, which is in the model's log therefore.
    """

    code: int
    reason: str
    printed: bool = False


class Item(Struct, frozen=True, array_like=True):
    """
    The answer to one job of a batch.

    :ivar phrase: The handler's reason phrase; ``""`` when it set none.
    :ivar headers: The handler's response headers, its content type among them.
    :ivar more: Whether the request has to be in the next batch, too, for the next piece of its answer.
    :ivar flaw: What is wrong with the request, which the handler has not seen; all else is empty then.
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
    One value of a metric, as a worker has said it.

    :ivar labels: Their text, ``Name:value`` with commas between them.
    :ivar kind: ``COUNTER``, ``GAUGE`` or ``HISTOGRAM``.
    :ivar time: Seconds since the epoch.
    :ivar request_ids: Whose requests it belongs to, with commas between them; may be empty.
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
    The handler returned: one item for each job, in the jobs' order.

    :ivar seconds: How long the worker took for all of it; ``0`` if it did not measure that.
    :ivar metrics: What was emitted meanwhile and has not been printed.
    """

    batch_id: int
    items: list[Item]
    seconds: float = 0.0
    metrics: list[Reading] = []


class PredictFailed(Struct, frozen=True, tag="predict-failed", omit_defaults=True):
    """
    The handler raised, or returned what cannot be answered: one error for the whole batch.

    :ivar metrics: As of `Predicted`.
    :ivar reason: What went wrong and where, in one line; not for every client.
    """

    batch_id: int
    code: int
    message: str
    metrics: list[Reading] = []
    reason: str = ""


class StreamChunk(Struct, frozen=True, tag="chunk"):
    """An intermediate answer; more will follow."""

    batch_id: int
    item: Item


ToWorker = Union[LoadModel, Predict, Cancel, Pause, Resume]
FromWorker = Union[Loaded, LoadFailed, Predicted, PredictFailed, StreamChunk]
