# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.openinference``: whole requests and responses.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import BadRequest, InternalError
from twisted_serve.openinference.answers import write_answer
from twisted_serve.openinference.requests import BinaryOutputs, InferRequest, read_request


def member(name: str, datatype: str, shape: Any, **more: Any) -> dict[str, Any]:
    """Return an input or an output."""
    return {"name": name, "shape": shape, "datatype": datatype, **more}


def binary(head: Any, *tensors: bytes, length: str | None = None) -> InferRequest:
    """Parse a request with binary data after its JSON."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return read_request(text + b"".join(tensors), str(len(text)) if length is None else length)


def sized(size: Any) -> dict[str, Any]:
    """Return the parameters of binary data."""
    return {"binary_data_size": size}


class JsonTests(SynchronousTestCase):
    """Tests for requests in JSON."""

    def test_as_it_is(self) -> None:
        """A good request reaches the handler byte by byte as it came."""
        body = b'{"id":"1",  "inputs": [{"name":"x","shape":[2],"datatype":"FP32","data":[1, NaN]}], "mine": 1}'
        self.assertEqual(read_request(body), InferRequest(body, BinaryOutputs()))
        body = b'{"inputs": [{"name":"4b7c","shape":-1,"datatype":"BYTES","data":"eA=="}]}'
        self.assertEqual(read_request(body).body, body)

    def test_refused(self) -> None:
        """What is wrong is named with its place and its value."""
        good = member("x", "INT8", [1], data=[1])
        for body, words in (
            (b"", "JSON"),
            (b"\xff", "JSON"),
            (b"{", "JSON"),
            (b"[" * 100000, "JSON"),
            (b'{"inputs": [' + b"1" * 5000 + b"]}", "JSON"),
            (b"[]", "must be a JSON object, not []"),
            (b"null", "must be a JSON object, not None"),
            (b"{}", "inputs is missing"),
            ({"inputs": {}}, "inputs must be a list, not {}"),
            ({"inputs": [1]}, "inputs[0] must be an object, not 1"),
            ({"inputs": [good, member("y", "INT8", [1])]}, "inputs[1].data is missing"),
            ({"inputs": [member("y", "INT8", [2], data=[1])]}, "inputs[0].shape is [2], but its data has 1 elements"),
            ({"inputs": [member("y", "INT8", [1], data={})]}, "inputs[0].data must be a list, not {}"),
            ({"inputs": [member("y", "INT8", [1], data=[300])]}, "inputs[0].data has 300 at 0, which is no INT8"),
            ({"inputs": [good], "parameters": 1}, "parameters must be an object, not 1"),
            ({"inputs": [good], "parameters": {"binary_data_output": 1}}, "binary_data_output must be true or false"),
            ({"inputs": [good], "outputs": {}}, "outputs must be a list, not {}"),
            ({"inputs": [good], "outputs": [{}]}, "outputs[0] must be an object with a name"),
            (
                {"inputs": [good], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
                "outputs[0].parameters.binary_data must be true or false, not 'yes'",
            ),
            ({"inputs": [member("y", "INT8", [1], parameters=sized(1))]}, "Inference-Header-Content-Length"),
        ):
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            with self.assertRaises(BadRequest, msg=body) as caught:
                read_request(text)
            self.assertIn(words, str(caught.exception))

    def test_wanted(self) -> None:
        """What a client wants in binary is said for all outputs or for one, and the one counts."""
        inputs: list[Any] = []
        wanted = read_request(
            json.dumps(
                {
                    "inputs": inputs,
                    "parameters": {"binary_data_output": True},
                    "outputs": [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}],
                }
            ).encode()
        ).wanted
        self.assertEqual([wanted(name) for name in ("a", "b", "c", None, ["a"])], [False, True, True, True, True])
        self.assertTrue(wanted.any())
        self.assertFalse(read_request(b'{"inputs": [], "outputs": [{"name": "a"}]}').wanted.any())


class BinaryTests(SynchronousTestCase):
    """Tests for requests with binary data."""

    def test_several(self) -> None:
        """Binary data becomes JSON, in the inputs' order, beside inputs which were JSON."""
        head = {
            "id": "7",
            "inputs": [
                member("a", "INT16", [2], parameters={**sized(4), "mine": 1}),
                member("b", "FP32", [1], data=[0.5]),
                member("c", "BYTES", [2], parameters=sized(11)),
                member("d", "FP16", [1, 2], parameters=sized(4)),
                member("e", "BYTES", [1], parameters=sized(5)),
                member("f", "INT8", [0, 3], parameters=sized(0)),
            ],
            "mine": [1],
        }
        request = binary(
            head,
            b"\x01\x00\xff\xff",
            b"\x02\x00\x00\x00hi\x01\x00\x00\x00!",
            b"\x00\x3c\x00\x7c",
            b"\x01\x00\x00\x00\x89",
        )
        self.assertEqual(
            json.loads(request.body),
            {
                "id": "7",
                "mine": [1],
                "inputs": [
                    member("a", "INT16", [2], parameters={"mine": 1}, data=[1, -1]),
                    member("b", "FP32", [1], data=[0.5]),
                    member("c", "BYTES", [2], data=["hi", "!"]),
                    member("d", "FP16", [1, 2], data=[1.0, float("inf")]),
                    member("e", "BYTES", [1], parameters={"content_type": "base64"}, data=["iQ=="]),
                    member("f", "INT8", [0, 3], data=[]),
                ],
            },
        )

    def test_alone(self) -> None:
        """A request which is nothing but its inputs is JSON all the same."""
        request = binary({"inputs": [member("a", "BOOL", [1], parameters=sized(1))]}, b"\x01")
        self.assertEqual(json.loads(request.body), {"inputs": [member("a", "BOOL", [1], data=[True])]})

    def test_no_binary_input(self) -> None:
        """The length header may be present although everything is JSON."""
        head = b'{"inputs": []}'
        self.assertEqual(binary(head).body, head)

    def test_malformed(self) -> None:
        """Sizes which do not add up are refused, with the field and the value."""
        one = {"inputs": [member("a", "INT16", [2], parameters=sized(4))]}
        for head, data, length, words in (
            (one, b"1234", "", "from 0 to"),
            (one, b"1234", "-1", "not '-1'"),
            (one, b"1234", "1e1", "not '1e1'"),
            (one, b"1234", "+80", "not '+80'"),
            (one, b"1234", "٨", "not '٨'"),
            (one, b"1234", "99999", "not '99999'"),
            (one, b"1234", "9" * 40, "Inference-Header-Content-Length"),
            (one, b"1234", "0", "JSON"),
            (one, b"1234", "10", "JSON"),
            (one, b"123", None, "the 3 bytes that are left, not 4"),
            (one, b"", None, "not 4"),
            (one, b"12345", None, "1 bytes after the JSON belong to no input"),
            ({"inputs": []}, b"1", None, "1 bytes after the JSON"),
            ({"inputs": [member("a", "INT16", [3], parameters=sized(4))]}, b"1234", None, "3 elements of INT16 have 6"),
            ({"inputs": [member("a", "INT16", [-1], parameters=sized(3))]}, b"123", None, "elements of INT16"),
            ({"inputs": [member("a", "INT16", [2], parameters=sized(4), data=[1, 2])]}, b"1234", None, "both data"),
            *(
                ({"inputs": [member("a", "INT16", [2], parameters=sized(size))]}, b"1234", None, "binary_data_size")
                for size in (-1, "4", 4.0, True, [4], 1 << 70, 5)
            ),
            (
                {"inputs": [member("a", "INT8", [1 << 31, 1 << 31], parameters=sized(4))]},
                b"1234",
                None,
                "binary_data_size is 4",
            ),
        ):
            with self.assertRaises(BadRequest, msg=(head, data, length)) as caught:
                binary(head, data, length=length)
            self.assertIn(words, str(caught.exception))

    @given(st.binary(max_size=60), st.integers(-1, 70), st.booleans())
    def test_anything(self, data: bytes, length: int, framed: bool) -> None:
        """Whatever comes is read or refused, and nothing else happens."""
        head = b'{"inputs": [{"name": "a", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}]}'
        body, said = (head + data, str(len(head))) if framed else (data, str(length))
        try:
            request = read_request(body, said)
        except BadRequest:
            return
        self.assertIsInstance(json.loads(request.body), dict)


class AnswerTests(SynchronousTestCase):
    """Tests for responses."""

    def test_binary(self) -> None:
        """Outputs which are wanted in binary are, the others stay."""
        outputs = [
            member("a", "FP16", [2], data=[1.0, 2.0]),
            member("b", "INT64", [1], data=[7]),
            member("c", "BYTES", [1], data=["ä"], parameters={"mine": 1}),
            member("d", "BYTES", [1], data=["iQ=="], parameters={"content_type": "base64"}),
        ]
        body = json.dumps({"id": "1", "model_name": "m", "outputs": outputs}).encode()
        answer = write_answer(body, BinaryOutputs(True, {"b": False}))
        assert answer.json_size is not None
        self.assertEqual(
            json.loads(answer.body[: answer.json_size]),
            {
                "id": "1",
                "model_name": "m",
                "outputs": [
                    member("a", "FP16", [2], parameters=sized(4)),
                    outputs[1],
                    member("c", "BYTES", [1], parameters={"mine": 1, **sized(6)}),
                    member("d", "BYTES", [1], parameters=sized(5)),
                ],
            },
        )
        self.assertEqual(answer.body[answer.json_size :].hex(), "003c0040" + "02000000c3a4" + "0100000089")

    def test_as_it_is(self) -> None:
        """An output that is not requested as binary, or that does not follow the protocol, is unchanged."""
        outputs = json.dumps({"outputs": [member("a", "INT8", [1], data=[1])]}).encode()
        for body, wanted in (
            (outputs, BinaryOutputs()),
            (outputs, BinaryOutputs(False, {"b": True})),
            (b"[1, 2]", BinaryOutputs(True)),
            (b"not json", BinaryOutputs(True)),
            (b"[" * 100000, BinaryOutputs(True)),
            (b"\xff", BinaryOutputs(True)),
            (b"", BinaryOutputs(True)),
            (b'{"outputs": {}}', BinaryOutputs(True)),
            (b'{"outputs": [1]}', BinaryOutputs(True)),
            (b'{"predictions": [1]}', BinaryOutputs(True)),
        ):
            answer = write_answer(body, wanted)
            self.assertEqual((answer.body, answer.json_size), (body, None))

    def test_handlers_mistakes(self) -> None:
        """An output that contradicts its declaration is reported as the server's error, with its name."""
        for output in (
            member("a", "INT8", [1], data=[300]),
            member("a", "INT8", [2], data=[1]),
            member("a", "INT8", [1]),
            member("a", "complex64", [1], data=[1]),
            member("a", "BYTES", [1], data=["!"], parameters={"content_type": "base64"}),
            {"name": "a"},
        ):
            with self.assertRaises(InternalError) as caught:
                write_answer(json.dumps({"outputs": [output]}).encode(), BinaryOutputs(True))
            self.assertIn("outputs[0]", str(caught.exception))
