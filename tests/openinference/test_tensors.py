# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.openinference``: datatypes and tensors.
"""

from __future__ import annotations

import json
from math import inf, isnan, nan, prod
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import BadRequest
from twisted_serve.openinference.datatypes import CHUNK, DATATYPES
from twisted_serve.openinference.tensors import MAX_DIMENSIONS, Tensor

INTEGERS = [name for name in DATATYPES if "INT" in name]
WIDTHS = {"FP16": 16, "FP32": 32, "FP64": 64}


def tensor(datatype: str, shape: Any, **more: Any) -> Tensor:
    """Return a tensor's members."""
    return Tensor.of("t", {"name": "x", "datatype": datatype, "shape": shape, **more})


def elements(datatype: str) -> st.SearchStrategy[Any]:
    """Generate values of a datatype."""
    known = DATATYPES[datatype]
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(max_size=20)
    if datatype in WIDTHS:
        return st.floats(width=WIDTHS[datatype], allow_nan=False)  # type: ignore[arg-type]
    if datatype == "BF16":
        # Those which are exact: 8 bits of precision.
        return st.builds(lambda m, e: float(m) * 2.0**e, st.integers(-255, 255), st.integers(-60, 60))
    return st.integers(int(known.least), int(known.most))


def typed_values() -> st.SearchStrategy[tuple[str, list[Any]]]:
    """Generate a datatype with values of it."""
    return st.sampled_from(sorted(DATATYPES)).flatmap(
        lambda name: st.tuples(st.just(name), st.lists(elements(name), max_size=30))
    )


def read(one: Tensor, data: bytes) -> tuple[list[Any], bool]:
    """Convert binary data to the JSON that the handler gets."""
    pieces, base64 = one.read(memoryview(data))
    return json.loads("[" + ",".join(pieces) + "]"), base64


class DatatypeTests(SynchronousTestCase):
    """Tests for ranges and binary encodings."""

    @given(typed_values())
    def test_there_and_back(self, typed: tuple[str, list[Any]]) -> None:
        """Values written as bytes are read as the same values; JSON with them passes the checks."""
        name, values = typed
        one = tensor(name, [len(values)])
        self.assertEqual(one.values(values), values)
        self.assertEqual(read(one, one.write(values)), (values, False))

    @given(st.sampled_from(INTEGERS), st.data())
    def test_integers(self, name: str, data: st.DataObject) -> None:
        """Integers are little-endian, of their size, in two's complement."""
        value = data.draw(elements(name))
        size = DATATYPES[name].size
        expected = value.to_bytes(size, "little", signed=name.startswith("INT"))
        self.assertEqual(tensor(name, [1]).write([value]), expected)

    def test_known_bytes(self) -> None:
        """Floats, truth values and texts are written as others write them."""
        for name, values, expected in (
            ("FP16", [1.0, -2.0, 65504.0], "003c 00c0 ff7b"),
            ("BF16", [1.0, -2.0, 3.140625], "803f 00c0 4940"),
            ("FP32", [1.0, -0.5], "0000803f 000000bf"),
            ("FP64", [1.0], "000000000000f03f"),
            ("BOOL", [True, False, 1], "01 00 01"),
            ("BYTES", ["ab", "", "ä"], "02000000 6162 00000000 02000000 c3a4"),
        ):
            self.assertEqual(tensor(name, [len(values)]).write(values).hex(), expected.replace(" ", ""), name)

    def test_brain_floats_are_rounded(self) -> None:
        """A number between two bfloat16 values is rounded to the nearest, ties to even; NaN stays NaN."""
        one = tensor("BF16", [1])
        for value, expected in ((1.00390625, "803f"), (1.01171875, "823f"), (1.005, "813f"), (inf, "807f")):
            self.assertEqual(one.write([value]).hex(), expected, value)
        [back] = read(one, one.write([nan]))[0]
        self.assertTrue(isnan(back))

    def test_not_finite(self) -> None:
        """Infinity and NaN are floats, in JSON as Python has it."""
        for name in ("FP16", "FP32", "FP64", "BF16"):
            one = tensor(name, [3])
            values, _ = read(one, one.write(one.values([inf, -inf, nan])))
            self.assertEqual(values[:2], [inf, -inf])
            self.assertTrue(isnan(values[2]))

    def test_any_truth(self) -> None:
        """Every byte but 0 is true."""
        self.assertEqual(read(tensor("BOOL", [3]), b"\x00\x01\xff")[0], [False, True, True])

    def test_out_of_range(self) -> None:
        """A value that the type does not have is refused, and shown with its place."""
        for name, value in (
            *((name, int(DATATYPES[name].most) + 1) for name in INTEGERS),
            *((name, int(DATATYPES[name].least) - 1) for name in INTEGERS),
            ("INT32", 1.0),
            ("INT32", True),
            ("INT32", "1"),
            ("INT32", None),
            ("INT64", inf),
            ("UINT8", -1),
            ("FP16", 65505.0),
            ("FP32", 3.5e38),
            ("FP64", 10**400),
            ("FP32", "1"),
            ("FP32", True),
            ("BF16", 3.4e38 * 1.1),
            ("BOOL", 2),
            ("BOOL", "true"),
            ("BYTES", 1),
            ("BYTES", {"b64": "AA=="}),
        ):
            good = {"BOOL": True, "BYTES": "x"}.get(name, 1)
            with self.assertRaises(BadRequest, msg=(name, value)) as caught:
                tensor(name, [2]).values([good, value])
            self.assertIn("t.data has", str(caught.exception))
            self.assertIn(f"at 1, which is no {name}", str(caught.exception))
            self.assertLess(len(str(caught.exception)), 300)

    @given(st.lists(st.integers(-128, 127), max_size=20), st.lists(st.integers(0, 200), min_size=1, max_size=20))
    def test_first_misfit(self, good: list[int], rest: list[int]) -> None:
        """Of several values which do not fit, the first is named."""
        values = [*good, 128, *rest]
        with self.assertRaises(BadRequest) as caught:
            tensor("INT8", [len(values)]).values(values)
        self.assertIn(f"t.data has 128 at {len(good)},", str(caught.exception))

    def test_long(self) -> None:
        """What is read in several pieces is one list; no piece is lost or turned around."""
        values = [i % 251 for i in range(3 * CHUNK + 7)]
        one = tensor("UINT8", [len(values)])
        self.assertEqual(one.write(values), bytes(values))
        self.assertEqual(read(one, bytes(values))[0], values)
        one = tensor("BF16", [len(values)])
        self.assertEqual(read(one, one.write(values))[0], values)


class ShapeTests(SynchronousTestCase):
    """Tests for shapes and data."""

    @given(st.lists(st.integers(0, 4), max_size=4), st.integers(-2, 2))
    def test_count(self, shape: list[int], more: int) -> None:
        """Data fits a shape exactly if it has the product of the dimensions as elements."""
        count = max(0, prod(shape) + more)
        one = tensor("INT8", shape)
        if count == prod(shape):
            self.assertEqual(one.values([0] * count), [0] * count)
            self.assertEqual(read(one, bytes(count))[0], [0] * count)
        else:
            with self.assertRaises(BadRequest):
                one.values([0] * count)
            with self.assertRaises(BadRequest):
                one.read(memoryview(bytes(count)))

    def test_nested(self) -> None:
        """Data may be nested as its shape is."""
        self.assertEqual(tensor("INT8", [2, 2, 1]).values([[[1], [2]], [[3], [4]]]), [1, 2, 3, 4])
        self.assertEqual(tensor("INT8", [2, 0]).values([[], []]), [])

    def test_nested_unevenly(self) -> None:
        """Data that is nested in another way is refused."""
        for data in ([1, [2]], [[1], 2], [[1, 2], [3]], [[[1]], [2]]):
            with self.assertRaises(BadRequest) as caught:
                tensor("INT8", [2]).values(data)
            self.assertIn("t.data is nested unevenly", str(caught.exception))

    def test_nested_deeply(self) -> None:
        """Data that is nested deeper than any tensor is refused."""
        data: Any = 1
        for _ in range(MAX_DIMENSIONS + 1):
            data = [data]
        with self.assertRaises(BadRequest):
            tensor("INT8", [1]).values(data)

    def test_open_dimension(self) -> None:
        """A dimension may be left open, even without a list, as TorchServe's clients do, if one reading is left."""
        self.assertEqual(tensor("BYTES", -1).values("text"), ["text"])
        self.assertEqual(tensor("BYTES", [-1]).values(["a", "b"]), ["a", "b"])
        self.assertEqual(tensor("INT8", [-1, 2]).values([1, 2, 3, 4]), [1, 2, 3, 4])
        for shape, data in (([-1, 2], [1, 2, 3]), ([-1, 0], [1])):
            with self.assertRaises(BadRequest):
                tensor("INT8", shape).values(data)
        self.assertEqual(tensor("INT8", -1).values([1, 2, 3]), [1, 2, 3])
        self.assertEqual(tensor("INT8", 3).values([1, 2, 3]), [1, 2, 3])
        self.assertRaises(BadRequest, tensor("INT8", 3).values, [1, 2])

    def test_open_in_binary(self) -> None:
        """One dimension of binary data may be unspecified, too, since its size gives the number of elements."""
        self.assertEqual(read(tensor("INT8", [-1]), b"\1\2\3")[0], [1, 2, 3])
        self.assertEqual(read(tensor("INT16", [2, -1]), b"\1\0\2\0")[0], [1, 2])
        self.assertEqual(read(tensor("BYTES", -1), b"\1\0\0\0a\0\0\0\0")[0], ["a", ""])
        self.assertEqual(read(tensor("BYTES", [-1]), b"")[0], [])
        for name, shape, data in (
            ("INT16", [-1], b"\1"),
            ("INT8", [2, -1], b"\1\2\3"),
            ("INT8", [-1, 0], b"\1"),
            ("INT8", [-1, -1], b"\1"),
            ("BYTES", [2, -1], b"\1\0\0\0a"),
            ("BYTES", [-1], b"\1\0\0"),
            ("BYTES", [-1], b"\2\0\0\0a"),
        ):
            self.assertRaises(BadRequest, tensor(name, shape).read, memoryview(data))

    def test_several_open(self) -> None:
        """Several dimensions are read from the data's nesting, and from nothing else."""
        for shape in ([-1, -1], [-1, 2], [3, -1]):
            self.assertEqual(tensor("INT8", shape).values([[1, 2], [3, 4], [5, 6]]), [1, 2, 3, 4, 5, 6])
        for shape, data in (
            ([-1, -1], [1, 2]),
            ([-1, -1, 2], [[1, 2]]),
            ([-1, -1, 3], [[[1, 2]]]),
            ([-1, -1], [[[1]]]),
        ):
            error = self.assertRaises(BadRequest, tensor("INT8", shape).values, data)
            self.assertIn("more than one dimension open", str(error))

    def test_impossible(self) -> None:
        """A shape that cannot be is refused, whatever data there is, with its value."""
        for shape, word in (
            ([-2], "-2"),
            ([1.0], "1.0"),
            ([True], "True"),
            (["1"], "'1'"),
            ([None], "None"),
            (None, "None"),
            ("1", "'1'"),
            (True, "True"),
            (-2, "-2"),
            (-1.0, "-1.0"),
            ({}, "{}"),
            ([1 << 63], "9223372036854775808"),
            ([1 << 40, 1 << 40], "more elements"),
            ([-1, 1 << 62, 4], "more elements"),
            ([1] * 65, "at most 64"),
            ([10**4000], "..."),
        ):
            with self.assertRaises(BadRequest, msg=shape) as caught:
                tensor("INT8", shape)
            self.assertIn("t.shape", str(caught.exception))
            self.assertIn(word, str(caught.exception))
            self.assertLess(len(str(caught.exception)), 300)

    def test_huge_claims(self) -> None:
        """A shape which claims more than there is takes no memory before it is refused."""
        for name in DATATYPES:
            one = tensor(name, [1 << 31, 1 << 31])
            for data in (b"", b"\x00" * 64):
                with self.assertRaises(BadRequest):
                    one.read(memoryview(data))
            with self.assertRaises(BadRequest):
                one.values([])

    def test_members(self) -> None:
        """Each member that is missing or wrong is named."""
        good = {"name": "x", "datatype": "INT8", "shape": [1]}
        for name in good:
            with self.assertRaises(BadRequest) as caught:
                Tensor.of("t", {key: value for key, value in good.items() if key != name})
            self.assertIn(f"t.{name} is missing", str(caught.exception))
        for name, value in (
            ("name", ""),
            ("name", 1),
            ("datatype", "int8"),
            ("datatype", ["INT8"]),
            ("datatype", "FP8"),
            ("parameters", []),
        ):
            with self.assertRaises(BadRequest) as caught:
                Tensor.of("t", {**good, name: value})
            self.assertIn(f"t.{name}", str(caught.exception))
            self.assertIn(repr(value), str(caught.exception))
        with self.assertRaises(BadRequest):
            Tensor.of("t", [good])


class BytesTests(SynchronousTestCase):
    """Tests for ``BYTES`` in binary."""

    def test_no_text(self) -> None:
        """When one element is no text, all are base64, and say so."""
        data = b"\x02\x00\x00\x00\xff\xfe\x01\x00\x00\x00a"
        self.assertEqual(read(tensor("BYTES", [2]), data), (["//4=", "YQ=="], True))
        one = tensor("BYTES", [2], parameters={"content_type": "base64"})
        self.assertEqual(one.write(["//4=", "YQ=="]), data)
        for wrong in ("!", "YQ=", "ä"):
            with self.assertRaises(BadRequest):
                one.write([wrong, "YQ=="])

    def test_malformed(self) -> None:
        """Lengths which do not add up are refused."""
        for count, data in (
            (1, b""),
            (1, b"\x01"),
            (1, b"\x00\x00\x00"),
            (1, b"\x02\x00\x00\x00a"),
            (1, b"\xff\xff\xff\xffa"),
            (1, b"\x01\x00\x00\x00ab"),
            (2, b"\x01\x00\x00\x00abcd"),
            (2, b"\x08\x00\x00\x00abcdefgh"),
            (0, b"\x00\x00\x00\x00"),
            (1, b"\x00\x00\x00\x00" * 2),
            (3, b"\x00\x00\x00\x00" * 2),
        ):
            with self.assertRaises(BadRequest, msg=(count, data)):
                tensor("BYTES", [count]).read(memoryview(data))

    @given(st.binary(max_size=40), st.integers(0, 5))
    def test_anything(self, data: bytes, count: int) -> None:
        """Whatever the bytes, they are as many elements as the shape says, or refused."""
        try:
            values, _ = read(tensor("BYTES", [count]), data)
        except BadRequest:
            return
        self.assertEqual(len(values), count)
