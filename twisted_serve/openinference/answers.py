# SPDX-License-Identifier: Apache-2.0
"""
Render the response to an inference request: the handler's JSON, with binary outputs where requested.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from twisted_serve.errors import BadRequest, InternalError
from twisted_serve.openinference.pieces import read_json
from twisted_serve.openinference.requests import BinaryOutputs
from twisted_serve.openinference.tensors import Tensor


@frozen
class InferAnswer:
    """
    A response body.

    :ivar json_size: Length of the JSON part in bytes if binary data follows; ``None`` if the body is the handler's.
    """

    body: bytes
    json_size: int | None = None


def write_answer(body: bytes, wanted: BinaryOutputs) -> InferAnswer:
    """
    Render a handler's response in the form that the client requested.

    A response that does not follow the protocol is passed through unchanged.

    :raise InternalError: if an output that was requested as binary is invalid.
    """
    if not wanted.any():
        return InferAnswer(body)
    try:
        members = read_json(body)
    except (ValueError, RecursionError):
        return InferAnswer(body)
    outputs = members.get("outputs") if isinstance(members, dict) else None
    if not isinstance(outputs, list):
        return InferAnswer(body)
    pieces: list[bytes] = []
    written = [_output(i, output, wanted, pieces) for i, output in enumerate(outputs)]
    if not pieces:
        return InferAnswer(body)
    text = json.dumps({**members, "outputs": written}).encode()
    return InferAnswer(b"".join((text, *pieces)), len(text))


def _output(i: int, output: Any, wanted: BinaryOutputs, pieces: list[bytes]) -> Any:
    """Return an output's members; if binary is requested, append its data to ``pieces``."""
    if not isinstance(output, dict) or not wanted(output.get("name")):
        return output
    try:
        tensor = Tensor.of(f"outputs[{i}]", output)
        data = tensor.write(tensor.values(output.get("data")))
    except BadRequest as e:
        raise InternalError(f"The answer cannot be sent as binary data: {e.message}") from e
    pieces.append(data)
    parameters = {
        name: value for name, value in tensor.parameters.items() if name != "content_type" or not tensor.base64
    }
    members = {name: value for name, value in output.items() if name not in ("data", "parameters")}
    return {**members, "parameters": {**parameters, "binary_data_size": len(data)}}
