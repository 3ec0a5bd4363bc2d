# SPDX-License-Identifier: Apache-2.0
"""
Send intermediate responses (chunks) from a streaming handler.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted_serve.handlers.context import Context
from twisted_serve.handlers.exceptions import PredictionException

__all__ = ["send_intermediate_predict_response"]


def send_intermediate_predict_response(
    ret: Any,
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Context | None = None,
) -> None:
    """
    Send one chunk to each request of ``req_id_map``; the list that the handler returns has the last chunks.

    If a worker has several processes, only the one with ``LOCAL_RANK`` 0 sends.

    :param ret: The chunks, indexed by position in the batch.
    :param req_id_map: ``context.request_ids``, or a part of it.
    :param message: The error message, if ``code`` is not 200.
    :param code: The HTTP status, normally 200.
    :param context: The handler's context; required.
    :raise PredictionException: with ``message`` and ``code``, if ``code`` is not 200; it ends the batch.
    :raise ValueError: if a chunk cannot be sent, or ``context`` is missing.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if code != 200:
        raise PredictionException(message, code)
    if context is None:
        raise ValueError("send_intermediate_predict_response needs the handler's context")
    for index, request_id in req_id_map.items():
        context.send_chunk(request_id, ret[index])
