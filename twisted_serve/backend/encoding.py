# SPDX-License-Identifier: Apache-2.0
"""
This module implements how a request's parts become values, and how what a handler returns becomes bytes.

``docs/torchserve/rest_api.md`` §3 and ``docs/torchserve/archives_workers_handlers.md`` §7.4, §7.5.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from twisted_serve.wire.messages import Part

_log = logging.getLogger(__name__)


class FlawedInputError(Exception):
    """A part is not what its type says; the text is for the client, and says where."""


class UnsupportedOutputError(Exception):
    """A handler returned something that has no form as bytes."""


def row(parts: Sequence[Part], decoding: bool) -> dict[str, Any]:
    """
    Make a request's dictionary; of parts with the same name the last one stays.

    :param decoding: Whether ``decode_input_request`` is on.
    :raise FlawedInputError: as `value`.
    """
    return {part.name: value(part, decoding) for part in parts}


def value(part: Part, decoding: bool) -> Any:
    """
    Make the value of a part: JSON or ``str`` where its type says so, else a ``bytearray``.

    ``bytearray``, not ``bytes``: handlers look for it.  Text that is no UTF-8 stays bytes, and so does nothing at all.

    :raise FlawedInputError: for broken JSON.
    """
    raw = bytearray(part.value)
    if not (decoding and part.decode):
        return raw
    if part.content_type == "application/json" and raw:
        try:
            return json.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError) as e:
            where = "The body" if part.name == "body" else f"The part {part.name[:80]!r}"
            raise FlawedInputError(f"{where} is no JSON: {_flaw_of(e)}.") from e
    if part.content_type.startswith("text"):
        try:
            return raw.decode("utf-8")
        except ValueError:
            _log.warning("input %r is not what its content type %s says; it stays bytes", part.name, part.content_type)
    return raw


def _flaw_of(error: ValueError | RecursionError) -> str:
    """Return what is wrong with JSON, and where, as far as is known; nothing of its content."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {error.start})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"


def body(result: Any) -> bytes:
    """
    Make the bytes of one answer.

    :raise UnsupportedOutputError: if ``result`` is neither bytes, nor text, nor a tensor, nor JSON.
    :raise MemoryError: if there is no memory for them.
    """
    if isinstance(result, (bytes, bytearray)):
        return bytes(result)
    try:
        if isinstance(result, str):
            return result.encode("utf-8")
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(result, torch.Tensor):
            file = io.BytesIO()
            torch.save(result, file)
            return file.getvalue()
        return json.dumps(result, indent=2).encode("utf-8")
    except MemoryError:
        raise
    # Whatever goes wrong in there, in a key's ``__str__`` too, is the result's fault.
    except Exception as e:
        raise UnsupportedOutputError(f"{type(result).__name__} cannot be sent") from e
