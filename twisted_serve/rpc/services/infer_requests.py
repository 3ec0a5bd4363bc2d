# SPDX-License-Identifier: Apache-2.0
"""
Convert inference requests of the Open Inference Protocol to JSON for a handler.

Handlers get the same JSON from a message as from the protocol's HTTP requests with binary tensors.  As from TorchServe,
``id`` and ``model_name`` are always there (``docs/torchserve/grpc_workflows_kserve.md`` §1.9).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from twisted_serve.errors import BadRequest
from twisted_serve.openinference.pieces import MAX_OBJECTS, slices
from twisted_serve.openinference.rendering import RenderedInput, render_request
from twisted_serve.openinference.tensors import MAX_DIMENSIONS, Tensor, brief, json_of, render_elements
from twisted_serve.rpc.messages import InferParameter, ModelInferRequest

#: The field of ``InferTensorContents`` for each datatype; floats of 16 bits have none.
CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

# The datatypes whose range is smaller than that of their field.
_NARROW = frozenset({"INT8", "INT16", "UINT8", "UINT16"})

# The most parameters of a request or tensor; real requests have few.
_MAX_PARAMETERS = 1 << 10

# Parameters of Triton's clients that ask for what this server does not have.
_SHARED_MEMORY = "shared_memory_region"
_CLASSIFICATION = "classification"


@frozen
class Prepared:
    """
    A request that is ready for a handler.

    :ivar version: As in the message, ``None`` for the default one.
    :ivar served: The version that answers.
    :ivar body: The request as JSON.
    :ivar raw: Whether its tensors were raw, and those of the response are to be.
    :ivar outputs: The names of the requested outputs, in order; empty for all.
    :ivar empty_final: Whether the client asks for a last response even if it is empty (Triton's streams).
    """

    model: str
    version: str | None
    served: str
    id: str
    body: bytes
    raw: bool
    outputs: tuple[str, ...] = ()
    empty_final: bool = False


def prepare(message: ModelInferRequest, served: str, base64: bool = False) -> Prepared:
    """
    Convert a request.

    :param served: The version of the model that answers.
    :param base64: Whether elements in ``bytes_contents`` are always base64 for the handler, as TorchServe does it;
        otherwise they are text if all are.
    :raise BadRequest: naming the invalid field.
    """
    raw = message.raw_input_contents
    if len(message.inputs) > MAX_OBJECTS:
        raise BadRequest(f"There are {len(message.inputs)} inputs, more than {MAX_OBJECTS}.")
    if raw and len(raw) != len(message.inputs):
        raise BadRequest(f"raw_input_contents has {len(raw)} entries, but there are {len(message.inputs)} inputs.")
    members: dict[str, Any] = {"id": message.id, "model_name": message.model_name}
    parameters = _parameters("parameters", message.parameters)
    if parameters:
        members["parameters"] = parameters
    outputs = _outputs(message)
    if outputs:
        members["outputs"] = outputs
    inputs = [_input(f"inputs[{i}]", given, raw, i, base64) for i, given in enumerate(message.inputs)]
    return Prepared(
        message.model_name,
        message.model_version or None,
        served,
        message.id,
        render_request(members, inputs),
        bool(raw),
        tuple(output["name"] for output in outputs),
        parameters.get("triton_enable_empty_final_response") is True,
    )


def _input(
    where: str, given: ModelInferRequest.InferInputTensor, raw: Sequence[bytes], i: int, base64: bool
) -> RenderedInput:
    # No more of the shape than is needed to refuse it.
    shape = given.shape[: MAX_DIMENSIONS + 1]
    members: dict[str, Any] = {"name": given.name, "shape": shape, "datatype": given.datatype}
    parameters = _parameters(f"{where}.parameters", given.parameters)
    if _SHARED_MEMORY in parameters:
        raise BadRequest(f"{where}.parameters has {_SHARED_MEMORY}, but there is no shared memory: send the data.")
    if parameters:
        members["parameters"] = parameters
    tensor = Tensor.of(where, members)
    filled = [field.name for field, _ in given.contents.ListFields()]
    if not raw:
        return RenderedInput.of(members, *_typed(tensor, given, filled, base64))
    if filled:
        raise BadRequest(f"{where}.contents has {filled[0]}, and there are raw_input_contents: send one of them.")
    return RenderedInput.of(members, *tensor.read(memoryview(raw[i]), f"The length of raw_input_contents[{i}] is"))


def _typed(
    tensor: Tensor, given: ModelInferRequest.InferInputTensor, filled: list[str], base64: bool
) -> tuple[Iterator[str], bool]:
    """Return the elements of a tensor in its ``contents`` as JSON text, and whether they are base64."""
    where, datatype = tensor.where, tensor.datatype
    field = CONTENTS.get(datatype.name)
    if field is None:
        raise BadRequest(f"{where}.datatype is {datatype.name}, whose data belongs into raw_input_contents.")
    for other in filled:
        if other != field:
            raise BadRequest(f"{where}.contents has {other}, but the data of {datatype.name} belongs into {field}.")
    values = getattr(given.contents, field)
    if tensor.shape.count(-1) > 1:
        raise BadRequest(f"{where}.shape leaves more than one dimension open: {brief(list(tensor.shape))}.")
    tensor.check_count(len(values), f"{field} has")
    if datatype.name in _NARROW and not datatype.all_valid(values):
        at = datatype.first_invalid(values)
        raise BadRequest(f"{where}.contents.{field} has {values[at]} at {at}, which is no {datatype.name}.")
    return render_elements(values, base64) if datatype.name == "BYTES" else (map(json_of, slices(values)), False)


def _outputs(message: ModelInferRequest) -> list[dict[str, Any]]:
    """Return the requested outputs for the handler."""
    if len(message.outputs) > MAX_OBJECTS:
        raise BadRequest(f"There are {len(message.outputs)} outputs, more than {MAX_OBJECTS}.")
    outputs = []
    for i, given in enumerate(message.outputs):
        if not given.name:
            raise BadRequest(f"outputs[{i}].name is missing.")
        parameters = _parameters(f"outputs[{i}].parameters", given.parameters)
        for name in (_SHARED_MEMORY, _CLASSIFICATION):
            if name in parameters:
                raise BadRequest(f"outputs[{i}].parameters has {name}, which this server does not have.")
        outputs.append({"name": given.name, "parameters": parameters} if parameters else {"name": given.name})
    return outputs


def _parameters(where: str, given: Mapping[str, InferParameter]) -> dict[str, bool | int | float | str]:
    if len(given) > _MAX_PARAMETERS:
        raise BadRequest(f"{where} has {len(given)} entries, more than {_MAX_PARAMETERS}.")
    parameters = {}
    # Sorted, because a map has no order, and equal requests must be equal jobs (`scheduling.quarantine`).
    for name, value in sorted(given.items()):
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise BadRequest(f"{where} has {brief(name)} without a value.")
        parameters[name] = getattr(value, kind)
    return parameters
