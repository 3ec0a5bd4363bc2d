# SPDX-License-Identifier: Apache-2.0
"""
This module implements what the built-in handlers take as a request's input.

A row is what the server hands over (``docs/torchserve/archives_workers_handlers.md`` §7.4), or, behind an envelope, an
instance as the client wrote it.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

__all__ = ["decoded_base64", "input_of", "json_of", "text_of_bytes"]


def input_of(row: Any) -> Any:
    """
    Get the input: the row's ``data``, else its ``body``; a row that is no dictionary is the input itself.

    :return: ``None`` if there is none, or an empty one.
    """
    return (row.get("data") or row.get("body")) if isinstance(row, dict) else row


def decoded_base64(text: str) -> bytes:
    """
    Decode Base64; line breaks and blanks in it are nothing.

    :raise ValueError: if it is none.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as e:
        raise ValueError("not Base64") from e


def json_of(value: Any) -> Any:
    """
    Make JSON's value of bytes; anything else stays what it is.

    :raise ValueError: if they are no JSON.
    """
    if not isinstance(value, (bytes, bytearray)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as e:
        raise ValueError("not JSON") from e


def text_of_bytes(value: bytes | bytearray) -> str:
    """Make a string for JSON of bytes: their text if they are UTF-8, else Base64."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")
