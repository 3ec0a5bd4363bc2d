# SPDX-License-Identifier: Apache-2.0
"""Tests for envelopes around handlers, as a worker puts them there."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import data as choices
from hypothesis.strategies import integers, lists, one_of, recursive, sampled_from, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers.envelope import MalformedRequestError
from twisted_serve.handlers.instances import JSONEnvelope
from twisted_serve.handlers.open_inference import KServev2Envelope
from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.wire.messages import Item, Job, Part, Predicted, PredictFailed

np = pytest.importorskip("numpy", reason="numpy is not installed")

# Answers what it gets, and remembers how it was called.
ECHO = """
calls = []

def handle(data, context):
    if data is None:
        return None
    calls.append(len(data))
    return [repr(each) for each in data]
"""

DOUBLE = """
import numpy as np

def handle(data, context):
    if data is not None:
        return [np.asarray(each["data"]) * 2 for each in data]
"""

DESCRIBING = """
def handle(data, context):
    if data is not None:
        return [{"rows": len(data), "first": data[0]}]
"""


class EnvelopeTestCase(SynchronousTestCase):
    """A handler in an envelope."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()

    def _serve(self, envelope: str, handler: str = ECHO, **settings: Any) -> LocalWorker:
        (self.dir / "h.py").write_text(handler)
        context = local_worker(self.dir, "h.py", envelope=envelope, **settings)
        worker = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return worker

    def _items(self, worker: LocalWorker, *requests: Any, headers: dict[str, str] | None = None) -> list[Item]:
        jobs = [
            Job(f"r{index}", headers or {}, [Part("body", "application/json", self._text(each))])
            for index, each in enumerate(requests)
        ]
        answer = worker.answer(*jobs)
        assert isinstance(answer, Predicted), answer
        return answer.items

    def _text(self, request: Any) -> bytes:
        return request if isinstance(request, bytes) else json.dumps(request).encode()

    def _answers(self, worker: LocalWorker, *requests: Any, **options: Any) -> list[Any]:
        items = self._items(worker, *requests, **options)
        self.assertEqual([item.status for item in items], [200] * len(items))
        return [json.loads(item.body) for item in items]

    def _refusal(self, worker: LocalWorker, request: Any) -> str:
        (item,) = self._items(worker, request)
        error = json.loads(item.body)
        self.assertEqual((item.status, error["code"], error["type"]), (400, 400, "BadRequestException"))
        self.assertEqual(item.headers, {"content-type": "application/json"})
        message: str = error["message"]
        return message


class BodyTests(EnvelopeTestCase):
    """``service_envelope=body``."""

    def test_batch(self) -> None:
        """The handler gets the inputs alone, and its answers are left as they are."""
        worker = self._serve("body")
        items = worker.predict(Part("body", "text/plain", b"a"), Part("data", "application/json", b"[1]"))
        self.assertEqual([item.body for item in items], [b"'a'", b"[1]"])


class JSONTests(EnvelopeTestCase):
    """``service_envelope=json``."""

    def test_batch(self) -> None:
        """All instances go to the handler at once, and each request gets the predictions for its own."""
        worker = self._serve("json")
        found = self._answers(worker, {"instances": [1, "a"]}, {"instances": []}, {"instances": [{"b": 2}]})
        self.assertEqual(found, [{"predictions": ["1", "'a'"]}, {"predictions": []}, {"predictions": ["{'b': 2}"]}])

    def test_form(self) -> None:
        """The answer is on one line, and says that it is JSON."""
        (item,) = self._items(self._serve("json"), {"instances": [1, 2]})
        self.assertEqual(item.body, b'{"predictions": ["1", "2"]}')
        self.assertEqual(item.headers, {"content-type": "application/json"})

    def test_base64(self) -> None:
        """Bytes come in Base64: as an instance, in a column, or not at all."""
        encoded = {"b64": base64.b64encode(b"\xff\x00").decode()}
        instances = [encoded, {"image": encoded, "size": 2}, {"b64": encoded["b64"], "size": 1}]
        (found,) = self._answers(self._serve("json"), {"instances": instances})
        self.assertEqual(
            [eval(each) for each in found["predictions"]],
            [b"\xff\x00", {"image": b"\xff\x00", "size": 2}, {"b64": encoded["b64"], "size": 1}],
        )

    def test_unlabelled(self) -> None:
        """A body whose content type says nothing is read as JSON all the same."""
        worker = self._serve("json")
        (item,) = worker.predict(Part("body", "", b'{"instances": [1]}'))
        self.assertEqual(json.loads(item.body), {"predictions": ["1"]})

    def test_malformed(self) -> None:
        """What does not have the form is refused, and the message says where."""
        worker = self._serve("json")
        for request, message in (
            (b"{", "the request is not JSON"),
            ([1], "the request must be a JSON object with instances, not list"),
            ({"inputs": []}, "instances is missing"),
            ({"instances": {"a": 1}}, "instances is no list, but dict"),
            ({"instances": [1, {"b64": "?"}]}, "instances[1].b64 is not Base64: '?'"),
            ({"instances": [{"a": {"b64": 3}}]}, "instances[0].a.b64 must be a string, not int"),
        ):
            self.assertEqual(self._refusal(worker, request), message)

    def test_malformed_alone(self) -> None:
        """A malformed request is answered alone: the others of its batch get what they asked for, in one call."""
        worker = self._serve("json")
        items = self._items(worker, {"instances": [1]}, {"instances": 3}, {"instances": [2, 3]})
        self.assertEqual([item.status for item in items], [200, 400, 200])
        self.assertEqual(json.loads(items[2].body), {"predictions": ["2", "3"]})

    def test_all_malformed(self) -> None:
        """If nothing can be answered the handler is not called."""
        worker = self._serve("json", ECHO.replace("calls.append(len(data))", "raise AssertionError"))
        self.assertEqual([item.status for item in self._items(worker, 1, 2)], [400, 400])

    def test_too_few_results(self) -> None:
        """Results that cannot be divided fail the batch; those of a request alone are its own affair."""
        worker = self._serve("json", DESCRIBING)
        jobs = [Job(f"r{index}", {}, [Part("body", "", b'{"instances": [1, 2]}')]) for index in range(2)]
        message = "number of batch response mismatched, expect: 4, got: 1."
        self.assertEqual(worker.answer(*jobs), PredictFailed(1, 503, message))
        (found,) = self._answers(worker, {"instances": [1, 2]})
        self.assertEqual(found, {"predictions": [{"rows": 2, "first": 1}]})

    def test_numbers_of_arrays(self) -> None:
        """Arrays, tensors and bytes are written as JSON has them; what it does not have fails the request."""
        handler = "import numpy as np\ndef handle(data, context):\n    return data and [eval(each) for each in data]\n"
        worker = self._serve("json", handler)
        instances = ["np.arange(2)", "{'a': np.float32(0.5)}", "b'text'", r"b'\xff'"]
        (found,) = self._answers(worker, {"instances": instances})
        self.assertEqual(found, {"predictions": [[0, 1], {"a": 0.5}, "text", "/w=="]})
        failed = worker.answer(Job("r", {}, [Part("body", "", b'{"instances": ["object()"]}')]))
        self.assertEqual(failed, PredictFailed(2, 503, "Prediction failed"))

    def test_describe(self) -> None:
        """A description of the model has no instances, and needs none."""
        (found,) = self._answers(self._serve("json", DESCRIBING), {}, headers={"describe": "True"})
        self.assertEqual(found, {"rows": 1, "first": {"body": {}}})

    def test_halves(self) -> None:
        """Opening and closing can be had without a handler, for envelopes that refine this one."""
        envelope = JSONEnvelope(lambda data, context: data)
        self.assertEqual(envelope.parse_input([{"body": {"instances": [1]}}, {"body": b'{"instances": [2]}'}]), [1, 2])
        self.assertEqual(envelope.format_output([1, 2]), ['{"predictions": [1, 2]}'])

    @given(
        lists(
            one_of(
                lists(recursive(integers() | text(), lambda inner: lists(inner, max_size=3), max_leaves=5), max_size=4),
                sampled_from([None, "x", 3]),
            ),
            max_size=5,
        )
    )
    def test_shares(self, requests: list[Any]) -> None:
        """However many instances each request brings, and whichever are malformed, each gets its own and no other's."""
        statuses: dict[int, int] = {}

        class Context:
            def get_request_header(self, index: int, key: str) -> None:
                return None

            def set_response_status(self, code: int, phrase: str, index: int) -> None:
                statuses[index] = code

            def get_response_content_type(self, index: int) -> str:
                return "text/plain"

        envelope = JSONEnvelope(lambda data, context: [["seen", each] for each in data])
        answers = envelope.handle([{"body": {"instances": each}} for each in requests], Context())
        for index, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(request, list):
                self.assertEqual(json.loads(answer), {"predictions": [["seen", each] for each in request]})
            else:
                self.assertEqual((json.loads(answer)["code"], statuses[index]), (400, 400))


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

    def test_types(self) -> None:
        """What the handler returns is named as the protocol names it."""
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
        """What is not what it says is refused, and the message says where."""
        worker = self._serve("kservev2")
        deep: Any = [1]
        for _ in range(100):
            deep = [deep]
        for request, message in (
            (b"\xff", "the request is not JSON"),
            ([], "the request must be a JSON object with a list of inputs"),
            ({"inputs": []}, "the request must be a JSON object with a list of inputs"),
            ({"inputs": [3]}, "inputs[0] must be an object, not int"),
            ({"inputs": [tensor([1], [1], name=None)]}, "inputs[0].name must be a string, not None"),
            ({"inputs": [tensor([1], 1)]}, "inputs[0].shape must be a list of whole numbers, not 1"),
            ({"inputs": [tensor([1], [-1])]}, "inputs[0].shape must be a list of whole numbers, not [-1]"),
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


class CustomTests(EnvelopeTestCase):
    """Envelopes of others."""

    own = (
        "from ts.torch_handler.request_envelope.base import BaseEnvelope\n"
        "class Shouting(BaseEnvelope):\n"
        "    def parse_input(self, data):\n"
        "        return [row['body'].upper() for row in data]\n"
        "    def format_output(self, data):\n"
        "        return [f'{each}! for {self.context.model_name}' for each in data]\n"
    )

    def test_of_archive(self) -> None:
        """An envelope may be in the archive, alone in its module or by its name."""
        (self.dir / "shouting.py").write_text(self.own)
        for name in ("shouting", "shouting.py", "shouting:Shouting"):
            worker = self._serve(name)
            (item,) = worker.predict(Part("body", "text/plain", b"hello"))
            self.assertEqual(item.body, b"'HELLO'! for model")

    def test_unknown(self) -> None:
        """A name that is neither built in nor a module is named, with those that are."""
        for name in ("shouting", "shouting.loudly"):
            with self.assertRaises(ModuleNotFoundError) as raised:
                self._serve(name)
            self.assertEqual(
                str(raised.exception),
                f"service_envelope is {name!r}, which is neither built in (body, json, kserve, kservev2) nor a module",
            )

    def test_coroutine(self) -> None:
        """A handler that is a coroutine function has no envelope, and does not load with one."""
        handler = (
            "class Handler:\n    def initialize(self, context): pass\n"
            "    async def handle(self, data, context): return data\n"
        )
        with self.assertRaises(TypeError) as raised:
            self._serve("json", handler)
        self.assertIn("no envelope goes around a coroutine function", str(raised.exception))

    def test_no_envelope(self) -> None:
        """A module without an envelope is refused."""
        (self.dir / "shouting.py").write_text("from ts.torch_handler.request_envelope.base import BaseEnvelope\n")
        for name, what in (
            ("shouting", "class that derives from BaseEnvelope"),
            ("shouting:Other", "Other"),
            ("os", "class"),
        ):
            with self.assertRaises(ValueError) as raised:
                self._serve(name)
            self.assertIn(f"there is no {what}", str(raised.exception))

    def test_broken(self) -> None:
        """What is wrong inside an envelope's module is said as it is."""
        (self.dir / "shouting.py").write_text("import no_such_package\n")
        with self.assertRaises(ModuleNotFoundError) as raised:
            self._serve("shouting")
        self.assertEqual(raised.exception.name, "no_such_package")
