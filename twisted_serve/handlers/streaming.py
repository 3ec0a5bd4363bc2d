# SPDX-License-Identifier: Apache-2.0
"""
This module implements intermediate answers: what a streaming handler sends before it returns.
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
    Send one chunk to each request of ``req_id_map``; the list that the handler returns is the last one.

    Of several processes of one worker (``LOCAL_RANK``) only the first sends.

    :param ret: The chunks, indexed by position in the batch.
    :param req_id_map: ``context.request_ids``, or a part of it.
    :raise PredictionException: for a ``code`` other than 200, with ``message``: it ends the batch.
    :raise ValueError: if a chunk cannot be sent.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if code != 200:
        raise PredictionException(message, code)
    if context is None:
        raise ValueError("send_intermediate_predict_response needs the handler's context")
    for index, request_id in req_id_map.items():
        context.send_chunk(request_id, ret[index])
