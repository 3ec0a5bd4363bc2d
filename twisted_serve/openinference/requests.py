# SPDX-License-Identifier: Apache-2.0
"""
Convert an inference request, JSON or with binary tensors, to JSON for a handler.

In a body with binary tensors (the protocol's binary tensor data extension) the JSON comes first, a header contains its
length, and the tensors' bytes follow in the order of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from twisted_serve.errors import BadRequest
from twisted_serve.openinference.pieces import read_json
from twisted_serve.openinference.rendering import RenderedInput, render_request
from twisted_serve.openinference.tensors import Tensor, brief, parameters_of

#: The header that contains the length of the JSON in bytes.
LENGTH_HEADER = "Inference-Header-Content-Length"

# Maximum number of digits in a length.
_MAX_DIGITS = 18


@frozen
class BinaryOutputs:
    """
    The outputs that a client requests as binary.

    :ivar all: Whether outputs that the client does not name are binary.
    """

    all: bool = False
    named: Mapping[str, bool] = field(factory=dict)

    def __call__(self, name: object) -> bool:
        """Return whether an output is requested as binary."""
        return self.named.get(name, self.all) if isinstance(name, str) else self.all

    def any(self) -> bool:
        """Return whether any output may be requested as binary."""
        return self.all or any(self.named.values())


@frozen
class InferRequest:
    """
    A parsed request.

    :ivar body: The complete request as JSON.
    """

    body: bytes
    wanted: BinaryOutputs


def read_request(body: bytes, length: str | None = None) -> InferRequest:
    """
    Parse a request.

    :param length: The value of `LENGTH_HEADER`; ``None`` if the body is only JSON.
    :raise BadRequest: naming the invalid field and its value.
    """
    try:
        return _read(body, length)
    except BadRequest as e:
        why = e.message
    # A new exception: the frames of the original reference everything parsed, which would be freed in the reactor's
    # thread.
    raise BadRequest(why)


def _read(body: bytes, length: str | None) -> InferRequest:
    size = len(body) if length is None else _length(length, len(body))
    members = _object_of(body[:size])
    wanted = _wanted(members)
    inputs = members.get("inputs")
    if not isinstance(inputs, list):
        raise BadRequest("inputs is missing." if inputs is None else f"inputs must be a list, not {brief(inputs)}.")
    remaining = memoryview(body)[size:]
    written: list[RenderedInput | Mapping[str, Any]] = []
    binary = False
    for i, member in enumerate(inputs):
        tensor = Tensor.of(f"inputs[{i}]", member)
        if (binary_size := tensor.parameters.get("binary_data_size")) is None:
            if "data" not in member:
                raise BadRequest(f"inputs[{i}].data is missing.")
            tensor.values(member["data"])
            written.append(member)
            continue
        if length is None:
            raise BadRequest(f"inputs[{i}] has binary data, which needs the header {LENGTH_HEADER}.")
        if "data" in member:
            raise BadRequest(f"inputs[{i}] has both data and binary data.")
        if type(binary_size) is not int or not 0 <= binary_size <= len(remaining):
            raise BadRequest(
                f"inputs[{i}].parameters.binary_data_size must be from 0 to the {len(remaining)} bytes "
                f"that are left, not {brief(binary_size)}."
            )
        written.append(RenderedInput.of(member, *tensor.read(remaining[:binary_size])))
        remaining = remaining[binary_size:]
        binary = True
    if len(remaining):
        raise BadRequest(f"{len(remaining)} bytes after the JSON belong to no input.")
    if not binary:
        return InferRequest(body[:size], wanted)
    return InferRequest(render_request(members, written), wanted)


def _length(text: str, maximum: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= maximum):
        raise BadRequest(f"{LENGTH_HEADER} must be from 0 to the body's {maximum} bytes, not {brief(text)}.")
    return int(text)


def _object_of(text: bytes) -> dict[str, Any]:
    try:
        members = read_json(text)
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"The JSON of the request cannot be read: {e}.") from None
    if not isinstance(members, dict):
        raise BadRequest(f"The request must be a JSON object, not {brief(members)}.")
    return members


def _wanted(members: Mapping[str, Any]) -> BinaryOutputs:
    default = _optional_boolean(
        "parameters.binary_data_output", parameters_of("the request", members).get("binary_data_output")
    )
    outputs = members.get("outputs")
    if outputs is None:
        return BinaryOutputs(bool(default))
    if not isinstance(outputs, list):
        raise BadRequest(f"outputs must be a list, not {brief(outputs)}.")
    named = {}
    for i, output in enumerate(outputs):
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise BadRequest(f"outputs[{i}] must be an object with a name, not {brief(output)}.")
        where = f"outputs[{i}]"
        binary = _optional_boolean(f"{where}.parameters.binary_data", parameters_of(where, output).get("binary_data"))
        named[output["name"]] = bool(default if binary is None else binary)
    return BinaryOutputs(bool(default), named)


def _optional_boolean(where: str, value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{where} must be true or false, not {brief(value)}.")
    return value
