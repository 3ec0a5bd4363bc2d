# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.ts.service` and `twisted_serve.backend.ts.frames`, with real handlers."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.backend.model_log import model_log
from twisted_serve.backend.ts.frames import create_predict_response
from twisted_serve.backend.ts.service import Service
from twisted_serve.handlers.base import BaseHandler
from twisted_serve.handlers.collected_metrics import MetricsStore
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.streaming import send_intermediate_predict_response
from twisted_serve.testing.strategies.wire import predicts
from twisted_serve.wire.messages import Predict


@frozen
class Reply:
    """One answer in a frame."""

    request_id: str
    content_type: str
    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes


def read_frame(frame: bytes | bytearray) -> tuple[int, str, list[Reply]]:
    """Read a frame as TorchServe's server does, to its very end."""
    source = io.BytesIO(frame)

    def number() -> int:
        (found,) = struct.unpack("!i", source.read(4))
        return int(found)

    def text() -> str:
        return source.read(number()).decode()

    code, message, replies = number(), text(), []
    while (size := number()) != -1:
        request_id = source.read(size).decode()
        content_type, status, phrase = text(), number(), text()
        headers = {text(): text() for _ in range(number())}
        replies.append(Reply(request_id, content_type, status, phrase, headers, source.read(number())))
    assert source.read() == b""
    return code, message, replies


def request(value: Any, number: int = 0, headers: Any = None, content_type: str = "") -> dict[str, Any]:
    """Make a request as TorchServe's worker had it: names and values of headers in bytes."""
    parameters = [{"name": "body", "value": value, "contentType": content_type}]
    return {"requestId": f"r{number}".encode(), "parameters": parameters, "headers": headers}


class Socket:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.frames.append(bytes(data))


class ServiceTests(SynchronousTestCase):
    """A handler that is called through ``ts.service.Service``."""

    def setUp(self) -> None:
        self.out = io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.log = model_log(self)

    def _service(self, entry_point: Callable[[Any, Any], Any], **settings: Any) -> Service:
        return Service("m", "/model", None, entry_point, None, 4, **settings)

    def test_handler(self) -> None:
        """A handler class is initialized with the service's context, and its batches are answered."""
        torch = pytest.importorskip("torch", reason="torch is not installed")

        class Doubling(BaseHandler):
            def preprocess(self, data: Any) -> Any:
                return super().preprocess([row["body"] for row in data])

        place = Path(self.mktemp()).resolve()
        place.mkdir()
        torch.jit.script(torch.nn.Linear(1, 1, bias=False)).save(place / "model.pt")
        (place / "config.yaml").write_text("handler: {profile: true}")
        manifest = {"model": {"serializedFile": "model.pt", "configFile": "config.yaml"}}
        handler = Doubling()
        service = Service("m", str(place), manifest, handler.handle, None, 4)
        handler.initialize(service.context)
        with torch.no_grad():
            handler.model.weight.fill_(2)
        code, message, replies = read_frame(service.predict([request([1.5], 1), request([2.0], 2)]))
        self.assertEqual((code, message), (200, "Prediction success"))
        self.assertEqual([(each.request_id, json.loads(each.body)) for each in replies], [("r1", [3.0]), ("r2", [4.0])])
        self.assertEqual(service.context.model_yaml_config, {"handler": {"profile": True}})
        for metric in ("ts_handler_inference", "HandlerTime", "PredictionTime"):
            self.assertRegex(self.out.getvalue(), rf"\[METRICS\]{metric}\.Milliseconds:.*,r1,r2\n")

    def test_what_the_handler_gets(self) -> None:
        """The handler sees values as they are, ids, and headers, with the type of each value under its name."""
        seen: list[Any] = []

        def handle(data: Any, context: Context) -> list[Any]:
            seen.append((data, context.request_ids, context.get_all_request_header(1)))
            return [None] * len(data)

        headers = [{"name": b"X-A", "value": bytearray(b"b")}, {"name": "c", "value": "d"}]
        self._service(handle).predict([request({"a": 1}), request("text", 1, headers, "text/plain")])
        expected = {"body": {"content-type": "text/plain"}, "X-A": "b", "c": "d"}
        self.assertEqual(seen, [([{"body": {"a": 1}}, {"body": "text"}], {0: "r0", 1: "r1"}, expected)])

    def test_heads(self) -> None:
        """Statuses, phrases and headers are those that the handler set, each for its own answer."""

        def handle(data: Any, context: Context) -> list[Any]:
            context.set_response_status(201, "Made", 1)
            context.set_response_content_type(1, "text/plain")
            context.set_response_status(201, "Made ✓", 2)
            # HTTP allows no such reason phrase.
            context.set_response_status(201, "Made\r\nX: y", 3)
            return ["ä", b"b", b"c", b"d"]

        _, _, replies = read_frame(self._service(handle).predict([request(b"", number) for number in range(4)]))
        self.assertEqual(replies[0], Reply("r0", "", 200, "", {}, "ä".encode()))
        self.assertEqual(replies[1], Reply("r1", "text/plain", 201, "Made", {"content-type": "text/plain"}, b"b"))
        self.assertEqual(replies[2], Reply("r2", "", 201, "Made ?", {}, b"c"))
        self.assertEqual((replies[3].status, replies[3].content_type), (500, "application/json"))

    def test_failures(self) -> None:
        """Exceptions and invalid results have the code and the text that clients get."""

        def throw(error: Exception) -> Callable[[Any, Any], Any]:
            def handle(data: Any, context: Any) -> Any:
                raise error

            return handle

        for entry, code, message in (
            (throw(PredictionException("no such lamp", 404)), 404, "no such lamp"),
            (throw(ValueError("secret")), 503, "Prediction failed"),
            (throw(MemoryError()), 507, "Out of resources"),
            (lambda data, context: ("a",), 503, "Invalid model predict output"),
            (lambda data, context: [], 503, "number of batch response mismatched"),
            (lambda data, context: [object()], 503, "Unsupported model output data type."),
        ):
            frame = read_frame(self._service(entry).predict([request(b"")]))
            self.assertEqual(frame, (code, message, [Reply("r0", "", code, "", {}, b"error")]))
        self.assertIn("ValueError: secret", self.log.read_text())

    def test_end_of_a_test(self) -> None:
        """An exception that is not an ``Exception``, such as the end of a test, is not converted to a response."""

        def handle(data: Any, context: Any) -> Any:
            pytest.fail("the handler's own check")

        with pytest.raises(pytest.fail.Exception):
            self._service(handle).predict([request(b"")])

    def test_intermediate_answers(self) -> None:
        """Each intermediate answer is a frame in the socket that was set; without one they go nowhere."""

        def handle(data: Any, context: Context) -> list[Any]:
            assert context.request_ids is not None
            send_intermediate_predict_response(["one"], context.request_ids, "", 200, context)
            return ["two"]

        service, socket = self._service(handle), Socket()
        service.set_cl_socket(socket)
        _, _, (last,) = read_frame(service.predict([request(b"")]))
        ((_, _, (first,)),) = map(read_frame, socket.frames)
        self.assertEqual((first.body, first.headers), (b"one", {"ts_stream_next": "true"}))
        self.assertEqual((last.body, last.headers), (b"two", {}))
        service.set_cl_socket(None)
        self.assertEqual(read_frame(service.predict([request(b"")]))[0], 200)

    def test_collected_metrics(self) -> None:
        """Metrics may be collected instead of printed."""
        store = MetricsStore(None, "m")
        self._service(lambda data, context: ["a"], metrics_cache=store).predict([request(b"", 7)])
        self.assertEqual([(each.name, each.request_id) for each in store.store], [("PredictionTime", "r7")])
        self.assertEqual(self.out.getvalue(), "")

    def test_bad_requests(self) -> None:
        """A request that lacks something is refused before the handler is called, and the error says what it lacks."""
        service = self._service(lambda data, context: pytest.fail("called"))
        for batch, message in (
            (None, "Received invalid inputs"),
            ([{"parameters": []}], "request 0 has no requestId"),
            ([request(b""), {"requestId": b"r"}], "request 1 has no parameters"),
            ([{"requestId": b"r", "parameters": [{"name": "n"}]}], "a parameter of request 0 has no value"),
            ([request(b"", headers=[{"name": b"n"}])], "a header of request 0 has no value"),
            (["r"], "request 0 has no requestId"),
        ):
            with self.assertRaises(ValueError) as raised:
                service.predict(batch)  # type: ignore[arg-type]
            self.assertEqual(str(raised.exception), message)

    @given(predicts())
    def test_any_batch(self, predict: Predict) -> None:
        """Whatever a handler sends back of any batch is in the frame, under the ids of the requests."""
        batch: list[dict[str, Any]] = [
            {
                "requestId": job.request_id.encode(),
                "headers": [{"name": name, "value": value} for name, value in job.headers.items()],
                "parameters": [
                    {"name": part.name, "value": bytearray(part.value), "contentType": part.content_type}
                    for part in job.parts
                ],
            }
            for job in predict.jobs
        ]
        service = self._service(lambda data, context: [b"".join(row.values()) for row in data])
        _, _, replies = read_frame(service.predict(batch))
        expected = [
            (job.request_id, b"".join({part.name: part.value for part in job.parts}.values())) for job in predict.jobs
        ]
        self.assertEqual([(each.request_id, each.body) for each in replies], expected)


class FrameTests(SynchronousTestCase):
    """Tests for `create_predict_response`."""

    def test_stream(self) -> None:
        """An answer that more follows says so in a header, and so does the last one after it."""
        context = Context("m", "/", None, 1, None, "0")
        context.begin_batch(["r"], [{}])
        for more in (True, False):
            frame = create_predict_response({0: "a"}, {0: "r"}, "", 200, context, more)
            _, _, (reply,) = read_frame(frame)
            self.assertEqual(reply, Reply("r", "", 200, "", {"ts_stream_next": str(more).lower()}, b"a"))

    def test_unsupported(self) -> None:
        """One answer that has no form fails all of them."""
        model_log(self)
        code, message, replies = read_frame(create_predict_response(["a", {1}], {0: "r", 1: "s"}, "", 200))
        self.assertEqual((code, message), (503, "Unsupported model output data type."))
        self.assertEqual([(each.request_id, each.status) for each in replies], [("r", 503), ("s", 503)])

    @given(st.dictionaries(st.integers(0, 9), st.text()), st.text(), st.integers(200, 999))
    def test_lengths(self, ids: dict[int, str], text: str, code: int) -> None:
        """Lengths are those of the bytes, whatever the text."""
        frame = read_frame(create_predict_response([text] * 10, ids, text, code))
        self.assertEqual(frame, (code, text, [Reply(each, "", code, "", {}, text.encode()) for each in ids.values()]))
