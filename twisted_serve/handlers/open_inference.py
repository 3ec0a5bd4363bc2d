# SPDX-License-Identifier: Apache-2.0
"""
This module implements the envelope ``kservev2``: the Open Inference Protocol, with named tensors.
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

# The protocol's types, and NumPy's; it has no name for BF16, whose values are those of a shorter float32.
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

# NumPy's limit; the product of more would take long enough to stop the worker.
_MOST_DIMENSIONS = 64

# What may be given for NumPy's kinds of types: true is no number, and 1.5 is no integer.
_GIVEN = {"b": "b", "u": "iu", "i": "iu", "f": "fiu"}

_NUMBERS = {bool, int, float}
_LISTS = {list, tuple}


class KServev2Envelope(InstancesEnvelope):
    """
    ``{"inputs": [{"name", "shape", "datatype", "data"}]}`` is answered with ``outputs`` of the same form.

    The handler gets each input as one instance, with its data in its shape.

    :raise ImportError: if numpy is not installed.
    """

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        needed("numpy", "service_envelope kservev2")
        super().__init__(handle_fn)

    def open(self, row: Any) -> Opened:
        """
        Take the inputs, each as a dictionary.

        :raise MalformedRequestError: if one is not what it says it is.
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
        """Tell the handler the inputs' names, and what the (first) request is called."""
        self.context.input_names = [name for each in requests for name in each.names]
        self.context.input_request_id = requests[0].id

    def close(self, request: Opened, results: Any, index: int) -> Any:
        """
        Answer with an output for each result, under the name of the input it belongs to.

        :raise PredictionException: 503, if there are more results than inputs.
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
    """Check one input, and bring its data into its shape."""
    if not isinstance(given, dict):
        raise MalformedRequestError(f"{where} must be an object, not {type(given).__name__}")
    if not isinstance(given.get("name"), str):
        raise MalformedRequestError(f"{where}.name must be a string, not {given.get('name')!r:.80}")
    shape, data = given.get("shape"), given.get("data")
    if type(shape) is int:
        # A bare number, or -1, is what examples of TorchServe and KServe have for one dimension.
        shape = [shape]
    if not isinstance(shape, list) or not all(type(each) is int and each >= -1 for each in shape[:_MOST_DIMENSIONS]):
        raise MalformedRequestError(f"{where}.shape must be a list of whole numbers, not {shape!r:.80}")
    if len(shape) > _MOST_DIMENSIONS:
        raise MalformedRequestError(f"{where}.shape has {len(shape)} dimensions; at most {_MOST_DIMENSIONS} can be had")
    kind = given.get("datatype")
    if kind == "BYTES" and isinstance(data, str):
        # As old clients have it: a text alone is the one element.
        data = [data]
    if not isinstance(data, list):
        raise MalformedRequestError(f"{where}.data must be a list, not {type(data).__name__}")
    if kind == "BYTES":
        return {**given, "data": data[0] if len(data) == 1 else data}
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise MalformedRequestError(f"{where}.datatype must be one of BYTES, {', '.join(_DTYPES)}, not {kind!r:.80}")
    return {**given, "data": _shaped(data, shape, kind, where)}


def _shaped(data: list[Any], shape: list[int], kind: str, where: str) -> Any:
    import numpy as np  # noqa: PLC0415

    values = _flat(data)
    if values is None:
        raise MalformedRequestError(f"{where}.data is of no shape: its lists are of different lengths")
    shape = _closed(shape, data, len(values))
    if len(values) != math.prod(shape):
        raise MalformedRequestError(f"{where}.data has {len(values)} values, and {where}.shape is {shape!r:.80}")
    dtype = np.dtype(_DTYPES[kind])
    # An array of texts would take the longest one's room for each.
    if set(map(type, values)) <= _NUMBERS:
        array = np.asarray(values)
        if not values:
            return array.reshape(shape).tolist()
        if array.dtype.kind in _GIVEN[dtype.kind]:
            # What is too large for the type comes out as something else.
            with np.errstate(over="ignore"):
                typed = array.astype(dtype)
            same = typed == array if dtype.kind in "biu" else np.isfinite(typed) == np.isfinite(array)
            if same.all():
                return typed.reshape(shape).tolist()
    raise MalformedRequestError(f"{where}.data holds values that are no {kind}")


def _closed(shape: list[int], data: list[Any], count: int) -> list[int]:
    """Put what the data has in place of -1, where that is one reading; otherwise leave the shape as it is."""
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


def _flat(values: Sequence[Any]) -> Sequence[Any] | None:
    """Put the innermost values of nested lists into a row; ``None`` if the lists have no common shape."""
    for _ in range(_MOST_DIMENSIONS):
        kinds = set(map(type, values))
        if not kinds & _LISTS:
            return values
        if not kinds <= _LISTS or len(set(map(len, values))) > 1:
            return None
        values = list(chain.from_iterable(values))
    return None


def _output(name: str, result: Any) -> dict[str, Any]:
    datatype, data = _typed(result)
    return {"name": name, "datatype": datatype, "data": data, "shape": [len(data)]}


def _typed(result: Any) -> tuple[str, list[Any]]:
    """Name the type of what the handler returned, and put its values into a row."""
    import numpy as np  # noqa: PLC0415

    if hasattr(result, "detach"):
        result = result.detach().cpu()
    if hasattr(result, "tolist"):
        array = np.asarray(result).flatten()
        return _datatype(array.dtype), array.tolist()
    # Lists without a common shape are one value, as dictionaries are.
    flat = _flat(result) if isinstance(result, (list, tuple)) else None
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
