# SPDX-License-Identifier: Apache-2.0
"""
Define the types of tensor elements: their valid values and binary encodings.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, isnan
from typing import Any

from attrs import frozen

from twisted_serve.openinference.pieces import slices

# Number of elements converted at a time: a tensor as Python objects takes many times the memory of its bytes.
CHUNK = 1 << 15


@frozen
class Datatype:
    """
    The type of a tensor's elements.

    :ivar size: Bytes per element; 0 for ``BYTES``, where elements vary in length.
    :ivar code: The element's format character in `struct`.
    :ivar types: The Python types of its values as parsed from JSON.
    :ivar least: The minimum value.
    :ivar most: The maximum value.
    """

    name: str
    size: int
    code: str
    types: frozenset[type]
    least: float = 0
    most: float = 0

    def first_invalid(self, values: Sequence[Any]) -> int:
        """Return the index of the first invalid value, which must exist."""
        # A binary search, because checking each value separately takes many times as long.
        start, end = 0, len(values)
        while end - start > 1:
            middle = (start + end) // 2
            if self.all_valid(values[start:middle]):
                start = middle
            else:
                end = middle
        return start

    def all_valid(self, values: Sequence[Any]) -> bool:
        """Return whether all values are valid for this type."""
        return all(map(self._all_valid, slices(values)))

    def _all_valid(self, values: Sequence[Any]) -> bool:
        if not self.types.issuperset(map(type, values)):
            return False
        if str in self.types:
            return True
        try:
            # Infinity and NaN are valid for every float type and for no integer type.
            finite = [*filter(isfinite, values)]
        except OverflowError:
            return False
        return not finite or (self.least <= min(finite) and max(finite) <= self.most)

    def unpack(self, data: memoryview) -> Iterator[Sequence[Any]]:
        """Yield elements of a fixed size, some at a time."""
        for start in range(0, len(data), CHUNK * self.size):
            piece = data[start : start + CHUNK * self.size]
            values = struct.unpack(f"<{len(piece) // self.size}{self.code}", piece)
            yield _decode_bfloat16(values) if self.name == "BF16" else values

    def pack(self, values: Sequence[Any]) -> bytes:
        """Encode valid elements of a fixed size."""
        written = bytearray()
        for start in range(0, len(values), CHUNK):
            piece = values[start : start + CHUNK]
            if self.name == "BF16":
                piece = [_encode_bfloat16(value) for value in piece]
            written += struct.pack(f"<{len(piece)}{self.code}", *piece)
        return bytes(written)


def _integer(name: str, size: int, code: str) -> Datatype:
    signed = code.islower()
    least = -(1 << (8 * size - 1)) if signed else 0
    return Datatype(name, size, code, frozenset({int}), least, least + (1 << 8 * size) - 1)


def _float(name: str, size: int, code: str, most: float) -> Datatype:
    return Datatype(name, size, code, frozenset({int, float}), -most, most)


_FP32_MOST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
_BF16_MOST = struct.unpack("<f", b"\x00\x00\x7f\x7f")[0]

#: All types by name.
DATATYPES: Mapping[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        # Some clients send booleans as numbers.
        Datatype("BOOL", 1, "?", frozenset({bool, int}), 0, 1),
        _integer("INT8", 1, "b"),
        _integer("INT16", 2, "h"),
        _integer("INT32", 4, "i"),
        _integer("INT64", 8, "q"),
        _integer("UINT8", 1, "B"),
        _integer("UINT16", 2, "H"),
        _integer("UINT32", 4, "I"),
        _integer("UINT64", 8, "Q"),
        _float("FP16", 2, "e", 65504.0),
        _float("FP32", 4, "f", _FP32_MOST),
        _float("FP64", 8, "d", float.fromhex("0x1.fffffffffffffp+1023")),
        _float("BF16", 2, "H", _BF16_MOST),
        Datatype("BYTES", 0, "", frozenset({str})),
    )
}


def _decode_bfloat16(values: Sequence[int]) -> Sequence[float]:
    """Decode bfloat16 values: each is the upper half of a 32-bit float."""
    return struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}I", *(value << 16 for value in values)))


def _encode_bfloat16(value: float) -> int:
    """Round a number to the nearest bfloat16, ties to even, and return its bits."""
    if isnan(value):
        return 0x7FC0
    [bits] = struct.unpack("<I", struct.pack("<f", value))
    return int(bits + 0x7FFF + (bits >> 16 & 1)) >> 16
