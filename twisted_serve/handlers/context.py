# SPDX-License-Identifier: Apache-2.0
"""
Give handlers access to request headers and control over response heads: the ``context`` argument.

The names are TorchServe's (``docs/torchserve/archives_workers_handlers.md`` §7.3).
A context lives as long as its worker, and handlers may set attributes on it.
:meth:`Context.begin_batch` replaces the state of the previous batch, so no
response inherits a status or a header from an earlier one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Context", "RequestProcessor", "Requests"]

# Set by the server: matched exactly, so that a client's header in another case cannot replace one of them.
_SET_BY_SERVER = frozenset({"describe", "explain", "url_path"})


class Requests(Protocol):
    """The worker's interface to the requests of the current batch."""

    def send_chunk(self, request_id: str, value: Any) -> None:
        """
        Send an intermediate response.

        :raise ValueError: if the request is not in the current batch, or the value cannot be sent.
        """

    def is_cancelled(self, request_id: str) -> bool:
        """Return whether the client of the request has disconnected."""


class RequestProcessor:
    """The headers of one request, and the status and headers of its response."""

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._request_header = request_header
        self._status_code: Any = 200
        self._reason_phrase: Any = None
        self._response_header: dict[str, Any] = {}

    def get_request_property(self, key: str) -> Any:
        """Return the value of the header ``key``: an exact match first, then any case; ``None`` if there is none."""
        if key in self._request_header or key in _SET_BY_SERVER:
            return self._request_header.get(key)
        wanted = key.lower()
        found = [value for name, value in self._request_header.items() if name.lower() == wanted]
        return found[-1] if found else None

    def get_request_properties(self) -> dict[str, Any]:
        """Return all request headers, with names as the client spelled them."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the response's HTTP status and reason phrase."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> Any:
        """Return the response's status, by default 200."""
        return self._status_code

    def get_response_status_phrase(self) -> Any:
        """Return the response's reason phrase, or ``None``."""
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the response."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, Any]:
        """Return the response's headers."""
        return self._response_header

    def get_response_header(self, key: str) -> Any:
        """Return a header of the response, or ``None``."""
        return self._response_header.get(key)


class Context:
    """
    The ``context`` argument of every handler.

    :ivar manifest: The archive's manifest, or ``None``.
    :ivar model_yaml_config: The parsed ``model-config.yaml`` of the archive.
    :ivar request_ids: Position in the batch to request id; ``None`` until the first batch.
    :ivar metrics: The metrics API; see :mod:`twisted_serve.handlers.metrics`.
    :ivar requests: The current batch; ``None`` outside of a worker.
    :ivar stopping_criteria: With continuous batching: for each position, a callable that takes a result and returns
        ``True`` if it is the last one, ``False`` if more follow, ``None`` if the response is no stream. The value is
        kept until the handler replaces it.
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
        # Handlers written for TorchServe read it; no descriptor is behind it.
        self.cl_socket: Any = None
        self.header_key_sequence_id = os.environ.get("TS_REQUEST_SEQUENCE_ID", "ts_request_sequence_id")
        self.header_key_sequence_start = os.environ.get("TS_REQUEST_SEQUENCE_START", "ts_request_sequence_start")
        self.header_key_sequence_end = os.environ.get("TS_REQUEST_SEQUENCE_END", "ts_request_sequence_end")

    def begin_batch(self, request_ids: Sequence[str], headers: Sequence[Mapping[str, Any]]) -> None:
        """Replace the state of the previous batch by these requests."""
        self.request_ids = dict(enumerate(request_ids))
        self.request_processor = [RequestProcessor(dict(each)) for each in headers]

    @property
    def system_properties(self) -> dict[str, Any]:
        """The worker's properties: ``model_dir`` (a path), ``gpu_id`` (``None`` for the CPU), ``batch_size`` …"""
        return self._system_properties

    # Published handlers and TorchServe's examples use these despite the underscore.

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
        """Return the id of the request at position ``idx``, or ``None``."""
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        """Return a header of the request at position ``idx``, or ``None``."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return all headers of the request at position ``idx``."""
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the content type of the response at position ``idx``."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> Any:
        """Return the content type that was set for the response at position ``idx``, or ``None``."""
        return self.request_processor[idx].get_response_header("content-type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of the response at position ``idx``."""
        self.request_processor[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, Any]:
        """Return the headers of the response at position ``idx``."""
        return self.request_processor[idx].get_response_headers()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the HTTP status and reason phrase of the response at position ``idx``."""
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the HTTP status and reason phrase of all responses of the batch."""
        for each in self.request_processor:
            each.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[Any, Any]:
        """Return the status and reason phrase of the response at position ``idx``."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def get_sequence_id(self, idx: int) -> Any:
        """Return the sequence id of the request at position ``idx``, or ``None``."""
        return self.get_request_header(idx, self.header_key_sequence_id)

    def send_chunk(self, request_id: str, value: Any) -> None:
        """
        Send an intermediate response to the client of ``request_id``.

        :raise ValueError: if the request is not in the current batch, or the value cannot be sent.
        """
        if self.requests is None:
            raise ValueError(f"request {request_id} is not being answered: this context belongs to no worker")
        self.requests.send_chunk(request_id, value)

    def is_cancelled(self, idx: int = 0) -> bool:
        """Return whether the client of the request at position ``idx`` has disconnected."""
        request_id = self.get_request_id(idx)
        return self.requests is not None and request_id is not None and self.requests.is_cancelled(request_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]
