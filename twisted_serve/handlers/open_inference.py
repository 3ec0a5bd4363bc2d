# SPDX-License-Identifier: Apache-2.0
"""
Parse requests of the Open Inference Protocol, with named tensors: the envelope ``kservev2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from twisted_serve.handlers.envelope import InstancesEnvelope, MalformedRequestError, Opened
from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.packages import needed
from twisted_serve.handlers.rows import input_of, json_of, text_of_bytes

__all__ = ["KServev2Envelope"]

# The protocol's datatypes to NumPy's dtypes; NumPy has no BF16, whose values all fit into float32.
_DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "float32",
    "FP32": "float32",
    "FP64": "float64",
}

# NumPy's limit; the product of a much longer shape would block the worker.
_MAX_DIMENSIONS = 64

# For each kind of NumPy's dtypes the kinds of values accepted: ``true`` is no number, and 1.5 is no integer.
_ACCEPTED_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "fiu"}

_NUMBERS = {bool, int, float}
_LISTS = {list, tuple}


class KServev2Envelope(InstancesEnvelope):
    """
    Answers ``{"inputs": [{"name", "shape", "datatype", "data"}]}`` with ``outputs`` of the same format.

    The handler gets each input as one instance: a dict whose ``data`` is a nested list of the input's ``shape`` (for
    ``BYTES``, the list as it came, or its only element).

    :raise ImportError: if numpy is not installed.
    """

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        needed("numpy", "service_envelope kservev2")
        super().__init__(handle_fn)

    def open(self, row: Any) -> Opened:
        """
        Return the inputs, each as a dict.

        :raise MalformedRequestError: if an input is malformed, or its data does not match its shape and datatype.
        """
        try:
            request = json_of(input_of(row) or row)
        except ValueError as e:
            raise MalformedRequestError(f"the request is {e}") from e
        inputs = request.get("inputs") if isinstance(request, dict) else None
        if not isinstance(inputs, list) or not inputs:
            raise MalformedRequestError("the request must be a JSON object with a list of inputs")
        opened = [_input(each, f"inputs[{index}]") for index, each in enumerate(inputs)]
        name = request.get("id")
        return Opened(opened, [each["name"] for each in opened], name if isinstance(name, str) else "")

    def announce(self, requests: Sequence[Opened]) -> None:
        """Set ``input_names`` and ``input_request_id`` (the first request's id) on the context."""
        self.context.input_names = [name for each in requests for name in each.names]
        self.context.input_request_id = requests[0].id

    def close(self, request: Opened, results: Any, index: int) -> Any:
        """
        Return the response, with one output for each result, named after the input at the same position.

        Each output is flattened to one dimension.

        :raise PredictionException: 503, if there are more results than inputs, or they are not a list.
        """
        if not isinstance(results, (list, tuple)) or len(results) > len(request.names):
            count = len(results) if isinstance(results, (list, tuple)) else type(results).__name__
            raise PredictionException(
                f"number of batch response mismatched, expect: {len(request.names)}, got: {count}.", 503
            )
        model = (self.context.manifest or {}).get("model") or {}
        return {
            "id": request.id if request.id.strip() else self.context.get_request_id(index),
            "model_name": model.get("modelName", self.context.model_name),
            "model_version": str(model.get("modelVersion", "")),
            "outputs": [_output(name, each) for name, each in zip(request.names, results, strict=False)],
        }


def _input(given: Any, where: str) -> dict[str, Any]:
    """Validate an input, and reshape its data."""
    if not isinstance(given, dict):
        raise MalformedRequestError(f"{where} must be an object, not {type(given).__name__}")
    if not isinstance(given.get("name"), str):
        raise MalformedRequestError(f"{where}.name must be a string, not {given.get('name')!r:.80}")
    shape, data = given.get("shape"), given.get("data")
    if type(shape) is int:
        # Examples of TorchServe and KServe give a bare number, or -1, for one dimension.
        shape = [shape]
    if not isinstance(shape, list) or not all(type(each) is int and each >= -1 for each in shape[:_MAX_DIMENSIONS]):
        raise MalformedRequestError(f"{where}.shape must be a list of whole numbers, not {shape!r:.80}")
    if len(shape) > _MAX_DIMENSIONS:
        raise MalformedRequestError(f"{where}.shape has {len(shape)} dimensions; at most {_MAX_DIMENSIONS} can be had")
    kind = given.get("datatype")
    if kind == "BYTES" and isinstance(data, str):
        # Old clients send a string as the only element.
        data = [data]
    if not isinstance(data, list):
        raise MalformedRequestError(f"{where}.data must be a list, not {type(data).__name__}")
    if kind == "BYTES":
        return {**given, "data": data[0] if len(data) == 1 else data}
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise MalformedRequestError(f"{where}.datatype must be one of BYTES, {', '.join(_DTYPES)}, not {kind!r:.80}")
    return {**given, "data": _reshape(data, shape, kind, where)}


def _reshape(data: list[Any], shape: list[int], kind: str, where: str) -> Any:
    import numpy as np  # noqa: PLC0415

    values = _flatten(data)
    if values is None:
        raise MalformedRequestError(f"{where}.data is of no shape: its lists are of different lengths")
    shape = _resolve_shape(shape, data, len(values))
    if len(values) != math.prod(shape):
        raise MalformedRequestError(f"{where}.data has {len(values)} values, and {where}.shape is {shape!r:.80}")
    dtype = np.dtype(_DTYPES[kind])
    # An array of strings would reserve the length of the longest one for each.
    if set(map(type, values)) <= _NUMBERS:
        array = np.asarray(values)
        if not values:
            return array.reshape(shape).tolist()
        if array.dtype.kind in _ACCEPTED_KINDS[dtype.kind]:
            # A value too large for the dtype changes in the conversion, which the comparison detects.
            with np.errstate(over="ignore"):
                typed = array.astype(dtype)
            same = typed == array if dtype.kind in "biu" else np.isfinite(typed) == np.isfinite(array)
            if same.all():
                return typed.reshape(shape).tolist()
    raise MalformedRequestError(f"{where}.data holds values that are no {kind}")


def _resolve_shape(shape: list[int], data: list[Any], count: int) -> list[int]:
    """Replace -1 in the shape by the data's length where it is unambiguous; otherwise return the shape unchanged."""
    if shape.count(-1) == 1:
        known = abs(math.prod(shape))
        return [count // known if each == -1 else each for each in shape] if known else shape
    if -1 in shape:
        lengths: list[int] = []
        inner: Any = data
        while isinstance(inner, (list, tuple)):
            lengths.append(len(inner))
            inner = inner[0] if inner else None
        if len(lengths) == len(shape) and all(said in (-1, own) for said, own in zip(shape, lengths, strict=True)):
            return lengths
    return shape


def _flatten(values: Sequence[Any]) -> Sequence[Any] | None:
    """Flatten nested lists; return ``None`` if they are ragged."""
    for _ in range(_MAX_DIMENSIONS):
        kinds = set(map(type, values))
        if not kinds & _LISTS:
            return values
        if not kinds <= _LISTS or len(set(map(len, values))) > 1:
            return None
        values = list(chain.from_iterable(values))
    return None


def _output(name: str, result: Any) -> dict[str, Any]:
    datatype, data = _to_datatype(result)
    return {"name": name, "datatype": datatype, "data": data, "shape": [len(data)]}


def _to_datatype(result: Any) -> tuple[str, list[Any]]:
    """Return the datatype and the flattened values of a result of the handler."""
    import numpy as np  # noqa: PLC0415

    if hasattr(result, "detach"):
        result = result.detach().cpu()
    if hasattr(result, "tolist"):
        array = np.asarray(result).flatten()
        return _datatype(array.dtype), array.tolist()
    # A ragged list is one value, like a dict.
    flat = _flatten(result) if isinstance(result, (list, tuple)) else None
    values = [result] if flat is None else flat
    if set(map(type, values)) <= _NUMBERS or all(hasattr(each, "tolist") for each in values):
        array = np.asarray(values).flatten()
        return _datatype(array.dtype), array.tolist()
    return "BYTES", [text_of_bytes(each) if isinstance(each, (bytes, bytearray)) else each for each in values]


def _datatype(dtype: Any) -> str:
    if dtype.kind == "f":
        return f"FP{dtype.itemsize * 8}"
    if dtype.kind in "iu":
        return f"{'U' if dtype.kind == 'u' else ''}INT{dtype.itemsize * 8}"
    return "BOOL" if dtype.kind == "b" else "BYTES"
