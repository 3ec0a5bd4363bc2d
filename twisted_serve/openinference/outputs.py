# SPDX-License-Identifier: Apache-2.0
"""
Read the outputs of a handler's answer, and encode their data without a Python object for each number.

A long list of numbers stays JSON text until it is encoded, some numbers at a time; msgspec reads it, in a seventh of
the time that parsing and checking each value takes (6 MB of floats: 26 ms).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import frozen

from twisted_serve.errors import BadRequest
from twisted_serve.openinference.datatypes import Datatype
from twisted_serve.openinference.pieces import read_json
from twisted_serve.openinference.tensors import Tensor

# Bytes of JSON that are read per call.
_PIECE = 1 << 16

_FLOATS = msgspec.json.Decoder(list[float])
_INTEGERS = msgspec.json.Decoder(list[int])
_BOOLEANS = msgspec.json.Decoder(list[bool])


class _RawOutput(msgspec.Struct):
    """An output as it is in the JSON."""

    name: Any = msgspec.UNSET
    datatype: Any = msgspec.UNSET
    shape: Any = msgspec.UNSET
    parameters: Any = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _RawAnswer(msgspec.Struct):
    """An answer as it is in the JSON."""

    outputs: list[_RawOutput]
    id: Any = None
    model_name: Any = None
    model_version: Any = None
    parameters: Any = None


_ANSWER = msgspec.json.Decoder(_RawAnswer)


@frozen
class Output:
    """
    An output of an answer.

    :ivar members: Its members, without its data if they are in ``text``.
    :ivar text: Its data as JSON; ``None`` if they are among the members or absent.
    """

    members: object
    text: bytes | None = None

    @property
    def data(self) -> Any:
        """Its parsed data; ``None`` if it has none."""
        if self.text is not None:
            return read_json(self.text)
        return self.members.get("data") if isinstance(self.members, dict) else None

    def write(self, tensor: Tensor) -> bytes:
        """
        Encode its data as binary.

        :raise BadRequest: if the data do not match the type and shape.
        """
        packed = None if self.text is None else _packed(tensor, self.text)
        return tensor.write(tensor.values(self.data)) if packed is None else packed


def read_outputs(body: bytes) -> tuple[Mapping[str, Any], list[Output]] | None:
    """
    Parse a handler's answer.

    :return: The members of the answer except its outputs, as far as the protocol has them, and the outputs;
        ``None`` if it is no JSON object with a list of outputs.
    """
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        # Infinity and NaN, for example, which are no JSON, and handlers write them.
        return _read_slowly(body)
    members = {name: getattr(answer, name) for name in ("id", "model_name", "model_version", "parameters")}
    return members, [_output(each) for each in answer.outputs]


def _output(raw: _RawOutput) -> Output:
    fields = ("name", "datatype", "shape", "parameters")
    members = {name: value for name in fields if (value := getattr(raw, name)) is not msgspec.UNSET}
    return Output(members, None if isinstance(raw.data, msgspec.UnsetType) else bytes(raw.data))


def _read_slowly(body: bytes) -> tuple[Mapping[str, Any], list[Output]] | None:
    try:
        members = read_json(body)
    except (ValueError, RecursionError):
        return None
    outputs = members.get("outputs") if isinstance(members, dict) else None
    return (members, [*map(Output, outputs)]) if isinstance(outputs, list) else None


def _packed(tensor: Tensor, text: bytes) -> bytes | None:
    """
    Encode a flat list of valid numbers, as many as the shape has; ``None`` for anything else.

    The errors are those of `Tensor.values`, which is then called.
    """
    datatype = tensor.datatype
    is_flat = text[:1] == b"[" and text[-1:] == b"]" and text.find(b"[", 1) < 0
    if datatype.size == 0 or tensor.shape.count(-1) > 1 or not is_flat:
        return None
    decoder: Any = _BOOLEANS if datatype.name == "BOOL" else _FLOATS if float in datatype.types else _INTEGERS
    packed = bytearray()
    start, end = 1, len(text) - 1
    try:
        while start < end:
            comma = text.find(b",", start + _PIECE, end)
            stop = end if comma < 0 else comma
            values = decoder.decode(b"[%b]" % text[start:stop])
            if not _in_range(datatype, values):
                return None
            packed += datatype.pack(values)
            start = stop + 1
        tensor.check_count(len(packed) // datatype.size, "data has")
    except (msgspec.MsgspecError, BadRequest):
        return None
    return bytes(packed)


def _in_range(datatype: Datatype, values: list[Any]) -> bool:
    return not values or (datatype.least <= min(values) and max(values) <= datatype.most)
