# SPDX-License-Identifier: Apache-2.0
"""
Call a handler with requests given as dicts: ``ts.service.Service``, for tests and scripts.

The handler's input and the handling of its results are the same as in a worker
(:class:`twisted_serve.backend.call.Call`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from twisted_serve import COMPATIBLE_WITH
from twisted_serve.backend.call import Call
from twisted_serve.backend.items import STREAM_HEADER
from twisted_serve.backend.loader import EntryPoint
from twisted_serve.backend.metric_buffer import Gathering, Patience
from twisted_serve.backend.ts.frames import create_predict_response, response_frame
from twisted_serve.handlers.context import Context, RequestProcessor
from twisted_serve.handlers.metrics import MetricsCacheYamlImpl
from twisted_serve.handlers.model_files import get_yaml_config
from twisted_serve.wire.messages import FromWorker, Job, LoadModel, Predict, PredictFailed, StreamChunk

__all__ = ["Service"]


class Service:
    """
    An entry point and its context.

    A request is a dict with ``requestId``; ``parameters``, a list of dicts with ``name``, ``contentType`` and the
    decoded ``value``; and optionally ``headers``, a list of dicts with ``name`` and ``value``.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        entry_point: EntryPoint,
        gpu: int | None,
        batch_size: int,
        limit_max_image_pixels: bool = True,
        metrics_cache: Any = None,
    ) -> None:
        """
        Create the context; the caller initializes the handler with it.

        :param manifest: The archive's manifest; its ``configFile`` is read.
        :param metrics_cache: The metrics API for the handler; by default one that prints to stdout, as in a worker.
        :raise OSError: if the manifest's ``configFile`` cannot be read.
        :raise yaml.YAMLError: if it is not YAML.
        """
        config_file = (manifest or {}).get("model", {}).get("configFile")
        self._entry_point = entry_point
        self._context = Context(
            model_name,
            model_dir,
            manifest,
            batch_size,
            gpu,
            COMPATIBLE_WITH,
            limit_max_image_pixels,
            MetricsCacheYamlImpl(model_name) if metrics_cache is None else metrics_cache,
            {} if config_file is None else get_yaml_config(Path(model_dir, config_file)),
        )

    @property
    def context(self) -> Context:
        """The handler's context."""
        return self._context

    def set_cl_socket(self, cl_socket: Any) -> None:
        """Set the socket for intermediate responses, each sent as a frame."""
        self._context.cl_socket = cl_socket

    @staticmethod
    def retrieve_data_for_inference(
        batch: Sequence[Mapping[str, Any]] | None,
    ) -> tuple[list[RequestProcessor], list[dict[str, Any]], dict[int, str]]:
        """
        Return the requests' headers, the handler's ``data``, and the request ids by position.

        :raise ValueError: if ``batch`` is ``None``, or a request lacks a required key.
        """
        if batch is None:
            raise ValueError("Received invalid inputs")
        headers, rows, ids = [], [], {}
        for index, request in enumerate(batch):
            where = f"request {index}"
            ids[index] = _text(_member(request, "requestId", where))
            row, head = {}, dict[str, Any]()
            for parameter in _member(request, "parameters", where):
                name, value, content_type = (
                    _member(parameter, each, f"a parameter of {where}") for each in ("name", "value", "contentType")
                )
                row[name] = value
                head[name] = {"content-type": content_type}
            for header in request.get("headers") or ():
                name, value = (_text(_member(header, each, f"a header of {where}")) for each in ("name", "value"))
                head[name] = value
            headers.append(RequestProcessor(head))
            rows.append(row)
        return headers, rows, ids

    def predict(self, batch: Sequence[Mapping[str, Any]] | None) -> bytearray:
        """
        Call the handler with the requests as one batch.

        :return: The frame of the responses, or of the error.
        :raise ValueError: if ``batch`` is ``None``, or a request lacks a required key.
        """
        headers, rows, ids = self.retrieve_data_for_inference(batch)
        jobs = [Job(ids[index], each.get_request_properties(), []) for index, each in enumerate(headers)]
        # No server receives metrics: they are printed.
        metrics = Gathering(Patience())
        call = Call(_load_message(self._context), self._context, Predict(0, jobs), _Frames(self._context), metrics)
        try:
            answer = call.answer(self._entry_point(rows, self._context))
        # Not BaseException: an exception that ends a test, such as that of ``pytest.fail``, has to propagate.
        except Exception as e:
            answer = call.failure(e)
        finally:
            call.end()
        if isinstance(answer, PredictFailed):
            return create_predict_response(None, ids, answer.message, answer.code)
        return response_frame(200, "Prediction success", answer.items)


class _Frames:
    """An outlet that writes intermediate responses to the context's socket, if it has one."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def send(self, message: FromWorker) -> None:
        """Send an intermediate response as a frame that is not the last one."""
        if isinstance(message, StreamChunk) and self._context.cl_socket is not None:
            item = replace(message.item, headers={**message.item.headers, STREAM_HEADER: "true"})
            self._context.cl_socket.sendall(response_frame(200, "", [item]))

    def is_cancelled(self, request_id: str) -> bool:
        """Return false: the client is always connected."""
        return False

    def may_send(self, request_id: str) -> bool:
        """Return true: the client is always ready."""
        return True


def _load_message(context: Context) -> LoadModel:
    """Return the message that a worker would have received for the model."""
    properties = context.system_properties
    return LoadModel(
        context.model_name,
        "",
        properties["model_dir"],
        "",
        properties["batch_size"],
        context.manifest or {},
        context.model_yaml_config or {},
        properties["server_version"],
    )


def _member(value: Any, name: str, where: str) -> Any:
    try:
        return value[name]
    except (KeyError, TypeError):
        raise ValueError(f"{where} has no {name}") from None


def _text(value: bytes | bytearray | str) -> str:
    return value if isinstance(value, str) else value.decode()
