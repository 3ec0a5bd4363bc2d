# SPDX-License-Identifier: Apache-2.0
"""Tests for the envelopes of KServe, both versions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import data as choices
from hypothesis.strategies import integers, lists, recursive, sampled_from

from tests.backend.envelope_case import ECHO, EnvelopeTestCase
from twisted_serve.handlers.envelope import MalformedRequestError
from twisted_serve.handlers.open_inference import KServev2Envelope
from twisted_serve.wire.messages import Job, Part, PredictFailed

np = pytest.importorskip("numpy", reason="numpy is not installed")

DOUBLE = """
import numpy as np

def handle(data, context):
    if data is not None:
        return [np.asarray(each["data"]) * 2 for each in data]
"""


class KServeTests(EnvelopeTestCase):
    """``service_envelope=kserve``."""

    def test_batch(self) -> None:
        """Each request of a batch is answered with its own predictions."""
        found = self._answers(self._serve("kserve"), {"instances": [{"data": "QQ=="}]}, {"instances": [1, 2]})
        self.assertEqual(found, [{"predictions": ["{'data': 'QQ=='}"]}, {"predictions": ["1", "2"]}])

    def test_explain(self) -> None:
        """An explanation is called one."""
        worker = self._serve("kserve")
        (found,) = self._answers(worker, {"instances": [1]}, headers={"explain": "True"})
        self.assertEqual(found, {"explanations": ["1"]})
        (found,) = self._answers(worker, {"instances": [1]}, headers={"explain": "False"})
        self.assertEqual(found, {"predictions": ["1"]})

    def test_own_type(self) -> None:
        """A content type that the handler sets is kept."""
        worker = self._serve(
            "kserve",
            "def handle(data, context):\n"
            "    if data: context.set_response_content_type(0, 'application/x')\n"
            "    return data\n",
        )
        (item,) = self._items(worker, {"instances": [1]})
        self.assertEqual(
            (item.headers, item.body), ({"content-type": "application/x"}, b'{\n  "predictions": [\n    1\n  ]\n}')
        )


def tensor(data: Any, shape: Any, datatype: Any = "FP32", name: Any = "x") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


class KServev2Tests(EnvelopeTestCase):
    """``service_envelope=kservev2``."""

    manifest = {"model": {"modelName": "mnist", "modelVersion": "2.0"}}

    def test_batch(self) -> None:
        """Each request of a batch gets outputs under its inputs' names, its own id, the model's name and version."""
        worker = self._serve("kservev2", DOUBLE, manifest=self.manifest)
        found = self._answers(
            worker,
            {"id": "mine", "inputs": [tensor([1, 2, 3, 4], [2, 2]), tensor([[5]], [1, 1], "INT64", "y")]},
            {"inputs": [tensor([True], [1], "BOOL", "z")]},
        )
        outputs = [
            {"name": "x", "datatype": "FP64", "data": [2.0, 4.0, 6.0, 8.0], "shape": [4]},
            {"name": "y", "datatype": "INT64", "data": [10], "shape": [1]},
        ]
        self.assertEqual(found[0], {"id": "mine", "model_name": "mnist", "model_version": "2.0", "outputs": outputs})
        self.assertEqual((found[1]["id"], found[1]["outputs"][0]["name"]), ("r1", "z"))

    def test_what_the_handler_gets(self) -> None:
        """Data come in their shape, bytes as they are, and the context knows names and id."""
        worker = self._serve(
            "kservev2", ECHO.replace("repr(each)", "repr((each, context.input_names, context.input_request_id))")
        )
        inputs = [
            tensor([1, 2, 3, 4], [2, 2], "INT32"),
            tensor(["QQ=="], [1], "BYTES", "image"),
            tensor(["a", "b"], [2], "BYTES", "words"),
            tensor([], [0, 2], "FP32", "none"),
        ]
        (found,) = self._answers(worker, {"id": " ", "inputs": inputs})
        self.assertEqual(found["id"], "r0")
        seen = [eval(each["data"][0]) for each in found["outputs"]]
        self.assertEqual([each[0]["data"] for each in seen], [[[1, 2], [3, 4]], "QQ==", ["a", "b"], []])
        self.assertEqual(seen[0][1:], (["x", "image", "words", "none"], " "))

    def test_open_shapes(self) -> None:
        """A bare number is one dimension, and -1 is whatever the data has, where that is one reading."""
        worker = self._serve("kservev2", ECHO)
        for data, shape, seen in (
            ([1, 2, 3], 3, [1, 2, 3]),
            ([1, 2, 3], -1, [1, 2, 3]),
            ([1, 2, 3], [-1], [1, 2, 3]),
            ([[1], [2]], [-1], [1, 2]),
            ([1, 2, 3, 4], [2, -1], [[1, 2], [3, 4]]),
            ([[1, 2], [3, 4]], [-1, -1], [[1, 2], [3, 4]]),
            ([], [-1], []),
        ):
            (found,) = self._answers(worker, {"inputs": [tensor(data, shape, "INT32")]})
            self.assertEqual(eval(found["outputs"][0]["data"][0])["data"], seen, (data, shape))
        for texts in ("text", ["text"]):
            (found,) = self._answers(worker, {"inputs": [tensor(texts, -1, "BYTES")]})
            self.assertEqual(eval(found["outputs"][0]["data"][0])["data"], "text")

    def test_types(self) -> None:
        """The handler's results get the protocol's datatypes."""
        handler = (
            "import numpy as np\ndef handle(data, context): return data and [eval(each['data']) for each in data]\n"
        )
        worker = self._serve("kservev2", handler)
        for code, datatype, values in (
            ("1", "INT64", [1]),
            ("[0.5]", "FP64", [0.5]),
            ("True", "BOOL", [True]),
            ("np.arange(2, dtype='uint8')", "UINT8", [0, 1]),
            ("np.ones((1, 2), dtype='float16')", "FP16", [1.0, 1.0]),
            ("np.float32(2)", "FP32", [2.0]),
            ("'text'", "BYTES", ["text"]),
            ("['a', 'b']", "BYTES", ["a", "b"]),
            ("b'text'", "BYTES", ["text"]),
            ("bytearray([255, 0])", "BYTES", ["/wA="]),
            ("{'cat': 0.5}", "BYTES", [{"cat": 0.5}]),
            ("[[1], [2, 3]]", "BYTES", [[[1], [2, 3]]]),
            ("[(1, 2), (3, 4)]", "INT64", [1, 2, 3, 4]),
            ("[np.float32(1), np.float32(2)]", "FP32", [1.0, 2.0]),
            ("[[1, 'a'], [2.5, b'b']]", "BYTES", [1, "a", 2.5, "b"]),
            ("[]", "FP64", []),
            ("10**30", "BYTES", [10**30]),
        ):
            (found,) = self._answers(worker, {"inputs": [tensor([code], [1], "BYTES")]})
            expected = {"name": "x", "datatype": datatype, "data": values, "shape": [len(values)]}
            self.assertEqual(found["outputs"], [expected], code)

    def test_tensors(self) -> None:
        """A tensor, too, with or without gradients."""
        pytest.importorskip("torch", reason="torch is not installed")
        handler = "import torch\ndef handle(data, context):\n    return data and [torch.ones(2, requires_grad=True)]\n"
        (found,) = self._answers(self._serve("kservev2", handler), {"inputs": [tensor([1], [1])]})
        self.assertEqual(found["outputs"], [{"name": "x", "datatype": "FP32", "data": [1.0, 1.0], "shape": [2]}])

    def test_malformed(self) -> None:
        """An input that does not match its datatype or shape is refused, and the message names the field."""
        worker = self._serve("kservev2")
        deep: Any = [1]
        for _ in range(100):
            deep = [deep]
        for request, message in (
            ([], "the request must be a JSON object with a list of inputs"),
            ({"inputs": []}, "the request must be a JSON object with a list of inputs"),
            ({"inputs": [3]}, "inputs[0] must be an object, not int"),
            ({"inputs": [tensor([1], [1], name=None)]}, "inputs[0].name must be a string, not None"),
            ({"inputs": [tensor([1], "1")]}, "inputs[0].shape must be a list of whole numbers, not '1'"),
            ({"inputs": [tensor([1], True)]}, "inputs[0].shape must be a list of whole numbers, not True"),
            ({"inputs": [tensor([1], [-2])]}, "inputs[0].shape must be a list of whole numbers, not [-2]"),
            ({"inputs": [tensor([1, 2], 3)]}, "inputs[0].data has 2 values, and inputs[0].shape is [3]"),
            ({"inputs": [tensor([1, 2, 3], [2, -1])]}, "inputs[0].data has 3 values, and inputs[0].shape is"),
            ({"inputs": [tensor([1, 2], [-1, -1])]}, "inputs[0].data has 2 values, and inputs[0].shape is [-1, -1]"),
            ({"inputs": [tensor([1], [-1, 0])]}, "inputs[0].data has 1 values, and inputs[0].shape is [-1, 0]"),
            ({"inputs": [tensor([1], [True])]}, "inputs[0].shape must be a list of whole numbers, not [True]"),
            ({"inputs": [tensor([1], [1] * 65)]}, "inputs[0].shape has 65 dimensions; at most 64 can be had"),
            ({"inputs": [tensor(1, [1])]}, "inputs[0].data must be a list, not int"),
            ({"inputs": [tensor([1], [1], None)]}, "inputs[0].datatype must be one of BYTES, BOOL,"),
            ({"inputs": [tensor([1], [1], "FP12")]}, "inputs[0].datatype must be one of BYTES, BOOL,"),
            ({"inputs": [tensor([1, 2], [3])]}, "inputs[0].data has 2 values, and inputs[0].shape is [3]"),
            ({"inputs": [tensor([[1], [2, 3]], [3])]}, "inputs[0].data is of no shape"),
            ({"inputs": [tensor([[1], 2], [2])]}, "inputs[0].data is of no shape"),
            ({"inputs": [tensor(deep, [1])]}, "inputs[0].data is of no shape"),
            ({"inputs": [tensor([1], [10**9, 10**9, 10**9])]}, "inputs[0].data has 1 values"),
        ):
            self.assertEqual(self._refusal(worker, request)[: len(message)], message)

    def test_values_of_other_types(self) -> None:
        """Values that the type does not have are refused, not rounded or wrapped."""
        worker = self._serve("kservev2")
        for value, datatype in (
            (1.5, "INT32"),
            (256, "UINT8"),
            (-1, "UINT64"),
            (2**63, "INT64"),
            (10**30, "INT64"),
            (-129, "INT8"),
            (70000.0, "FP16"),
            (True, "FP32"),
            (1, "BOOL"),
            ("1", "INT32"),
            ("x" * 100, "FP32"),
            (None, "FP32"),
            ({}, "FP32"),
        ):
            message = self._refusal(worker, {"inputs": [tensor([1], [1]), tensor([value], [1], datatype)]})
            self.assertEqual(message, f"inputs[1].data holds values that are no {datatype}", value)

    def test_texts_of_many_lengths(self) -> None:
        """One long text among many short ones takes no more room than they have, coming or going."""
        texts = ["x" * 1_000_000, *("y" for _ in range(100_000))]
        worker = self._serve("kservev2", "def handle(data, context):\n    return data and [data[0]['data']]\n")
        (found,) = self._answers(worker, {"inputs": [tensor(texts, [len(texts)], "BYTES")]})
        self.assertEqual(found["outputs"][0]["shape"], [100_001])
        message = self._refusal(worker, {"inputs": [tensor(texts, [len(texts)])]})
        self.assertEqual(message, "inputs[0].data holds values that are no FP32")

    def test_more_results_than_inputs(self) -> None:
        """Results without an input have no name, and fail the request; fewer are fine."""
        worker = self._serve("kservev2", "def handle(data, context):\n    return data and [1, 2]\n")
        failed = worker.answer(Job("r", {}, [Part("body", "", self._text({"inputs": [tensor([1], [1])]}))]))
        message = "number of batch response mismatched, expect: 1, got: 2."
        self.assertEqual(failed, PredictFailed(1, 503, message))
        (found,) = self._answers(worker, {"inputs": [tensor([1], [1])] * 3})
        self.assertEqual(len(found["outputs"]), 2)

    @given(choices())
    def test_any_json(self, data: Any) -> None:
        """Nothing that is JSON makes opening raise anything but the error that is answered with 400."""
        values = recursive(
            sampled_from([None, True, 1.5, "x", "FP32", "BYTES", 2**70, -1]) | integers(0, 3),
            lambda inner: lists(inner, max_size=3),
            max_leaves=6,
        )
        given_input = {name: data.draw(values) for name in ("name", "shape", "datatype", "data")}
        envelope = KServev2Envelope(lambda data, context: data)
        try:
            opened = envelope.open({"body": {"inputs": [given_input]}})
        except MalformedRequestError:
            return
        self.assertEqual(opened.names, [given_input["name"]])
