# SPDX-License-Identifier: Apache-2.0
"""
Decode request parts to values, and encode handler results to bytes.

The rules are in ``docs/torchserve/rest_api.md`` §3 and
``docs/torchserve/archives_workers_handlers.md`` §7.4, §7.5.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from twisted_serve.wire.messages import Part

_log = logging.getLogger(__name__)

# A sixth of the time of `json.loads` for a large tensor.
_decode = msgspec.json.Decoder().decode

# The types that both encoders of `json` render the same way; for a subclass of ``list`` they differ.
_SCALARS = frozenset({str, int, float, bool, type(None)})
_CONTAINERS = frozenset({list, dict, tuple})
_PLAIN = _SCALARS | _CONTAINERS


class FlawedInputError(Exception):
    """A part does not match its content type; the message, for the client, names the part and the position."""


class UnsupportedOutputError(Exception):
    """A handler returned a value that cannot be encoded as bytes."""


def row(parts: Sequence[Part], decoding: bool) -> dict[str, Any]:
    """
    Return a request's dict of part name to value; of parts with the same name the last one counts.

    :param decoding: The setting ``decode_input_request``.
    :raise FlawedInputError: for broken JSON.
    """
    return {part.name: value(part, decoding) for part in parts}


def value(part: Part, decoding: bool) -> Any:
    """
    Decode a part: to a JSON value or ``str`` by its content type, else to a ``bytearray``.

    ``bytearray``, not ``bytes``: handlers check for it. Text that is not UTF-8 and empty JSON stay a ``bytearray``.

    :raise FlawedInputError: for broken JSON.
    """
    raw = part.value
    if not (decoding and part.decode):
        return bytearray(raw)
    if part.content_type == "application/json" and raw:
        try:
            return _parsed(raw)
        except (ValueError, RecursionError) as e:
            where = "The body" if part.name == "body" else f"The part {part.name[:80]!r}"
            raise FlawedInputError(f"{where} is no JSON: {_flaw_of(e)}.") from e
    if part.content_type.startswith("text"):
        try:
            return raw.decode("utf-8")
        except ValueError:
            _log.warning("input %r is not what its content type %s says; it stays bytes", part.name, part.content_type)
    return bytearray(raw)


def _parsed(raw: bytes) -> Any:
    """
    Parse JSON as `json.loads` does.

    :raise ValueError: if it is none.
    :raise RecursionError: if it is nested too deeply.
    """
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # It may have infinity or NaN, lone surrogates or huge numbers; or its flaw is described.
        return json.loads(raw.decode("utf-8"))


def _flaw_of(error: ValueError | RecursionError) -> str:
    """Describe an error in JSON, with its position if known, and without quoting the content."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {error.start})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"


def body(result: Any) -> bytes:
    """
    Encode the body of one response: bytes as they are, ``str`` as UTF-8, a tensor by ``torch.save``, else JSON.

    :raise UnsupportedOutputError: if ``result`` is none of these.
    :raise MemoryError: if memory is exhausted.
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
        return _rendered(result)
    except MemoryError:
        raise
    # Any error of the encoding, even of a key's ``__str__``, is caused by the result.
    except Exception as e:
        raise UnsupportedOutputError(f"{type(result).__name__} cannot be sent") from e


def _rendered(result: Any) -> bytes:
    """
    Return the bytes of ``json.dumps(result, indent=2)``.

    :raise Exception: whatever `json.dumps` raises.
    """
    try:
        if _is_plain(result):
            # With an indent, `json` encodes in Python; without one in C, in less than half the time.
            return msgspec.json.format(json.dumps(result).encode("utf-8"), indent=2)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        # It has NaN or infinity, keys that are none, a circle, or is nested too deeply.
        pass
    return json.dumps(result, indent=2).encode("utf-8")


def _is_plain(value: Any) -> bool:
    """
    Return whether all values in here, but for keys, have one of the types of JSON, and not a subclass.

    :raise RecursionError: if it is nested too deeply.
    """
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind in _SCALARS
    kinds = set(map(type, value))
    if kinds <= _SCALARS:
        return True
    return kinds <= _PLAIN and all(_is_plain(each) for each in value if type(each) in _CONTAINERS)
