# SPDX-License-Identifier: Apache-2.0
"""
Tests that nothing which a client sends holds the reactor: the worst input of each route, within `max_request_size`.

The server logs each turn that takes too much processor time; each test ends with a look at its log.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.integration.conftest import LONG, MakeServer, Server
from tests.integration.hostile_bodies import (
    ENCODED,
    FORM,
    FORMS,
    JSON,
    LONGEST_TARGET,
    MOST,
    MULTIPARTS,
    PARTS,
    TARGETS,
    TENSORS,
)

pytestmark = pytest.mark.integration

# Answers a few bytes, or as many as it is asked for; streams.
MODEL = """
import json
from twisted_serve.handlers.streaming import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    said = lambda name: int(context.get_request_header(0, name) or 0)
    if said("x-bytes"):
        return [b"a" * said("x-bytes")]
    if said("x-tensor"):
        output = {"name": "y", "datatype": "FP32", "shape": [said("x-tensor")], "data": [0.5] * said("x-tensor")}
        return [json.dumps({"outputs": [output]})]
    for _ in range(said("x-chunks")):
        send_intermediate_predict_response([b"a"], context.request_ids, "", 200, context)
    return [str(sum(len(value) for value in row.values() if hasattr(value, "__len__"))) for row in data]
"""


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with everything on that a client can reach."""
    server = make_module_server(
        {"m": MODEL}, enable_model_api=True, ts_open_inference_protocol=True, cors_allowed_origin="*", load_models="m,t"
    )
    server.add_model("t", MODEL, openInference=True)
    server.start()
    return server


def send(server: Server, method: str, path: str, body: bytes = b"", *lines: str, role: str = "inference") -> bytes:
    """Send a request and return the status line; the server may have answered before all is sent."""
    key = {"inference": "inference", "management": "management", "metrics": "management"}[role]
    if path.startswith("/token"):
        key = "API"
    head = server.head(method, path, f"Content-Length: {len(body)}", "Connection: close", *lines, key=key)
    return send_bytes(server, head + body, role)


def send_bytes(server: Server, data: bytes, role: str = "inference") -> bytes:
    """Send bytes and return what comes back until the connection ends, at most the first of it."""
    with server.connect(role) as client:
        received = b""
        # While much is sent an answer may come, and must be read for the server to go on.
        sending = threading.Thread(target=_send_all, args=(client, data))
        sending.start()
        with suppress(OSError):
            while more := client.recv(1 << 20):
                received = received if len(received) > 1 << 16 else received + more
        sending.join(LONG)
    return received


def _send_all(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        client.sendall(data)


def check(server: Server, since: int) -> None:
    slow = server.slow_turns(since)
    assert not slow, slow[0]


@pytest.fixture(autouse=True)
def quick(server: Server) -> Iterator[None]:
    """See that no turn of this test was slow."""
    since = len(server.log())
    yield
    check(server, since)


@pytest.mark.parametrize("name", FORMS)
def test_form(server: Server, name: str) -> None:
    """A form, whatever it is made of."""
    send(server, "POST", "/predictions/m", FORMS[name], FORM)


@pytest.mark.parametrize("name", MULTIPARTS)
def test_multipart(server: Server, name: str) -> None:
    """A multipart form, whatever it is made of."""
    send(server, "POST", "/predictions/m", MULTIPARTS[name][:MOST], PARTS)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/t/infer", "/v1/models/m:predict"])
def test_tensors(server: Server, name: str, path: str) -> None:
    """JSON, whatever it is made of, for a handler that takes it as it is and for one that asks for tensors."""
    send(server, "POST", path, TENSORS[name][:MOST], JSON)


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("path", ["/predictions/m", "/v2/models/t/infer"])
def test_encoded(server: Server, name: str, path: str) -> None:
    """A compressed body, whatever it is made of."""
    coding, body = ENCODED[name]
    send(server, "POST", path, body, JSON, f"Content-Encoding: {coding}")


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("role", ["inference", "management", "metrics"])
def test_target(server: Server, name: str, role: str) -> None:
    """A path and query of the greatest length."""
    send(server, "GET", TARGETS[name][:LONGEST_TARGET], role=role)
    send(server, "POST", TARGETS[name][:LONGEST_TARGET], b"{}", JSON, role=role)


def test_binary_tensors(server: Server) -> None:
    """Tensors as bytes: one of six million, many of one, and strings of no length."""

    def infer(inputs: Any, data: bytes) -> None:
        said = json.dumps({"inputs": inputs}).encode()
        body = said + data
        if len(body) <= MOST:
            send(server, "POST", "/v2/models/m/infer", body, f"Inference-Header-Content-Length: {len(said)}")

    def one(datatype: str, shape: int, size: int) -> dict[str, Any]:
        return {"name": "x", "datatype": datatype, "shape": [shape], "parameters": {"binary_data_size": size}}

    infer([one("UINT8", 6_000_000, 6_000_000)], bytes(6_000_000))
    infer([one("FP16", 3_000_000, 6_000_000)], bytes(6_000_000))
    infer([one("BYTES", 1_500_000, 6_000_000)], bytes(6_000_000))
    infer([one("BOOL", 1, 1)] * 50_000, bytes(50_000))


def test_binary_answer(server: Server) -> None:
    """An answer in binary whose JSON is long."""
    said = json.dumps(
        {
            "inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [1]}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    send(server, "POST", "/v2/models/m/infer", said, JSON, "X-Tensor: 1000000")
    send(server, "POST", "/v2/models/m/infer", said, JSON, "X-Tensor: 20000")


@pytest.mark.parametrize(
    "line",
    [
        "a:",
        "a:b",
        "Authorization: Bearer a",
        "X-Request-Id: a",
        "Content-Type: a",
        "Expect: a",
        "Accept-Encoding: gzip",
        "Connection: a",
        "Cookie: a=b",
        "X-Forwarded-For: a",
    ],
)
def test_headers(server: Server, line: str) -> None:
    """As many headers as there may be."""
    send(server, "POST", "/predictions/m", b"1", *[line] * (15000 // (len(line) + 2)))


def test_header_of_commas(server: Server) -> None:
    """A long header of many options."""
    send(server, "POST", "/predictions/m", b"1", "Connection: " + "," * 8000)
    send(server, "POST", "/predictions/m", b"1", "Content-Type: " + ";" * 8000)
    send(server, "POST", "/predictions/m", b"1", "Content-Type: multipart/form-data;" + "boundary=" * 800)
    send(server, "OPTIONS", "/predictions/m", b"", "Origin: a", "Access-Control-Request-Method: " + "A" * 8000)
    send(server, "GET", "/predictions/m", b"", "traceparent: " + "0" * 8000)


@pytest.mark.parametrize(
    "path", ["/livez", "/ping", "/predictions/m", "/nowhere", "/predictions/nowhere", "/api-description"]
)
def test_pipelined(server: Server, path: str) -> None:
    """Many requests in one piece; the last one closes the connection."""
    one = server.head("GET", path)
    last = server.head("GET", path, "Connection: close")
    received = send_bytes(server, one * 3000 + last)
    assert received.startswith(b"HTTP/1.1 ")


def test_pipelined_without_key(server: Server) -> None:
    """Many requests in one piece that are refused."""
    one = server.head("GET", "/ping", key=None)
    send_bytes(server, one * 3000 + server.head("GET", "/ping", "Connection: close", key=None))
    send_bytes(server, one * 3000 + server.head("GET", "/models", "Connection: close", key=None), "management")


@pytest.mark.parametrize("chunk", [b"1\r\na\r\n", b"1;" + b"x" * 60 + b"\r\na\r\n", b"0001\r\na\r\n", b"2\r\n\r\n\r\n"])
def test_chunks(server: Server, chunk: bytes) -> None:
    """A body in chunks of a byte."""
    head = server.head("POST", "/predictions/m", "Transfer-Encoding: chunked", "Connection: close")
    send_bytes(server, head + chunk * (MOST // len(chunk)) + b"0\r\n\r\n")


def test_line_ends(server: Server) -> None:
    """Empty lines before a request, and a head of empty lines."""
    send_bytes(server, b"\r\n" * 1_000_000)
    send_bytes(server, b"\n" * 1_000_000)
    send_bytes(server, b"GET / HTTP/1.1\r\n" * 10_000)


def test_small_pieces(server: Server) -> None:
    """A body that comes byte by byte."""
    body = b"a=" + b"%" * 3000
    head = server.head("POST", "/predictions/m", f"Content-Length: {len(body)}", FORM, "Connection: close")
    with server.connect() as client:
        client.sendall(head)
        for i in range(len(body)):
            client.sendall(body[i : i + 1])
        server.read_until(client, b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("kind", [FORM, JSON, PARTS])
def test_management_bodies(server: Server, method: str, kind: str) -> None:
    """The bodies of management calls."""
    for body in (*list(FORMS.values())[:4], TENSORS["deep"], TENSORS["many keys"], MULTIPARTS["more parts"]):
        for path in ("/models", "/models/m", "/workflows", "/token?type=nothing", "/models/m/1.0/set-default"):
            send(server, method, path, body[:MOST], kind, role="management")


@pytest.mark.parametrize(
    "path",
    ["/invocations", "/models/m/invoke", "/m/predict", "/explanations/m", "/wfpredict/nothing", "/predictions/m/1.0"],
)
def test_other_predictions(server: Server, path: str) -> None:
    """The other routes that predict."""
    for kind, body in (
        (FORM, FORMS["percent signs"]),
        (FORM, FORMS["fields"]),
        (PARTS, MULTIPARTS["line ends"]),
        (JSON, TENSORS["deep"]),
    ):
        send(server, "POST", path, body[:MOST], kind)


def test_large_answer(server: Server) -> None:
    """An answer as long as there may be."""
    send(server, "POST", "/predictions/m", b"1", "X-Bytes: 6500000")
    send(server, "POST", "/predictions/m", b"1", "X-Bytes: 7000000")


def test_stream(server: Server) -> None:
    """A stream of many small chunks, for a client that reads and for one that does not."""
    send(server, "POST", "/predictions/m", b"1", "X-Chunks: 20000")
    with server.connect() as client:
        client.sendall(server.head("POST", "/predictions/m", "Content-Length: 1", "X-Chunks: 20000") + b"1")
        time.sleep(1)


def test_many_models(make_server: MakeServer) -> None:
    """Lists and metrics of many models, each with a worker that failed or none."""
    server = make_server(enable_model_api=True, metrics_mode="prometheus", default_workers_per_model=0)
    for i in range(150):
        server.add_model(f"m{i}", MODEL)
    server.start("--models", "all")
    since = len(server.log())
    for path in ("/models?limit=1000", "/v1/models", "/models/m1/all"):
        assert b"200 OK" in send(server, "GET", path, role="management")[:20]
    for path in ("/ping", "/readyz", "/predictions/m7"):
        send(server, "GET", path)
    for query in ("", "?name[]=ts_queue_depth", "?" + "name[]=a&" * 800):
        assert b"200 OK" in send(server, "GET", "/metrics" + query, role="metrics")[:20]
    check(server, since)


def test_rotation(server: Server) -> None:
    """Keys are replaced."""
    for _ in range(10):
        send(server, "POST", "/token?type=inference", role="management")
