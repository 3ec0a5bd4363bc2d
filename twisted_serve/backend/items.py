# SPDX-License-Identifier: Apache-2.0
"""
Validate the status, headers and size of one response.

An invalid head or too large a body turns that response into an error; the other
responses of the batch are not affected.
"""

from __future__ import annotations

import json
import re
from typing import Any

from twisted_serve.backend.faults import complain
from twisted_serve.handlers.context import RequestProcessor
from twisted_serve.wire.header_text import CONTROL, sendable
from twisted_serve.wire.messages import Item

# RFC 9110 §5.6.2
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)

#: The header by which handlers, and TorchServe, mark that chunks follow; it is not sent to clients.
STREAM_HEADER = "ts_stream_next"

# Bytes of all headers, with their names. No known client or proxy accepts more, and it has to fit into a frame.
MAX_HEAD = 64 * 1024

# 1xx are not final responses; unassigned codes are allowed, as in TorchServe (``docs/torchserve/rest_api.md`` §5.2).
_STATUSES = range(200, 1000)


class RefusedAnswerError(ValueError):
    """The handler set a response that cannot be sent; the message names the field."""


def checked_item(request_id: str, processor: RequestProcessor, body: bytes, max_size: int, more: bool = False) -> Item:
    """
    Return a validated response.

    :param max_size: The setting ``max_response_size``, in bytes.
    :param more: True if further chunks follow.
    :raise RefusedAnswerError: if the status, a header or the size is not allowed.
    """
    status = processor.get_response_status_code()
    if not is_status(status):
        raise RefusedAnswerError(f"Response status must be an integer from 200 to 999, not {status!r:.40}")
    if len(body) > max_size:
        raise RefusedAnswerError(f"Response of {len(body)} bytes exceeds max_response_size, which is {max_size}")
    wanted, phrase = processor.get_response_headers(), processor.get_response_status_phrase() or ""
    if not (wanted or phrase):
        # The common case: no headers.
        return Item(request_id, int(status), "", {}, body, more)
    headers = dict(_header(name, value) for name, value in wanted.items())
    headers = {name: value for name, value in headers.items() if name.lower() != STREAM_HEADER}
    phrase = _sendable("Response reason phrase", "", _plain("Response reason phrase", phrase))
    size = len(phrase) + sum(len(name) + len(value) for name, value in headers.items())
    if size > MAX_HEAD:
        raise RefusedAnswerError(f"Response headers of {size} bytes exceed {MAX_HEAD}")
    return Item(request_id, int(status), phrase, headers, body, more)


def item(request_id: str, processor: RequestProcessor, body: bytes, max_size: int, more: bool = False) -> Item:
    """Return a validated response, or the error that replaces it; the error ends a stream, and is logged."""
    try:
        return checked_item(request_id, processor, body, max_size, more)
    except RefusedAnswerError as e:
        complain(f"An answer cannot be sent: {e}")
        error = {"code": 500, "type": "InternalServerException", "message": str(e)}
        headers = {"content-type": "application/json"}
        return Item(request_id, 500, "", headers, json.dumps(error, indent=2).encode())


def is_status(status: object) -> bool:
    """Return whether a response may have this status."""
    return isinstance(status, int) and status in _STATUSES


def _header(name: Any, value: Any) -> tuple[str, str]:
    plain = _plain("Response header name", name)
    if not _TOKEN.fullmatch(plain):
        raise RefusedAnswerError(f"Response header name {plain!r:.80} is not a token")
    what = f"Response header {plain}"
    return plain, _sendable(what, plain, _plain(what, value))


def _sendable(what: str, name: str, text: str) -> str:
    """Return the text restricted to latin-1; log a change."""
    sent = sendable(name, text)
    if sent != text:
        complain(f"{what} {text!r:.200} has characters that latin-1 has not: {sent!r:.400} is sent")
    return sent


def _plain(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise RefusedAnswerError(f"{what} must be a string, not {type(text).__name__}")
    # Convert a subclass of ``str``, which the wire encoding does not support.
    plain = str.__str__(text)
    if CONTROL.search(plain):
        raise RefusedAnswerError(f"{what} must be one line of text")
    return plain
