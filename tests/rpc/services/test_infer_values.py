# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.rpc.services.infer_requests` and `infer_answers` with any message and any answer."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rpc.services.open_inference_case import parameter, request, tensor
from twisted_serve.errors import BadRequest, InternalError
from twisted_serve.openinference.datatypes import DATATYPES
from twisted_serve.rpc.messages import InferTensorContents, ModelInferRequest, ModelInferResponse
from twisted_serve.rpc.services.infer_answers import response_of
from twisted_serve.rpc.services.infer_requests import CONTENTS, Prepared, prepare

TEXTS = st.text(max_size=5)
SHAPES = st.lists(st.one_of(st.integers(-2, 3), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=3)
PARAMETERS = st.dictionaries(TEXTS, st.one_of(st.booleans(), st.integers(-5, 5), st.floats(), TEXTS), max_size=2)
NUMBERS = st.lists(st.integers(0, 255), max_size=4)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(CONTENTS.values(), NUMBERS),
    "bool_contents": st.lists(st.booleans(), max_size=4),
    "bytes_contents": st.lists(st.binary(max_size=3), max_size=4),
    "fp64_contents": st.lists(st.floats(), max_size=4),
}
DATA = st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.fixed_dictionaries({name: FIELDS[name]}))
NAMES = st.sampled_from([*DATATYPES, "", "FP8"])


@st.composite
def requests(draw: st.DrawFn) -> ModelInferRequest:
    """Generate requests, many of which are nearly valid."""
    inputs = [
        tensor(draw(TEXTS), draw(NAMES), draw(SHAPES), draw(PARAMETERS), **draw(st.one_of(st.just({}), DATA)))
        for _ in range(draw(st.integers(0, 2)))
    ]
    return request(
        *inputs,
        id=draw(TEXTS),
        parameters={name: parameter(value) for name, value in draw(PARAMETERS).items()},
        outputs=[ModelInferRequest.InferRequestedOutputTensor(name=name) for name in draw(st.lists(TEXTS, max_size=2))],
        raw_input_contents=draw(st.lists(st.binary(max_size=16), max_size=2)),
    )


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def answers(draw: st.DrawFn) -> Any:
    """Generate answers of handlers, many of which are nearly valid."""
    outputs = [
        {
            "name": draw(st.one_of(st.text(min_size=1, max_size=3), JSON)),
            "datatype": draw(NAMES),
            "shape": draw(st.one_of(SHAPES, JSON)),
            "data": draw(st.one_of(NUMBERS, st.lists(TEXTS, max_size=4), JSON)),
            "parameters": draw(st.one_of(PARAMETERS, JSON)),
        }
        for _ in range(draw(st.integers(0, 2)))
    ]
    return draw(
        st.one_of(
            JSON,
            st.fixed_dictionaries(
                {"outputs": st.one_of(st.just(outputs), JSON)},
                optional={
                    "id": JSON,
                    "model_name": JSON,
                    "model_version": JSON,
                    "parameters": st.one_of(PARAMETERS, JSON),
                },
            ),
        )
    )


class AnyTests(SynchronousTestCase):
    """No message and no answer ends in anything but a response or the right error."""

    @given(requests(), st.booleans())
    def test_requests(self, message: ModelInferRequest, base64: bool) -> None:
        """A request is JSON for the handler, with all that it has, or refused with a short text."""
        try:
            prepared = prepare(message, "1.0", base64)
        except BadRequest as e:
            self.assertLess(len(e.message), 1000)
            return
        body = json.loads(prepared.body)
        self.assertEqual([each["name"] for each in body["inputs"]], [each.name for each in message.inputs])
        self.assertTrue(all(isinstance(each["data"], list) for each in body["inputs"]))

    @given(st.binary(max_size=200))
    def test_bytes(self, data: bytes) -> None:
        """So are any bytes that are a message."""
        try:
            message = ModelInferRequest.FromString(data)
        except Exception:
            return
        try:
            prepare(message, "1.0")
        except BadRequest:
            return

    @given(answers(), st.booleans(), st.lists(st.text(min_size=1, max_size=3), max_size=1))
    def test_answers(self, answer: Any, raw: bool, names: list[str]) -> None:
        """An answer is a message that can be sent, or an error of the server with a short text."""
        asked = Prepared("m", None, "1.0", "7", b"", raw, tuple(names))
        try:
            response = response_of(json.dumps(answer).encode(), asked)
        except InternalError as e:
            self.assertLess(len(e.message), 1000)
            return
        except BadRequest as e:
            self.assertTrue(names)
            self.assertIn("outputs[0].name", e.message)
            return
        self.assertEqual(ModelInferResponse.FromString(response.SerializeToString()).id, response.id)

    def test_memory(self) -> None:
        """Small elements take a bounded multiple of the message's bytes."""
        size = 1 << 15
        for message in (
            request(tensor("x", "BYTES", [size], bytes_contents=[b""] * size)),
            request(tensor("x", "INT8", [size], int_contents=[1] * size)),
            request(tensor("x", "BYTES", [size]), raw_input_contents=[bytes(4 * size)]),
            request(tensor("x", "UINT8", [4 * size]), raw_input_contents=[bytes(4 * size)]),
        ):
            tracemalloc.start()
            try:
                prepared = prepare(message, "1.0")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertLess(peak, 4 * (message.ByteSize() + len(prepared.body)))

    def test_shapes(self) -> None:
        """A shape of a million dimensions is refused without a list of them."""
        shape = [1] * (1 << 20)
        message = request(tensor("x", "INT8", shape, int_contents=[1]))
        tracemalloc.start()
        try:
            self.assertRaises(BadRequest, prepare, message, "1.0")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 1 << 18)

    def test_contents_of_raw(self) -> None:
        """Empty contents beside raw ones are no contradiction."""
        one = tensor("x", "INT8", [1])
        one.contents.CopyFrom(InferTensorContents())
        self.assertIn(b'"data": [5]', prepare(request(one, raw_input_contents=[b"\x05"]), "1.0").body)
