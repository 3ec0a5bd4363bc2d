# SPDX-License-Identifier: Apache-2.0
"""
Parse one tensor: check its members against each other, and convert its data between binary and JSON.

Nothing is allocated from a shape before the shape has been checked against the data present.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import prod
from reprlib import Repr
from typing import Any

import msgspec
from attrs import frozen

from twisted_serve.errors import BadRequest
from twisted_serve.openinference.datatypes import DATATYPES, Datatype
from twisted_serve.openinference.pieces import slices

# Maximum number of dimensions, more than any real tensor has.
MAX_DIMENSIONS = 64

# Maximum number of elements: the protocol's integers have 64 bits.
_MAX_ELEMENTS = (1 << 63) - 1

# Client values are quoted in errors, but abbreviated: they may be as large as the request.
_ABBREVIATED = Repr()
_ABBREVIATED.maxlevel, _ABBREVIATED.maxlist, _ABBREVIATED.maxdict, _ABBREVIATED.maxstring, _ABBREVIATED.maxlong = (
    3,
    8,
    4,
    60,
    40,
)

# Length in bytes of the prefix with the length of a ``BYTES`` element.
_LENGTH = 4

#: An entry in a tensor's ``parameters``: elements of ``BYTES`` are base64 in JSON, because they are not text.
BASE64 = {"content_type": "base64"}


def brief(value: object) -> str:
    """Return an abbreviated representation of a value for an error message."""
    return _ABBREVIATED.repr(value)


@frozen
class Tensor:
    """
    A tensor's members except its data.

    :ivar where: Its path in the request, for errors.
    :ivar shape: Dimensions; -1 for unspecified dimensions, which older clients send.
    """

    where: str
    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, where: str, members: object) -> Tensor:
        """
        Parse a tensor's members.

        :raise BadRequest: naming the missing or invalid member.
        """
        if not isinstance(members, dict):
            raise BadRequest(f"{where} must be an object, not {brief(members)}.")
        for name in ("name", "shape", "datatype"):
            if name not in members:
                raise BadRequest(f"{where}.{name} is missing.")
        name = members["name"]
        if not isinstance(name, str) or not name:
            raise BadRequest(f"{where}.name must be a string that is not empty, not {brief(name)}.")
        type_name = members["datatype"]
        datatype = DATATYPES.get(type_name) if isinstance(type_name, str) else None
        if datatype is None:
            raise BadRequest(f"{where}.datatype must be one of {', '.join(DATATYPES)}, not {brief(type_name)}.")
        return cls(where, name, datatype, _shape(where, members["shape"]), parameters_of(where, members))

    @property
    def base64(self) -> bool:
        """Whether its ``BYTES`` elements are base64 in JSON."""
        return self.parameters.get("content_type") == "base64"

    @property
    def elements(self) -> int:
        """The number of elements of its shape, counting unspecified dimensions as 1."""
        return abs(prod(self.shape))

    def values(self, data: object) -> list[Any]:
        """
        Return the tensor's values from JSON, nested like its shape or flat.

        :raise BadRequest: if the data does not match this type and shape.
        """
        if self.datatype.size == 0 and isinstance(data, str):
            # Older clients send a bare string for a single element.
            data = [data]
        if not isinstance(data, list):
            raise BadRequest(f"{self.where}.data must be a list, not {brief(data)}.")
        values, lengths = self._flat(data)
        if self.shape.count(-1) > 1:
            self._check_nesting(lengths)
        else:
            self.check_count(len(values), "data has")
        if not self.datatype.all_valid(values):
            at = self.datatype.first_invalid(values)
            raise BadRequest(f"{self.where}.data has {brief(values[at])} at {at}, which is no {self.datatype.name}.")
        return values

    def read(self, data: memoryview, size_is: str | None = None) -> tuple[Iterator[str], bool]:
        """
        Convert the tensor's data from binary.

        :param size_is: Where the client states the size of the data, for errors: the beginning of a sentence.
        :return: The elements as JSON text, some at a time, and whether they are base64.
        :raise BadRequest: if the data does not match this shape.
        """
        size_is = size_is or f"{self.where}.parameters.binary_data_size is"
        if self.shape.count(-1) > 1:
            raise BadRequest(f"{self.where}.shape leaves more than one dimension open: its data is binary.")
        if self.datatype.size == 0:
            return self._read_bytes(data, size_is)
        if -1 in self.shape and len(data) % self.datatype.size == 0:
            self.check_count(len(data) // self.datatype.size, "binary data has")
        elif -1 in self.shape or self.elements * self.datatype.size != len(data):
            raise BadRequest(
                f"{size_is} {len(data)}, but {self.elements} elements of {self.datatype.name} have "
                f"{self.elements * self.datatype.size} bytes."
            )
        return map(json_of, self.datatype.unpack(data)), False

    def write(self, values: Sequence[Any]) -> bytes:
        """
        Encode values that `values` has checked as binary.

        :raise BadRequest: if a base64 element is invalid.
        """
        if self.datatype.size:
            return self.datatype.pack(values)
        return write_elements(map(self.element_of, values))

    def element_of(self, value: str) -> bytes:
        """
        Return the bytes of an element of ``BYTES``.

        :raise BadRequest: if it is invalid base64.
        """
        try:
            return b64decode(value, validate=True) if self.base64 else value.encode("utf-8", "surrogatepass")
        except ValueError:
            raise BadRequest(f"{self.where}.data has {brief(value)}, which is no base64.") from None

    def _read_bytes(self, data: memoryview, size_is: str) -> tuple[Iterator[str], bool]:
        # Checked before reading: each element takes at least its length prefix.
        maximum = len(data) // _LENGTH if -1 in self.shape else self.elements
        if -1 not in self.shape and self.elements * _LENGTH > len(data):
            raise BadRequest(f"{size_is} {len(data)}, too few bytes for {self.elements} elements.")
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            begin = at + _LENGTH
            at = begin + int.from_bytes(data[at:begin], "little")
            if begin > len(data) or at > len(data) or len(pieces) == maximum:
                raise BadRequest(f"{self.where}: its binary data is not {maximum} elements with their lengths.")
            pieces.append(bytes(data[begin:at]))
        self.check_count(len(pieces), "binary data has")
        return render_elements(pieces)

    def _flat(self, data: list[Any]) -> tuple[list[Any], list[int]]:
        """Return the innermost values as a flat list, and the length of the lists at each depth."""
        lengths = [len(data)]
        for _depth in range(MAX_DIMENSIONS):
            types = {each for piece in slices(data) for each in set(map(type, piece))}
            if list not in types:
                return data, lengths
            if types != {list} or len({length for piece in slices(data) for length in set(map(len, piece))}) > 1:
                raise BadRequest(f"{self.where}.data is nested unevenly.")
            lengths.append(len(data[0]))
            outer, data = data, []
            for piece in slices(outer):
                data += chain.from_iterable(piece)
        raise BadRequest(f"{self.where}.data is nested more than {MAX_DIMENSIONS} times.")

    def _check_nesting(self, lengths: list[int]) -> None:
        """
        Check a shape with several unspecified dimensions against the data's nesting, the only unambiguous reading.
        """
        fits = len(lengths) == len(self.shape) and all(
            dimension in (-1, length) for dimension, length in zip(self.shape, lengths, strict=True)
        )
        if not fits:
            raise BadRequest(
                f"{self.where}.shape leaves more than one dimension open: {brief(list(self.shape))}, "
                f"and its data is nested as {brief(lengths)}."
            )

    def check_count(self, count: int, what: str) -> None:
        """
        Check a number of elements against the shape.

        :param what: What has so many, for the error.
        :raise BadRequest: if they differ.
        """
        if -1 in self.shape:
            fits = count == 0 if self.elements == 0 else count % self.elements == 0
        else:
            fits = count == self.elements
        if not fits:
            raise BadRequest(f"{self.where}.shape is {brief(list(self.shape))}, but its {what} {count} elements.")


def parameters_of(where: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Return the ``parameters`` of a request or tensor, empty if absent.

    :raise BadRequest: if they are not an object.
    """
    parameters = members.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest(f"{where}.parameters must be an object, not {brief(parameters)}.")
    return parameters


def _shape(where: str, value: object) -> tuple[int, ...]:
    # TorchServe's and KServe's examples have a bare number, or a bare -1, for one dimension.
    dimensions = [value] if type(value) is int else value
    if not isinstance(dimensions, list) or len(dimensions) > MAX_DIMENSIONS:
        raise BadRequest(f"{where}.shape must be a list of at most {MAX_DIMENSIONS} integers, not {brief(value)}.")
    for dimension in dimensions:
        if type(dimension) is not int or not -1 <= dimension <= _MAX_ELEMENTS:
            raise BadRequest(f"{where}.shape must have integers of at least 0, not {brief(dimension)}.")
    if abs(prod(dimensions)) > _MAX_ELEMENTS:
        raise BadRequest(f"{where}.shape has more elements than there can be: {brief(value)}.")
    return tuple(dimensions)


def render_elements(elements: Sequence[bytes], base64: bool = False) -> tuple[Iterator[str], bool]:
    """
    Render elements of ``BYTES`` as JSON text.

    :param base64: Whether they are base64 even if all of them are text.
    :return: The elements, some at a time, and whether they are base64.
    """
    # All elements, because the contents must not decide how each one is decoded.
    if not base64 and all(map(_is_text, elements)):
        return (json_of([element.decode("utf-8") for element in piece]) for piece in slices(elements)), False
    return (json_of([b64encode(element).decode("ascii") for element in piece]) for piece in slices(elements)), True


def write_elements(elements: Iterable[bytes]) -> bytes:
    """Encode elements of ``BYTES`` as binary: each after its length."""
    written = bytearray()
    for element in elements:
        written += len(element).to_bytes(_LENGTH, "little") + element
    return bytes(written)


def _is_text(element: bytes) -> bool:
    try:
        element.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def json_of(values: Sequence[Any]) -> str:
    """Render elements as JSON without the enclosing brackets."""
    text = msgspec.json.encode(values)
    if values and isinstance(values[0], float) and b"null" in text:
        # Infinity and NaN, which msgspec cannot encode; the handler's parser accepts Python's spelling.
        return json.dumps(values)[1:-1]
    return text[1:-1].decode("utf-8")
