# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.openinference.outputs`: outputs read as text, and encoded in pieces."""

from __future__ import annotations

import json
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_serve.errors import BadRequest
from twisted_serve.openinference import outputs
from twisted_serve.openinference.datatypes import DATATYPES
from twisted_serve.openinference.outputs import Output, read_outputs
from twisted_serve.openinference.tensors import Tensor

VALUES = st.one_of(
    st.integers(-300, 300),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.floats(width=16),
    st.booleans(),
    st.text(max_size=2),
    st.lists(st.integers(0, 1), max_size=2),
)


def written(output: Output) -> bytes | str:
    """Return an output as binary, or the text of its error."""
    try:
        return output.write(Tensor.of("t", output.members))
    except BadRequest as e:
        return e.message


def member(datatype: str, data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": data}


@given(st.sampled_from(sorted(DATATYPES)), st.data())
def test_same(datatype: str, data: st.DataObject) -> None:
    """Text and parsed values are the same bytes, and the same error."""
    kind = data.draw(st.sampled_from([st.integers(0, 1), st.integers(-300, 300), st.floats(width=16), VALUES]))
    values = data.draw(st.lists(kind, max_size=6))
    shape = data.draw(st.sampled_from([[len(values)], [-1], [2, -1], [len(values), 1], [-1, -1], [7]]))
    one = member(datatype, values, shape)
    read = read_outputs(json.dumps({"outputs": [one], "id": "7"}).encode())
    assert read is not None
    members, [output] = read
    assert members["id"] == "7"
    assert written(output) == written(Output(one))


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BYTES"}))
def test_pieces(datatype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is read in pieces of any size, with blanks anywhere."""
    values = [True, False, True] * 5 if datatype == "BOOL" else [*range(100)]
    one = member(datatype, values)
    for indent in (None, 1):
        body = json.dumps({"outputs": [one]}, indent=indent).encode()
        for size in (1, 2, 3, 50, 1 << 16):
            monkeypatch.setattr(outputs, "_PIECE", size)
            read = read_outputs(body)
            assert read is not None
            assert outputs._packed(Tensor.of("t", one), read[1][0].text or b"") == written(Output(one))


@pytest.mark.parametrize("text", ["[1 2]", "[1,,2]", "[1,2,]", "[,1]", "[1", "1]", "[1]]", "{}", '["a]"]', "[1] x", ""])
def test_no_list(text: str) -> None:
    """What is no list of numbers is no number."""
    assert outputs._packed(Tensor.of("t", member("INT64", [1], [-1])), text.encode()) is None


def test_not_finite() -> None:
    """Infinity and NaN, which are no JSON, are read all the same."""
    read = read_outputs(json.dumps({"outputs": [member("FP64", [inf, -inf, nan])]}).encode())
    assert read is not None
    [output] = read[1]
    assert written(output) == bytes.fromhex("000000000000f07f000000000000f0ff000000000000f87f")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b"{}", b'{"outputs": 1}', b'{"outputs": {}}', b"\xff", b"[" * 100_000]
)
def test_no_answer(body: bytes) -> None:
    """What has no list of outputs is no answer."""
    assert read_outputs(body) is None
