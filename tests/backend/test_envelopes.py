# SPDX-License-Identifier: Apache-2.0
"""Tests for envelopes around handlers, as a worker puts them there."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, one_of, recursive, sampled_from, text

from tests.backend.envelope_case import ECHO, EnvelopeTestCase
from twisted_serve.handlers.instances import JSONEnvelope
from twisted_serve.wire.messages import Job, Part, PredictFailed

np = pytest.importorskip("numpy", reason="numpy is not installed")

DESCRIBING = """
def handle(data, context):
    if data is not None:
        return [{"rows": len(data), "first": data[0]}]
"""


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
        """All instances go to the handler in one call, and each request gets the predictions for its instances."""
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
        """A malformed request is refused, and the message names the field."""
        worker = self._serve("json")
        for request, message in (
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
        assert isinstance(failed, PredictFailed)
        self.assertEqual((503, "Prediction failed"), (failed.code, failed.message))

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
        """An import error inside an envelope's module is reported unchanged."""
        (self.dir / "shouting.py").write_text("import no_such_package\n")
        with self.assertRaises(ModuleNotFoundError) as raised:
            self._serve("shouting")
        self.assertEqual(raised.exception.name, "no_such_package")
