# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.rpc.services.open_inference`: the Open Inference Protocol over a server in memory."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import capturedLogs

from tests.rpc.services.open_inference_case import OpenInferenceTestCase, item, parameter, request, tensor
from tests.rpc.services.service_case import RecordingCall
from twisted_serve.errors import ServiceUnavailable, WorkerFailed
from twisted_serve.openinference.datatypes import DATATYPES
from twisted_serve.openinference.pieces import MOST_AT_ONCE
from twisted_serve.openinference.tensors import MAX_DIMENSIONS, Tensor
from twisted_serve.rpc.messages import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from twisted_serve.rpc.methods import KSERVE, OPEN_INFERENCE, SERVICES
from twisted_serve.rpc.services.infer_requests import CONTENTS
from twisted_serve.rpc.services.open_inference import status_of
from twisted_serve.rpc.statuses import Code
from twisted_serve.testing.server import MemoryServer

Outputs = ModelInferRequest.InferRequestedOutputTensor

# For each datatype: values, and their bytes.
VALUES: dict[str, tuple[list[Any], bytes]] = {
    "BOOL": ([True, False], b"\x01\x00"),
    "INT8": ([-128, 127], b"\x80\x7f"),
    "INT16": ([-2, 1], b"\xfe\xff\x01\x00"),
    "INT32": ([-2, 1 << 30], struct.pack("<2i", -2, 1 << 30)),
    "INT64": ([-(1 << 63), (1 << 63) - 1], struct.pack("<2q", -(1 << 63), (1 << 63) - 1)),
    "UINT8": ([0, 255], b"\x00\xff"),
    "UINT16": ([0, 65535], b"\x00\x00\xff\xff"),
    "UINT32": ([0, (1 << 32) - 1], struct.pack("<2I", 0, (1 << 32) - 1)),
    "UINT64": ([0, (1 << 64) - 1], struct.pack("<2Q", 0, (1 << 64) - 1)),
    "FP16": ([1.5, -2.0], b"\x00\x3e\x00\xc0"),
    "BF16": ([1.0, -2.0], b"\x80\x3f\x00\xc0"),
    "FP32": ([0.5, -3.25], struct.pack("<2f", 0.5, -3.25)),
    "FP64": ([0.1, 1e300], struct.pack("<2d", 0.1, 1e300)),
    "BYTES": (["ä", ""], b"\x02\x00\x00\x00\xc3\xa4\x00\x00\x00\x00"),
}


class MethodTests(OpenInferenceTestCase):
    """The methods without tensors."""

    def test_all(self) -> None:
        """Both names have the methods that the list of methods says."""
        listed = {f"/{name}/{method}" for name in (KSERVE, OPEN_INFERENCE) for method in SERVICES[name].methods}
        self.assertEqual(set(self.answers), listed)

    def test_server(self) -> None:
        """The server says that it is live, and ready when its models are."""
        for service in (KSERVE, OPEN_INFERENCE):
            self.assertTrue(self.answer("ServerLive", ServerLiveRequest(), service=service).live)
            self.assertTrue(self.answer("ServerReady", ServerReadyRequest(), service=service).ready)
        metadata = self.answer("ServerMetadata", ServerMetadataRequest())
        self.assertEqual((metadata.name, metadata.version), ("Torchserve", "0.12.0"))
        self.assertIn("kserve", metadata.extensions)
        self.worker.kill()
        self.assertTrue(self.answer("ServerLive", ServerLiveRequest()).live)
        self.assertFalse(self.answer("ServerReady", ServerReadyRequest()).ready)
        self.assertFalse(self.answer("ModelReady", ModelReadyRequest(name="m")).ready)

    def test_model(self) -> None:
        """A model has a readiness and versions."""
        self.assertTrue(self.answer("ModelReady", ModelReadyRequest(name="m", version="1.0")).ready)
        metadata = self.answer("ModelMetadata", ModelMetadataRequest(name="m"))
        self.assertEqual((metadata.name, [*metadata.versions], metadata.platform), ("m", ["1.0"], ""))

    def test_absent(self) -> None:
        """A model or version that is not there is not found; no name at all is the client's mistake."""
        kinds: tuple[tuple[str, Any], ...] = (
            ("ModelReady", ModelReadyRequest),
            ("ModelMetadata", ModelMetadataRequest),
        )
        for method, kind in kinds:
            for message, code, text in (
                (kind(name="x"), Code.NOT_FOUND, "Model not found: x"),
                (kind(name="m", version="9"), Code.NOT_FOUND, "Model version: 9 does not exist for model: m"),
                (kind(), Code.INVALID_ARGUMENT, "Parameter name is required."),
            ):
                status = self.status(method, message)
                self.assertEqual((status.code, status.message), (code, text))
        for asked, code in ((request(model="x"), Code.NOT_FOUND), (request(model=""), Code.INVALID_ARGUMENT)):
            self.assertEqual(self.status("ModelInfer", asked).code, code)

    def test_long_name(self) -> None:
        """A name of any length is in no text that does not fit into a header."""
        self.assertLess(len(self.status("ModelReady", ModelReadyRequest(name="x" * (1 << 20))).message), 4096)


class InferTests(OpenInferenceTestCase):
    """Requests with tensors."""

    def test_typed(self) -> None:
        """Each datatype with its own field reaches the handler as JSON, and comes back in that field."""
        for datatype, field in CONTENTS.items():
            values, _ = VALUES[datatype]
            sent = [value.encode() for value in values] if datatype == "BYTES" else values
            message = request(tensor("x", datatype, [2, 1], **{field: sent}), id="7")
            answer = self.answer("ModelInfer", message)
            self.assertEqual(
                self.bodies.pop(),
                {
                    "id": "7",
                    "model_name": "m",
                    "inputs": [{"name": "x", "shape": [2, 1], "datatype": datatype, "data": values}],
                },
            )
            self.assertEqual((answer.id, answer.model_name, answer.model_version), ("7", "m", "1.0"))
            [output] = answer.outputs
            self.assertEqual((output.name, output.datatype, [*output.shape]), ("x", datatype, [2, 1]))
            self.assertEqual([*getattr(output.contents, field)], sent)
            self.assertEqual([*answer.raw_output_contents], [])

    def test_raw(self) -> None:
        """Each datatype as bytes reaches the handler as the same JSON, and comes back as bytes."""
        for datatype, (values, data) in VALUES.items():
            message = request(tensor("x", datatype, [2]), raw_input_contents=[data])
            answer = self.answer("ModelInfer", message)
            self.assertEqual(self.bodies[-1]["inputs"][0]["data"], values)
            self.assertEqual([*answer.raw_output_contents], [data], datatype)
            self.assertFalse(answer.outputs[0].HasField("contents"))

    def test_as_http(self) -> None:
        """The job is that of the HTTP route for the same tensors: content type, members, headers."""
        message = request(
            tensor("x", "FP32", [2], {"a": 1}),
            tensor("y", "BYTES", [1]),
            raw_input_contents=[struct.pack("<2f", 0.1, 2), b"\x01\x00\x00\x00\xff"],
            id="7",
            parameters={"b": parameter(True), "c": parameter("text")},
            outputs=[Outputs(name="x")],
        )
        call = RecordingCall(metadata=[(b"x-mine", b"1"), (b"grpc-accept-encoding", b"gzip"), (b"explain", b"True")])
        self.answer("ModelInfer", message, call)
        text = json.dumps(
            {
                "id": "7",
                "model_name": "m",
                "parameters": {"b": True, "c": "text"},
                "outputs": [{"name": "x"}],
                "inputs": [
                    {
                        "name": "x",
                        "shape": [2],
                        "datatype": "FP32",
                        "parameters": {"a": 1, "binary_data_size": 8},
                    },
                    {"name": "y", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
                ],
            }
        ).encode()
        with MemoryServer(
            {"service_envelope": "kservev2", "disable_token_authorization": True}, models={"m": {}}
        ) as http:
            headers = {"Inference-Header-Content-Length": str(len(text)), "x-mine": "1"}
            data = struct.pack("<2f", 0.1, 2) + b"\x01\x00\x00\x00\xff"
            self.assertEqual(http.request("POST", "/v2/models/m/infer", None, headers, text + data).status, 200)
            [[theirs]] = http.provider.batches
        [[ours]] = self.server.provider.batches
        self.assertEqual([(part.name, part.content_type) for part in ours.parts], [("body", "application/json")])
        self.assertEqual(ours.parts[0].content_type, theirs.parts[0].content_type)
        self.assertEqual(json.loads(ours.parts[0].value), json.loads(theirs.parts[0].value))
        self.assertEqual(ours.headers, {"x-mine": "1", "explain": "False"})
        self.assertEqual(theirs.headers["explain"], "False")

    def test_torchserves_bytes(self) -> None:
        """Under TorchServe's name, elements of ``bytes_contents`` are base64 for the handler, whatever they are."""
        message = request(tensor("x", "BYTES", [-1], bytes_contents=[b"abc"]))
        answer = self.answer("ModelInfer", message, service=OPEN_INFERENCE)
        [given] = self.bodies[0]["inputs"]
        self.assertEqual((given["data"], given["parameters"]), (["YWJj"], {"content_type": "base64"}))
        # The handler returns it with the parameter, which says so.
        self.assertEqual([*answer.outputs[0].contents.bytes_contents], [b"abc"])
        self.answer("ModelInfer", message)
        self.assertEqual(self.bodies[1]["inputs"][0]["data"], ["abc"])

    def test_no_text(self) -> None:
        """Under any name, elements that are no text are base64."""
        answer = self.answer("ModelInfer", request(tensor("x", "BYTES", [2], bytes_contents=[b"a", b"\xff"])))
        self.assertEqual(self.bodies[0]["inputs"][0]["data"], ["YQ==", "/w=="])
        self.assertEqual([*answer.outputs[0].contents.bytes_contents], [b"a", b"\xff"])

    @given(st.sampled_from(sorted(set(CONTENTS) - {"BYTES"})), st.data())
    def test_typed_is_raw(self, datatype: str, data: st.DataObject) -> None:
        """A tensor is the same JSON for the handler whether it is raw or not."""
        values = data.draw(st.lists(_values(datatype), max_size=20))
        one = Tensor.of("t", {"name": "x", "datatype": datatype, "shape": [len(values)]})
        sent = request(tensor("x", datatype, [len(values)], **{CONTENTS[datatype]: values}))
        raw = request(tensor("x", datatype, [len(values)]), raw_input_contents=[one.write(values)])
        self.answer("ModelInfer", sent)
        self.answer("ModelInfer", raw)
        texts = [batch[0].parts[0].value for batch in self.server.provider.batches[-2:]]
        self.assertEqual(texts[0], texts[1])

    def test_not_finite(self) -> None:
        """Infinity and NaN reach the handler, and come back."""
        values = [math.inf, -math.inf, math.nan]
        answer = self.answer("ModelInfer", request(tensor("x", "FP32", [3], fp32_contents=values)))
        [given] = self.bodies[0]["inputs"]
        for back in (given["data"], answer.outputs[0].contents.fp32_contents):
            self.assertEqual(([*back[:2]], math.isnan(back[2])), (values[:2], True))

    def test_large(self) -> None:
        """Large tensors are converted in threads, in and out, and nothing of them is held meanwhile."""
        threads = []

        def defer(work: Any, *args: Any) -> Deferred[Any]:
            threads.append(work.__name__)
            return maybeDeferred(work, *args)

        self.threads = defer
        self.setUp()
        count = MOST_AT_ONCE
        data = bytes(range(256)) * (count // 256)
        answer = self.answer("ModelInfer", request(tensor("x", "UINT8", [count]), raw_input_contents=[data]))
        self.assertEqual(threads, ["prepare", "response_of"])
        self.assertEqual([*answer.raw_output_contents], [data])

    def test_refused(self) -> None:
        """A request that contradicts itself is refused with the field; no worker sees it."""
        fp32 = tensor("x", "FP32", [2], fp32_contents=[1, 2])
        for message, words in (
            (
                request(tensor("x", "FP32", [2], fp32_contents=[1])),
                "shape is [2], but its fp32_contents has 1",
            ),
            (request(fp32, tensor("y", "FP32", [1])), "inputs[1].shape is [1], but its fp32_contents has 0"),
            (request(tensor("x", "FP32", [1], fp64_contents=[1])), "inputs[0].contents has fp64_contents, but"),
            (request(tensor("x", "FP16", [1], fp32_contents=[1])), "inputs[0].datatype is FP16, whose data belongs"),
            (request(tensor("x", "FP8", [1])), "inputs[0].datatype must be one of"),
            (request(tensor("x", "", [1])), "inputs[0].datatype must be one of"),
            (request(tensor("", "FP32", [1])), "inputs[0].name must be a string"),
            (
                request(tensor("x", "INT8", [2], int_contents=[1, 128])),
                "int_contents has 128 at 1, which is no INT8",
            ),
            (request(tensor("x", "UINT16", [1], uint_contents=[65536])), "has 65536 at 0, which is no UINT16"),
            (request(tensor("x", "INT8", [-2], int_contents=[1])), "inputs[0].shape must have integers of at least 0"),
            (request(tensor("x", "INT8", [1 << 40, 1 << 40])), "more elements than there can be"),
            (request(tensor("x", "INT8", [-1, -1], int_contents=[1])), "leaves more than one dimension open"),
            (request(tensor("x", "INT8", [1] * (MAX_DIMENSIONS + 1), int_contents=[1])), "list of at most 64"),
            (
                request(fp32, raw_input_contents=[b"12345678"]),
                "has fp32_contents, and there are raw",
            ),
            (request(raw_input_contents=[b"1"]), "raw_input_contents has 1 entries, but there are 0 inputs"),
            (
                request(tensor("x", "FP32", [2]), raw_input_contents=[b"1"]),
                "of raw_input_contents[0] is 1, but 2",
            ),
            (request(tensor("x", "BYTES", [1]), raw_input_contents=[b"\xff\xff\xff\xffa"]), "not 1 elements with"),
            (request(tensor("x", "BYTES", [1 << 40]), raw_input_contents=[b"\0\0\0\0"]), "is 4, too few bytes for"),
            (request(fp32, outputs=[Outputs()]), "outputs[0].name is missing"),
            (request(fp32, parameters={"a": type(parameter(1))()}), "parameters has 'a' without a value"),
            (request(tensor("x", "FP32", [1], {"shared_memory_region": "r"})), "has shared_memory_region"),
            (request(fp32, outputs=[Outputs(name="x", parameters={"classification": parameter(3)})]), "classification"),
            (request(fp32, parameters={str(i): parameter(i) for i in range(1025)}), "has 1025 entries, more than 1024"),
        ):
            self.assert_refused(message, words)

    def test_many_inputs(self) -> None:
        """Inputs are counted before any of them is read."""
        message = ModelInferRequest.FromString(b"\x0a\x01m" + b"\x2a\x00" * ((1 << 16) + 1))
        self.assert_refused(message, "There are 65537 inputs")
        message = ModelInferRequest.FromString(b"\x0a\x01m" + b"\x32\x00" * ((1 << 16) + 1))
        self.assert_refused(message, "There are 65537 outputs")

    def test_outputs(self) -> None:
        """Requested outputs are those that come back; one that is not there is the client's mistake."""
        inputs = [tensor(name, "INT8", [1], int_contents=[1]) for name in "abc"]
        wanted = [Outputs(name="c"), Outputs(name="a"), Outputs(name="a")]
        answer = self.answer("ModelInfer", request(*inputs, outputs=wanted))
        self.assertEqual([output.name for output in answer.outputs], ["a", "c"])
        status = self.status("ModelInfer", request(*inputs, outputs=[Outputs(name="a"), Outputs(name="z")]))
        self.assertEqual(status.code, Code.INVALID_ARGUMENT)
        self.assertEqual(status.message, "outputs[1].name is 'z', but the outputs are ['a', 'b', 'c'].")

    def test_parameters_back(self) -> None:
        """Parameters of the answer have their types; what has none is JSON."""
        given = {"a": True, "b": 2, "c": 0.5, "d": "text", "e": [1], "f": None, "g": 1 << 70}
        output = {"name": "x", "datatype": "INT8", "shape": [1], "data": [1], "parameters": {"p": 1}}
        self.respond({"outputs": [output], "parameters": given, "model_version": 3, "id": "\ud800"})
        answer = self.answer("ModelInfer", request())
        found = {
            name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in answer.parameters.items()
        }
        self.assertEqual(found, {"a": True, "b": 2, "c": 0.5, "d": "text", "e": "[1]", "g": str(1 << 70)})
        self.assertEqual((answer.model_version, answer.id), ("3", "?"))
        self.assertEqual(answer.outputs[0].parameters["p"].int64_param, 1)

    def test_bytes_back(self) -> None:
        """Elements of BYTES that are no texts are their JSON."""
        for data, shape, elements in (
            (["a", {"b": 1}], [2], [b"a", b'{"b": 1}']),
            ([["a"], ["b"]], [2, 1], [b"a", b"b"]),
            ([[1, 2], [3]], [2], [b"[1, 2]", b"[3]"]),
            ("a", [1], [b"a"]),
        ):
            self.respond({"outputs": [{"name": "x", "datatype": "BYTES", "shape": shape, "data": data}]})
            answer = self.answer("ModelInfer", request())
            self.assertEqual([*answer.outputs[0].contents.bytes_contents], elements)

    def test_only_raw_back(self) -> None:
        """Floats of 16 bits have no field: all outputs are raw then."""
        one = {"name": "x", "datatype": "INT8", "shape": [1], "data": [-1]}
        two = {"name": "y", "datatype": "FP16", "shape": [1], "data": [1]}
        self.respond({"outputs": [one, two]})
        answer = self.answer("ModelInfer", request())
        self.assertEqual([*answer.raw_output_contents], [b"\xff", b"\x00\x3c"])

    def test_no_protocol(self) -> None:
        """An answer that does not follow the protocol is an error of the server, and logged."""
        for body, words in (
            (b"[1, 2]", "begins with b'[1, 2]'"),
            (b"\xff\xfe", "begins with"),
            (b"", "begins with b''"),
            (b'{"a": 1}', "with a list of outputs, but begins with b'{"),
            (b'{"outputs": [1]}', "outputs[0] must be an object, not 1"),
            (b'{"outputs": [{"name": "x", "datatype": "INT8", "shape": [2], "data": [1]}]}', "its data has 1"),
            (b'{"outputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": ["a"]}]}', "'a' at 0"),
            (
                b'{"outputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["a"]}]}',
                "its data has 1",
            ),
            (b'{"outputs": [], "parameters": [1]}', "parameters must be an object"),
        ):
            self.respond(body)
            with capturedLogs() as events:
                status = self.status("ModelInfer", request())
            self.assertEqual(status.code, Code.INTERNAL, status.message)
            self.assertIn(words, status.message)
            self.assertIn("cannot be sent", [event["log_format"] for event in events][-1])

    def test_stream(self) -> None:
        """A handler that streams cannot answer one message, and is stopped at its first part."""
        self.worker.holding = True
        answer = self.ask("ModelInfer", request())
        [[job]] = self.worker.running
        self.worker.chunk(item(job.request_id, {}))
        error = self.failureResultOf(answer).value
        self.assertEqual(error.message, "Model m answers with a stream: call ModelStreamInfer.")
        self.assertEqual(self.worker.cancelled, [job.request_id])

    def test_cancelled(self) -> None:
        """A call that is over frees its worker."""
        self.worker.holding = True
        answer = self.ask("ModelInfer", request())
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.worker.cancelled, ["job"])

    def test_deadline(self) -> None:
        """The client's deadline is that of the job."""
        self.worker.holding = True
        answer = self.ask("ModelInfer", request(), RecordingCall(deadline=self.server.clock.seconds() + 2))
        self.server.advance(2.1)
        self.assertEqual(status_of(self.failureResultOf(answer).value).code, Code.DEADLINE_EXCEEDED)

    def test_errors(self) -> None:
        """A handler's exception is not retried by clients, overload is, and says when."""
        for error, code in (
            (WorkerFailed(503, "Prediction failed", "ValueError: x"), Code.INTERNAL),
            (WorkerFailed(503, "mine"), Code.UNAVAILABLE),
            (WorkerFailed(404, "mine"), Code.NOT_FOUND),
            (WorkerFailed(400, "mine"), Code.INVALID_ARGUMENT),
            (WorkerFailed(507, "Out of resources"), Code.INTERNAL),
        ):
            self.server.provider.respond = lambda _jobs, error=error: error  # type: ignore[misc]
            status = self.status("ModelInfer", request())
            self.assertEqual((status.code, status.message), (code, error.message))
        overload = status_of(ServiceUnavailable("busy", retry_after=3))
        self.assertEqual((overload.code, overload.metadata), (Code.UNAVAILABLE, ((b"retry-after", b"3"),)))


def _values(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype in ("FP32", "FP64"):
        return st.floats(width=32 if datatype == "FP32" else 64, allow_nan=False)
    known = DATATYPES[datatype]
    return st.integers(int(known.least), int(known.most))
