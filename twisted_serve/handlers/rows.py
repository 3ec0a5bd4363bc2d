# SPDX-License-Identifier: Apache-2.0
"""
Extract a request's input from a row.

A row is the dict that the worker passes for a request (``docs/torchserve/archives_workers_handlers.md`` §7.4) or,
behind an envelope, an instance as the client sent it.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

__all__ = ["decoded_base64", "input_of", "json_of", "text_of_bytes"]


def input_of(row: Any) -> Any:
    """
    Return the input: the row's ``data``, else its ``body``; a row that is not a dict is the input itself.

    :return: The input; of a dict without one, ``None`` or an empty value.
    """
    return (row.get("data") or row.get("body")) if isinstance(row, dict) else row


def decoded_base64(text: str) -> bytes:
    """
    Decode Base64, ignoring white space.

    :raise ValueError: if the text is not Base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as e:
        raise ValueError("not Base64") from e


def json_of(value: Any) -> Any:
    """
    Parse bytes as JSON; return any other value unchanged.

    :raise ValueError: if the bytes are not JSON.
    """
    if not isinstance(value, (bytes, bytearray)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as e:
        raise ValueError("not JSON") from e


def text_of_bytes(value: bytes | bytearray) -> str:
    """Convert bytes to a string for JSON: decoded if they are UTF-8, else in Base64."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")
