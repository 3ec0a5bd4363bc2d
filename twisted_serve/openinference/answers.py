# SPDX-License-Identifier: Apache-2.0
"""
This module implements an answer to a request for inference: the handler's JSON, with outputs in binary where wanted.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from twisted_serve.errors import BadRequest, InternalError
from twisted_serve.openinference.pieces import read_json
from twisted_serve.openinference.requests import Wanted
from twisted_serve.openinference.tensors import Tensor


@frozen
class InferAnswer:
    """
    An answer's body.

    :ivar json_size: How many bytes of it are JSON, if others follow; ``None`` if all are the handler's.
    """

    body: bytes
    json_size: int | None = None


def write_answer(body: bytes, wanted: Wanted) -> InferAnswer:
    """
    Write a handler's answer as its client wants it.

    What is no answer of the protocol goes out as it is.

    :raise InternalError: if an output that is wanted in binary is not what it says it is.
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


def _output(i: int, output: Any, wanted: Wanted, pieces: list[bytes]) -> Any:
    """Return an output's members, and put its data with the pieces if it is wanted there."""
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
