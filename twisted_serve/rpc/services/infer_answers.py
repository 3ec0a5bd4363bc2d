# SPDX-License-Identifier: Apache-2.0
"""
Convert the JSON that a handler returns to a response of the Open Inference Protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from typing import Any

from twisted_serve.errors import BadRequest, InternalError
from twisted_serve.openinference.outputs import Output, read_outputs
from twisted_serve.openinference.tensors import Tensor, brief, parameters_of, write_elements
from twisted_serve.rpc.messages import InferParameter, ModelInferResponse
from twisted_serve.rpc.services.infer_requests import CONTENTS, Prepared

_INT64 = range(-(1 << 63), 1 << 63)


def response_of(body: bytes, asked: Prepared) -> ModelInferResponse:
    """
    Convert a handler's response; a large one belongs into a thread.

    All outputs are raw if the tensors of the request were, or if one of them has no other form (``FP16``, ``BF16``).

    :raise BadRequest: if the client has requested an output that the response does not have.
    :raise InternalError: if the response does not follow the protocol; the message names the field.
    """
    try:
        return _response(body, asked)
    except InternalError as e:
        error: BadRequest | InternalError = InternalError(e.message)
    except BadRequest as e:
        error = BadRequest(e.message)
    # A new exception: the frames of the original reference everything parsed, which would be freed in the reactor's
    # thread.
    raise error


def _response(body: bytes, asked: Prepared) -> ModelInferResponse:
    members, outputs = _read(body)
    response = ModelInferResponse(
        model_name=_text(members, "model_name", asked.model),
        model_version=_text(members, "model_version", asked.served),
        id=_text(members, "id", asked.id),
    )
    try:
        _set_parameters(response.parameters, parameters_of("the answer", members))
        tensors = [(Tensor.of(f"outputs[{i}]", output.members), output) for i, output in enumerate(outputs)]
    except BadRequest as e:
        raise _invalid(e) from e
    if asked.outputs:
        tensors = _requested(tensors, asked.outputs)
    raw = asked.raw or any(tensor.datatype.name not in CONTENTS for tensor, _output in tensors)
    try:
        for tensor, output in tensors:
            _add(response, tensor, output, raw)
    except BadRequest as e:
        raise _invalid(e) from e
    return response


def _read(body: bytes) -> tuple[Mapping[str, Any], list[Output]]:
    read = read_outputs(body)
    if read is None:
        raise InternalError(
            "The model's answer is no JSON object of the Open Inference Protocol with a list of outputs, but begins "
            f"with {brief(bytes(body[:40]))}."
        )
    return read


def _text(members: Mapping[str, Any], name: str, default: str) -> str:
    value = members.get(name)
    return default if value is None or value == "" else _encodable(value if isinstance(value, str) else str(value))


def _encodable(text: str) -> str:
    """Return a text without lone surrogates, which JSON can contain and messages cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _invalid(error: BadRequest) -> InternalError:
    return InternalError(f"The model's answer does not follow the Open Inference Protocol: {error.message}")


def _requested(tensors: list[tuple[Tensor, Output]], names: tuple[str, ...]) -> list[tuple[Tensor, Output]]:
    """
    Return the requested outputs, in the order of the answer.

    :raise BadRequest: for one that is not there.
    """
    present = {tensor.name for tensor, _output in tensors}
    for i, name in enumerate(names):
        if name not in present:
            raise BadRequest(f"outputs[{i}].name is {brief(name)}, but the outputs are {brief(sorted(present))}.")
    wanted = frozenset(names)
    return [each for each in tensors if each[0].name in wanted]


def _add(response: ModelInferResponse, tensor: Tensor, read: Output, raw: bool) -> None:
    """
    Add an output.

    :raise BadRequest: if its data does not fit its type and shape.
    """
    output = response.outputs.add(name=_encodable(tensor.name), datatype=tensor.datatype.name, shape=tensor.shape)
    # The elements are bytes again.
    decoded = ("content_type",) if tensor.base64 else ()
    _set_parameters(output.parameters, {name: v for name, v in tensor.parameters.items() if name not in decoded})
    if tensor.datatype.name == "BYTES":
        elements = _elements(tensor, read.data)
        if raw:
            response.raw_output_contents.append(write_elements(elements))
        else:
            output.contents.bytes_contents.extend(elements)
        return
    data = read.write(tensor)
    if raw:
        response.raw_output_contents.append(data)
        return
    field = getattr(output.contents, CONTENTS[tensor.datatype.name])
    for values in tensor.datatype.unpack(memoryview(data)):
        field.extend(values)


def _elements(tensor: Tensor, data: Any) -> list[bytes]:
    """
    Return the elements of ``BYTES``: texts, and the JSON of any other value, as from TorchServe.

    :raise BadRequest: if their number does not fit the shape.
    """
    try:
        return [*map(tensor.element_of, tensor.values(data))]
    except BadRequest:
        if not isinstance(data, list) or len(data) != tensor.elements or all(isinstance(each, str) for each in data):
            raise
    return [tensor.element_of(each) if isinstance(each, str) else json.dumps(each).encode() for each in data]


def _set_parameters(target: MutableMapping[str, InferParameter], given: Any) -> None:
    """Set parameters; a value that has no type of a parameter becomes its JSON."""
    for name, value in given.items():
        if value is None:
            continue
        parameter = target[_encodable(name)]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int) and value in _INT64:
            parameter.int64_param = value
        elif isinstance(value, float):
            parameter.double_param = value
        else:
            parameter.string_param = _encodable(value) if isinstance(value, str) else json.dumps(value)
