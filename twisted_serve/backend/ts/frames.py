# SPDX-License-Identifier: Apache-2.0
"""
Encode responses in the frame format of TorchServe's workers: ``create_predict_response``.

Our workers do not use it; :class:`twisted_serve.backend.ts.service.Service` returns such frames. The format is
``docs/torchserve/archives_workers_handlers.md`` §5.3, lengths in bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from twisted_serve.backend.encoding import UnsupportedOutputError, body
from twisted_serve.backend.faults import complain
from twisted_serve.backend.items import STREAM_HEADER
from twisted_serve.handlers.context import Context
from twisted_serve.wire.messages import Item

__all__ = ["create_predict_response", "response_frame"]

_END = struct.pack("!i", -1)


def create_predict_response(
    ret: Any,
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Context | None = None,
    ts_stream_next: bool = False,
) -> bytearray:
    """
    Return the frame of a batch.

    If a result cannot be encoded as bytes, the whole batch fails with 503.

    :param ret: The results, indexed by position; ``None`` if the batch failed.
    :param req_id_map: Position to request id.
    :param message: The message for the whole batch.
    :param code: The status code of the whole batch.
    :param context: The context with the status and headers of each response; without it each has the status ``code``.
    :param ts_stream_next: If true, set the header that marks that more chunks follow.
    """
    try:
        bodies = {index: b"error" if ret is None else body(ret[index]) for index in req_id_map}
    except UnsupportedOutputError as e:
        complain("Unsupported model output data type.", e)
        return create_predict_response(None, req_id_map, "Unsupported model output data type.", 503)
    items = []
    for index, request_id in req_id_map.items():
        status, phrase, headers = code, "", dict[str, str]()
        if context is not None:
            if ts_stream_next:
                context.set_response_header(index, STREAM_HEADER, "true")
            elif context.get_response_headers(index).get(STREAM_HEADER) == "true":
                context.set_response_header(index, STREAM_HEADER, "false")
            status, phrase = context.get_response_status(index)
            headers = context.get_response_headers(index)
        items.append(Item(request_id, status, phrase or "", headers, bodies[index]))
    return response_frame(code, message, items)


def response_frame(code: int, message: str, items: Iterable[Item]) -> bytearray:
    """Return a frame: code and message of the batch, then each response."""
    frame = bytearray(struct.pack("!i", code))
    frame += _sized(message)
    for item in items:
        frame += _sized(item.request_id) + _sized(item.headers.get("content-type", ""))
        frame += struct.pack("!i", item.status) + _sized(item.phrase)
        frame += struct.pack("!i", len(item.headers))
        for name, value in item.headers.items():
            frame += _sized(name) + _sized(value)
        frame += _sized(item.body)
    return frame + _END


def _sized(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!i", len(raw)) + raw
