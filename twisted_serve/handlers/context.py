# SPDX-License-Identifier: Apache-2.0
"""
This module implements the context: what a handler may know of its requests and say about their answers.

The names are the predecessor's (``docs/torchserve/archives_workers_handlers.md`` §7.3).
One context lives as long as its worker; handlers keep things of their own on
it.  What belongs to a batch is replaced by :meth:`Context.begin_batch`, so no
answer can inherit a status or a header from an earlier one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Context", "RequestProcessor", "Requests"]

# Set by the server; a client's own header in another spelling must not stand in for one of them.
_SET_BY_SERVER = frozenset({"describe", "explain", "url_path"})


class Requests(Protocol):
    """The requests of the running batch, as the worker sees them."""

    def send_chunk(self, request_id: str, value: Any) -> None:
        """
        Send an intermediate answer.

        :raise ValueError: if this request is not being answered now, or the answer cannot be sent.
        """

    def is_cancelled(self, request_id: str) -> bool:
        """Whether the client of this request has gone."""


class RequestProcessor:
    """One request's headers, and what its answer's head will be."""

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._request_header = request_header
        self._status_code: Any = 200
        self._reason_phrase: Any = None
        self._response_header: dict[str, Any] = {}

    def get_request_property(self, key: str) -> Any:
        """Get the header ``key`` as the client spelled it, else in any case, else ``None``."""
        if key in self._request_header or key in _SET_BY_SERVER:
            return self._request_header.get(key)
        wanted = key.lower()
        found = [value for name, value in self._request_header.items() if name.lower() == wanted]
        return found[-1] if found else None

    def get_request_properties(self) -> dict[str, Any]:
        """Get all headers, names as the client spelled them."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the answer's status."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> Any:
        """Get the answer's status, 200 if none was set."""
        return self._status_code

    def get_response_status_phrase(self) -> Any:
        """Get the answer's reason phrase, ``None`` if none was set."""
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, Any]:
        """Get the answer's headers."""
        return self._response_header

    def get_response_header(self, key: str) -> Any:
        """Get one of the answer's headers, or ``None``."""
        return self._response_header.get(key)


class Context:
    """
    The argument ``context`` of every handler.

    :ivar manifest: The archive's manifest, ``None`` if it has none.
    :ivar model_yaml_config: The archive's ``model-config.yaml``.
    :ivar request_ids: Position in the batch to request id; ``None`` until the first batch.
    :ivar metrics: See :mod:`twisted_serve.handlers.metrics`.
    :ivar requests: The running batch; ``None`` outside of a worker.
    :ivar stopping_criteria: With continuous batching, for each position what says of a result whether it is the last
        one: ``True``, ``False``, or ``None`` for an answer that is no stream.  It stays until the handler replaces it.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: dict[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self._system_properties = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.request_ids: dict[int, str] | None = None
        self.request_processor: list[RequestProcessor] = []
        self.metrics = metrics
        self.model_yaml_config = model_yaml_config
        self.requests: Requests | None = None
        self.stopping_criteria: Any = None
        # Handlers written for the predecessor look at it; no descriptor of ours is behind it.
        self.cl_socket: Any = None
        self.header_key_sequence_id = os.environ.get("TS_REQUEST_SEQUENCE_ID", "ts_request_sequence_id")
        self.header_key_sequence_start = os.environ.get("TS_REQUEST_SEQUENCE_START", "ts_request_sequence_start")
        self.header_key_sequence_end = os.environ.get("TS_REQUEST_SEQUENCE_END", "ts_request_sequence_end")

    def begin_batch(self, request_ids: Sequence[str], headers: Sequence[Mapping[str, Any]]) -> None:
        """Forget the last batch's requests and answers; know these instead."""
        self.request_ids = dict(enumerate(request_ids))
        self.request_processor = [RequestProcessor(dict(each)) for each in headers]

    @property
    def system_properties(self) -> dict[str, Any]:
        """The worker's own properties: ``model_dir``, ``gpu_id``, ``batch_size`` …"""
        return self._system_properties

    # Public handlers, and examples of TorchServe, reach for these in spite of their names.

    @property
    def _request_processor(self) -> list[RequestProcessor]:
        return self.request_processor

    @_request_processor.setter
    def _request_processor(self, processors: list[RequestProcessor]) -> None:
        self.request_processor = processors

    @property
    def _metrics(self) -> Any:
        return self.metrics

    @_metrics.setter
    def _metrics(self, metrics: Any) -> None:
        self.metrics = metrics

    @property
    def _limit_max_image_pixels(self) -> bool:
        return bool(self._system_properties["limit_max_image_pixels"])

    def get_request_id(self, idx: int = 0) -> str | None:
        """Get the id of the request at ``idx``, ``None`` if there is none."""
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        """Get a header of a request, ``None`` if it has none of that name."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Get all headers of a request."""
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set an answer's content type."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> Any:
        """Get an answer's content type, ``None`` if none was set."""
        return self.request_processor[idx].get_response_header("content-type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of an answer."""
        self.request_processor[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, Any]:
        """Get an answer's headers."""
        return self.request_processor[idx].get_response_headers()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the HTTP status of the answer at ``idx``."""
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the HTTP status of all answers of the batch."""
        for each in self.request_processor:
            each.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[Any, Any]:
        """Get an answer's status and reason phrase."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def get_sequence_id(self, idx: int) -> Any:
        """Get the id of the sequence that a request belongs to, ``None`` if to none."""
        return self.get_request_header(idx, self.header_key_sequence_id)

    def send_chunk(self, request_id: str, value: Any) -> None:
        """
        Send an intermediate answer to the client of ``request_id``.

        :raise ValueError: if that request is not being answered now, or the answer cannot be sent.
        """
        if self.requests is None:
            raise ValueError(f"request {request_id} is not being answered: this context belongs to no worker")
        self.requests.send_chunk(request_id, value)

    def is_cancelled(self, idx: int = 0) -> bool:
        """Whether the client of the request at ``idx`` has gone, so that nobody will read its answer."""
        request_id = self.get_request_id(idx)
        return self.requests is not None and request_id is not None and self.requests.is_cancelled(request_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]
