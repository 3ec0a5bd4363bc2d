# SPDX-License-Identifier: Apache-2.0
"""
Inference from tensors, against the whole server in memory.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import Answer, MemoryServer
from twisted_serve.wire.messages import Item, Job, Part

LENGTH = "Inference-Header-Content-Length"


def negate(jobs: list[Job]) -> list[Item]:
    """Answer each job with its tensors negated, as an envelope and a handler would: one answer for each request."""
    items = []
    for job in jobs:
        [part] = job.parts
        assert (part.name, part.content_type) == ("body", "application/json")
        asked = json.loads(part.value)
        outputs = [
            {
                "name": f"-{each['name']}",
                "datatype": each["datatype"],
                "shape": each["shape"],
                "data": [-x for x in each["data"]],
            }
            for each in asked["inputs"]
        ]
        body = json.dumps({"id": asked.get("id"), "outputs": outputs}).encode()
        items.append(Item(job.request_id, 200, "", {"content-type": "application/json", "x-mine": "1"}, body))
    return items


def binary(head: Any, data: bytes) -> tuple[bytes, dict[str, str]]:
    """Write a request with binary data."""
    text = json.dumps(head).encode()
    return text + data, {LENGTH: str(len(text)), "Content-Type": "application/octet-stream"}


def asking(size: int, **more: Any) -> dict[str, Any]:
    """Make a request for the negation of some bytes."""
    tensor = {"name": "x", "datatype": "INT8", "shape": [size], "parameters": {"binary_data_size": size}}
    return {"inputs": [tensor], **more}


class TensorTests(SynchronousTestCase):
    """Tests for ``/v2/models/{model}/infer``."""

    def setUp(self) -> None:
        self.server = MemoryServer({"service_envelope": "kservev2"}, respond=negate, models={"m": {}})
        self.addCleanup(self.server.close)
        self.server.add_model("b", {})
        key = self.server.key(TokenKind.MANAGEMENT)
        self.server.request("POST", "/models?url=b&batch_size=8&initial_workers=1", key)

    def infer(self, body: bytes, headers: dict[str, str], path: str = "/v2/models/m/infer") -> Answer:
        return self.server.request("POST", path, self.server.key(TokenKind.INFERENCE), headers, body)

    def test_binary_in_and_out(self) -> None:
        """Binary data reaches the handler as JSON, and its outputs go back in binary when they are wanted so."""
        answer = self.infer(*binary(asking(3, id="7", parameters={"binary_data_output": True}), b"\x01\x02\xff"))
        self.assertEqual(answer.status, 200)
        size = int(answer.headers[LENGTH.lower()])
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        self.assertEqual(answer.headers["x-mine"], "1")
        self.assertEqual(
            json.loads(answer.body[:size]),
            {
                "id": "7",
                "outputs": [{"name": "-x", "datatype": "INT8", "shape": [3], "parameters": {"binary_data_size": 3}}],
            },
        )
        self.assertEqual(answer.body[size:], b"\xff\xfe\x01")

    def test_json_out(self) -> None:
        """Without a word about outputs, they are JSON."""
        answer = self.infer(*binary(asking(1), b"\x05"))
        self.assertEqual(answer.json["outputs"][0]["data"], [-5])
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertNotIn(LENGTH.lower(), answer.headers)

    def test_whole_batch(self) -> None:
        """In a batch each request has its own tensors, and its own way of getting the answer."""
        worker = self.server.provider.workers[-1]
        worker.holding = True
        key = self.server.key(TokenKind.INFERENCE)
        plain = {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [9]}]}
        requests = [
            binary(asking(1), b"\x01"),
            binary(asking(2, outputs=[{"name": "-x", "parameters": {"binary_data": True}}]), b"\x02\x03"),
            (json.dumps(plain).encode(), {"Content-Type": "application/json"}),
            binary(asking(1, parameters={"binary_data_output": True}), b"\x04"),
        ]
        waiting = [self.server.send("POST", "/v2/models/b/infer", key, headers, body) for body, headers in requests]
        worker.answer()
        worker.answer()
        self.assertEqual([len(batch) for batch in worker.batches], [1, 3])
        answers = [self.server.answered(one) for one in waiting]
        self.assertEqual([answer.status for answer in answers], [200] * 4)
        self.assertEqual(answers[0].json["outputs"][0]["data"], [-1])
        self.assertTrue(answers[1].body.endswith(b"}\xfe\xfd"))
        self.assertEqual(answers[2].json["outputs"][0]["data"], [-9])
        self.assertTrue(answers[3].body.endswith(b"}\xfc"))

    def test_refused(self) -> None:
        """What cannot be is 400 with the field and its value; no worker sees it."""
        json_type = {"Content-Type": "application/json; charset=utf-8"}
        for body, headers, words in (
            (b"{}", json_type, "inputs is missing"),
            (b"not json", json_type, "cannot be read"),
            (*binary(asking(3), b"\x01"), "the 1 bytes that are left, not 3"),
            (b"{}", {LENGTH: "3"}, "from 0 to the body's 2 bytes, not '3'"),
            (b"{}", {LENGTH: "-3"}, "not '-3'"),
        ):
            answer = self.infer(body, headers)
            self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"), answer)
            self.assertIn(words, answer.json["message"])
        self.assertEqual(self.server.provider.batches, [])

    def test_said_twice(self) -> None:
        """Two lengths are none: somebody on the way may have believed the other."""
        connection = self.server.connect()
        key = f"Authorization: Bearer {self.server.key(TokenKind.INFERENCE)}"
        self.assertEqual(connection.get("/v2/models/m/infer", key, f"{LENGTH}: 0", f"{LENGTH}: 0"), 400)
        self.assertIn(b"is there 2 times", connection.received)

    def test_unknown_model(self) -> None:
        """An unknown model is 404, whatever the tensors."""
        answer = self.infer(*binary(asking(3), b"\x01"), path="/v2/models/absent/infer")
        self.assertEqual((answer.status, answer.json["message"]), (404, "Model not found: absent"))

    def test_handlers_error(self) -> None:
        """An answer with an error code is the handler's, binary or not; an output that is no tensor is an error."""
        request = binary(asking(1, parameters={"binary_data_output": True}), b"\x01")
        said = b'{"outputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": ["x"]}]}'
        self.server.provider.respond = lambda jobs: [Item(job.request_id, 507, "", {}, said) for job in jobs]
        answer = self.infer(*request)
        self.assertEqual((answer.status, answer.body), (507, said))
        self.server.provider.respond = lambda jobs: [Item(job.request_id, 200, "", {}, said) for job in jobs]
        answer = self.infer(*request)
        self.assertEqual((answer.status, answer.json["type"]), (500, "InternalServerException"))
        self.assertIn("outputs[0].data has 'x' at 0", answer.json["message"])

    def test_stream(self) -> None:
        """A stream goes to the client as the handler sends it."""
        [worker, _] = self.server.provider.workers
        worker.holding = True
        body, headers = binary(asking(1, parameters={"binary_data_output": True}), b"\x01")
        waiting = self.server.send("POST", "/v2/models/m/infer", self.server.key(TokenKind.INFERENCE), headers, body)
        [[job]] = worker.batches
        worker.chunk(Item(job.request_id, 200, "", {}, b"one "))
        worker.answer([Item(job.request_id, 200, "", {}, b'{"outputs": []}')])
        self.assertEqual(self.server.answered(waiting).body, b'one {"outputs": []}')

    def test_other_bodies(self) -> None:
        """A body which is neither JSON nor has binary tensors is the handler's to understand."""
        self.server.provider.respond = lambda jobs: [Item(job.request_id, 200, "", {}, b"ok") for job in jobs]
        for headers, part in (
            ({}, Part("body", "", b"a=1&")),
            ({"Content-Type": "image/png"}, Part("body", "image/png", b"a=1&")),
            ({"Content-Type": "application/x-www-form-urlencoded"}, Part("a", "", b"1", decode=False)),
        ):
            self.assertEqual(self.infer(b"a=1&", headers).body, b"ok")
            self.assertEqual(self.server.provider.workers[0].batches[-1][0].parts, [part])

    def test_bounded_memory(self) -> None:
        """Reading binary data takes memory for the text that becomes of it, not for each of its elements."""
        size = 1 << 20
        body, headers = binary(asking(size), b"\x7f" * size)
        self.server.provider.respond = lambda jobs: [Item(job.request_id, 200, "", {}, b"ok") for job in jobs]
        tracemalloc.start()
        try:
            answer = self.infer(body, headers)
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(answer.body, b"ok")
        # "127," for each, and copies on the way; lists of all the elements would be 8 bytes each more, and more again.
        self.assertLess(peak, 20 * size)


class AskingTests(SynchronousTestCase):
    """Tests for which models have their tensors read, and for what the others get."""

    def setUp(self) -> None:
        self.jobs: list[Job] = []

    def respond(self, jobs: list[Job]) -> list[Item]:
        self.jobs += jobs
        return [Item(job.request_id, 200, "", {}, b"ok") for job in jobs]

    def serve(self, envelope: str | None, config: str | None) -> MemoryServer:
        manifest = {"model": {"modelName": "m", "modelVersion": "1.0", "handler": "handler.py"}}
        files = {}
        if config is not None:
            manifest["model"]["configFile"] = "config.yaml"
            files = {"config.yaml": config}
        files["MAR-INF/MANIFEST.json"] = json.dumps(manifest)
        server = MemoryServer({"service_envelope": envelope}, respond=self.respond, models={"m": files})
        self.addCleanup(server.close)
        return server

    def infer(
        self, server: MemoryServer, body: bytes, headers: dict[str, str], path: str = "/v2/models/m/infer"
    ) -> int:
        return server.request("POST", path, server.key(TokenKind.INFERENCE), headers, body).status

    def test_who_asks(self) -> None:
        """The envelope asks, by whatever name, and ``openInference`` of a model decides before it."""
        wrong = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [300]}]}'
        for envelope, config, asks in (
            (None, None, False),
            (None, "minWorkers: 1\nmaxWorkers: 1", False),
            ("kserve", None, False),
            ("json", None, False),
            ("my_envelope:Mine", None, False),
            ("kservev2", None, True),
            ("ts.torch_handler.request_envelope.kservev2", None, True),
            ("kservev2:KServev2Envelope", None, True),
            (None, "openInference: true", True),
            ("kservev2", "openInference: false", False),
        ):
            server = self.serve(envelope, config)
            status = self.infer(server, wrong, {"Content-Type": "application/json"})
            self.assertEqual(status, 400 if asks else 200, (envelope, config))

    def test_as_it_is(self) -> None:
        """The handler of any other model gets what it would get on ``/predictions``, whatever that is."""
        server = self.serve(None, None)
        for body, headers in (
            (b'{"anything": 1}', {"Content-Type": "application/json"}),
            (b"[1, 2]", {"Content-Type": "application/json; charset=utf-8"}),
            (b'{"inputs": [{}]}\x01\x02', {"Content-Type": "application/octet-stream", LENGTH: "16"}),
            (b'{"inputs": [{}]}\x01\x02', {LENGTH: "16"}),
            (b"\xff", {"Content-Type": "image/png"}),
            (b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}),
            (b"no json", {}),
            (b"", {}),
        ):
            for path in ("/v2/models/m/infer", "/predictions/m"):
                self.assertEqual(self.infer(server, body, headers, path), 200)
            *_, one, other = self.jobs
            self.assertEqual(one.parts, other.parts)

    def test_json_without_a_type(self) -> None:
        """An object without a content type is JSON, which is the protocol's default, for every model."""
        body = b' {"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [3]}]}'
        for envelope in (None, "kservev2"):
            self.assertEqual(self.infer(self.serve(envelope, None), body, {}), 200)
            self.assertEqual(self.jobs[-1].parts, [Part("body", "application/json", body)])

    def test_errors(self) -> None:
        """Every error of ``/v2`` has ``error``, which its clients print, beside what others have; no other has."""
        server = self.serve("kservev2", None)
        key = server.key(TokenKind.INFERENCE)
        json_type = {"Content-Type": "application/json"}
        said = b'{"code": 503, "type": "InternalServerException", "message": "Prediction failed"}'
        for method, path, token, body, headers, status in (
            ("POST", "/v2/models/m/infer", key, b"{}", json_type, 400),
            ("POST", "/v2/models/m/infer", key, b"{", json_type, 400),
            ("POST", "/v2/models/m/infer", key, b"x", {"Content-Encoding": "gzip"}, 400),
            ("POST", "/v2/models/m/infer", key, b"x", {"Content-Encoding": "br"}, 415),
            ("POST", "/v2/models/m/infer", key, b"x" * 7_000_000, json_type, 413),
            ("POST", "/v2/models/absent/infer", key, b"{}", json_type, 404),
            ("GET", "/v2/models/m/versions/9/ready", key, b"", {}, 404),
            ("GET", "/v2/models/m/infer", None, b"", {}, 400),
            ("POST", "/v2/models/m/infer", None, b"{}", {}, 400),
            ("POST", "/v2/models/m/ready", key, b"", {}, 405),
            ("GET", "/v2/nowhere", key, b"", {}, 404),
        ):
            answer = server.request(method, path, token, headers, body)
            self.assertEqual(answer.status, status, path)
            self.assertEqual(answer.json["error"], answer.json["message"], path)
        server.provider.respond = lambda jobs: [Item(job.request_id, 503, "", {}, said) for job in jobs]
        for headers in (json_type, {"Content-Type": "image/png"}):
            answer = server.request("POST", "/v2/models/m/infer", key, headers, b'{"inputs": []}')
            self.assertEqual((answer.status, answer.json), (503, {**json.loads(said), "error": "Prediction failed"}))
        for text in (b"no json", b"[]", b'{"mine": 1}', b'{"code": 1, "type": "t", "message": "m", "error": "e"}'):
            server.provider.respond = lambda jobs, text=text: [Item(job.request_id, 503, "", {}, text) for job in jobs]  # type: ignore[misc]
            self.assertEqual(server.request("POST", "/v2/models/m/infer", key, {}, b"x").body, text)
        for path in ("/predictions/absent", "/v1/models/absent:predict", "/v2x", "/x/v2"):
            self.assertNotIn("error", server.request("POST", path, key).json)
