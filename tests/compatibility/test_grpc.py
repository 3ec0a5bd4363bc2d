# SPDX-License-Identifier: Apache-2.0
"""
Calls of TorchServe's two services, from the wire to the planes, beside what a TorchServe 0.12 has answered to each.

The answers of TorchServe are recorded. Where ours differ, they are better, and ``docs/compatibility.md`` says why.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import frozen

from twisted_serve.errors import WorkerFailed
from twisted_serve.rpc import messages as m
from twisted_serve.rpc.methods import INFERENCE, MANAGEMENT
from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.wire.messages import Item, Job

MODEL = "org.pytorch.serve.archive.model"
HTTP = "org.pytorch.serve.http"
NO_MODEL = f"Model not found: nope\n{MODEL}.ModelNotFoundException"
NO_VERSION = f"Model version: 9.9 does not exist for model: m\n{MODEL}.ModelVersionNotFoundException"
NO_WORKER = (
    'Model "{}" has no worker to serve inference request. Please use scale workers API to add workers. If this is a '
    "sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)

#: Code and text of a call; ``None`` for any JSON.
Answer = tuple[int, "str | None"]


@frozen
class Row:
    """
    A call.

    :ivar theirs: What TorchServe has answered: the code, and the text of the error or of the message.
    :ivar ours: ``None`` for the same.
    """

    method: str
    message: Any
    theirs: Answer
    ours: Answer | None = None


def predictions(model: str = "m", data: bytes = b"1", version: str = "") -> Any:
    return m.PredictionsRequest(model_name=model, model_version=version, input={"data": data})


def failed(model: str) -> Any:
    return predictions("fails", model.encode())


def register(**fields: Any) -> Any:
    return m.RegisterModelRequest(**fields)


def scale(**fields: Any) -> Any:
    return m.ScaleWorkerRequest(**{"model_name": "m", "synchronous": True, **fields})


def own_text(code: int) -> Answer:
    return code, f"own text\n{HTTP}.InternalServerException"


def describe(name: str, version: str = "", customized: bool = False) -> Any:
    return m.DescribeModelRequest(model_name=name, model_version=version, customized=customized)


def default(name: str, version: str) -> Any:
    return m.SetDefaultRequest(model_name=name, model_version=version)


def unregister(name: str, version: str = "") -> Any:
    return m.UnregisterModelRequest(model_name=name, model_version=version)


ROWS = [
    Row("Ping", m.Empty(), (0, '{\n  "status": "Healthy"\n}')),
    Row("Predictions", predictions(), (0, "1")),
    Row("Predictions", predictions(version="1.0"), (0, "1")),
    Row("Predictions", predictions(data=b""), (0, "")),
    Row("Predictions", predictions("nope"), (13, NO_MODEL)),
    Row("Predictions", predictions(version="9.9"), (13, NO_VERSION)),
    Row("Predictions", predictions(""), (13, "Parameter model_name is required.\nBadRequestException.()")),
    Row("Predictions", predictions("n\u00f6pe\n\u4e2d"), (13, NO_MODEL.replace("nope", "n\u00f6pe\n\u4e2d"))),
    Row("StreamPredictions", predictions("nope"), (13, NO_MODEL)),
    Row("StreamPredictions", predictions(), (13, f"Worker died.\n{HTTP}.InternalServerException"), (0, "1")),
    Row("Predictions", predictions("streams"), (0, "part0"), (0, "part0part1last")),
    Row("StreamPredictions", predictions("streams"), (0, "part0 part1 last")),
    Row("Predictions", failed("503"), (14, f"Prediction failed\n{HTTP}.InternalServerException")),
    Row("StreamPredictions", failed("503"), (14, f"Prediction failed\n{HTTP}.InternalServerException")),
    *(
        Row("Predictions", failed(str(status)), own_text(code))
        for status, code in {
            400: 3, 404: 5, 413: 8, 418: 9, 429: 8, 499: 1, 500: 13, 504: 4, 507: 13, 599: 13, 700: 2
        }.items()
    ),
    Row("Predictions", failed("299"), (1, "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))"),
        own_text(2)),
    Row("Predictions", predictions("none"), (13, NO_WORKER.format("none") + "\nInternalServerException.()"),
        (14, NO_WORKER.format("none") + ". It is scaled to zero workers.\nInternalServerException.()")),
    Row("RegisterModel", register(), (3, f"Parameter url is required.\n{HTTP}.BadRequestException")),
    Row("RegisterModel", register(url="n.mar"), (5, f"Model not found at: n.mar\n{MODEL}.ModelNotFoundException")),
    Row("RegisterModel", register(url="../x.mar"),
        (5, f"Relative path is not allowed in url: ../x.mar\n{MODEL}.ModelNotFoundException")),
    Row("RegisterModel", register(url="n", runtime="python4"),
        (3, f"Invalid RuntimeType value: python4\n{HTTP}.BadRequestException")),
    Row("RegisterModel", register(url="m"), (2, ""),
        (6, f"Model version 1.0 is already registered for model m\n{HTTP}.ConflictStatusException")),
    Row("RegisterModel", register(url="n", synchronous=True, initial_workers=1),
        (0, 'Model "n" Version: 1.0 registered with 1 initial workers')),
    Row("RegisterModel", register(url="n", model_name="a", initial_workers=1), (0, "Processing worker updates...")),
    Row("ScaleWorker", scale(), (0, "Workers scaled to 1 for model: m")),
    Row("ScaleWorker", scale(min_worker=2, number_gpu=3, timeout=-1), (0, "Workers scaled to 2 for model: m")),
    Row("ScaleWorker", scale(max_worker=1), (0, "Workers scaled to 1 for model: m")),
    Row("ScaleWorker", scale(model_version="1.0", min_worker=1), (0, "Workers scaled to 1 for model: m, version: 1.0")),
    Row("ScaleWorker", scale(min_worker=1, synchronous=False), (0, "Processing worker updates...")),
    Row("ScaleWorker", scale(min_worker=-1, max_worker=-1), (0, "Workers scaled to 1 for model: m")),
    Row("ScaleWorker", scale(min_worker=2, max_worker=1),
        (3, f"max_worker cannot be less than min_worker.\n{HTTP}.BadRequestException")),
    Row("ScaleWorker", scale(model_name="nope"), (5, NO_MODEL)),
    Row("ScaleWorker", scale(model_name=""), (2, ""), (5, NO_MODEL.replace("nope", ""))),
    Row("ScaleWorker", scale(model_version="9.9"), (5, NO_VERSION)),
    Row("DescribeModel", describe("m"), (0, None)),
    Row("DescribeModel", describe("m", "all"), (0, None)),
    Row("DescribeModel", describe("nope"), (5, NO_MODEL)),
    Row("DescribeModel", describe("nope", "all"), (5, NO_MODEL)),
    Row("DescribeModel", describe("m", "9.9"), (5, NO_VERSION)),
    Row("DescribeModel", describe(""), (5, NO_MODEL.replace("nope", ""))),
    Row("DescribeModel", describe("nope", customized=True), (13, NO_MODEL), (5, NO_MODEL)),
    Row("DescribeModel", describe("m", "9.9", customized=True), (13, NO_VERSION), (5, NO_VERSION)),
    Row("ListModels", m.ListModelsRequest(limit=1),
        (0, '{\n  "nextPageToken": "1",\n  "models": [\n    {\n      "modelName": "fails",\n'
            '      "modelUrl": "fails"\n    }\n  ]\n}')),
    Row("ListModels", m.ListModelsRequest(limit=5, next_page_token=100), (0, '{\n  "models": []\n}')),
    Row("ListModels", m.ListModelsRequest(), (0, '{\n  "nextPageToken": "0",\n  "models": []\n}'), (0, None)),
    Row("SetDefault", default("m", "1.0"), (0, 'Default version successfully updated for model "m" to "1.0"')),
    Row("SetDefault", default("m", "9"),
        (5, f"Model version 9 does not exist for model m\n{MODEL}.ModelVersionNotFoundException")),
    Row("SetDefault", default("m", ""),
        (5, f"Model version  does not exist for model m\n{MODEL}.ModelVersionNotFoundException")),
    Row("SetDefault", default("nope", "1"), (5, NO_MODEL)),
    Row("SetDefault", default("", ""), (5, NO_MODEL.replace("nope", ""))),
    Row("UnregisterModel", unregister("m"), (0, 'Model "m" unregistered')),
    Row("UnregisterModel", unregister("m", "9.9"), (5, NO_VERSION)),
    Row("UnregisterModel", unregister("nope"), (5, NO_MODEL)),
    Row("UnregisterModel", unregister(""), (3, f"Parameter url is required.\n{HTTP}.BadRequestException")),
    Row("UnregisterModel", unregister("two"), (2, ""),
        (9, f"Cannot remove default version for model two\n{HTTP}.InvalidModelVersionException")),
]  # fmt: skip


def respond(jobs: list[Job]) -> Any:
    """Answer as the handlers that TorchServe had: the input, or the error whose status the input is."""
    [job] = jobs
    value = job.parts[0].value if job.parts else b""
    if len(value) == 3:
        return WorkerFailed(int(value), "Prediction failed" if value == b"503" else "own text")
    return [Item(job.request_id, 200, "", {}, value)]


@pytest.fixture
def server() -> Any:
    manifest = json.dumps({"model": {"modelName": "two", "modelVersion": "2.0", "handler": "handler.py"}})
    files: Any = {"MAR-INF/MANIFEST.json": manifest}
    models: Any = {"m": {}, "fails": {}, "streams": {}, "two": {}, "none": {}}
    with MemoryServer({"disable_token_authorization": True}, respond=respond, models=models) as server:
        server.add_model("n", {})
        server.add_model("two2", files)
        for path in ("/models?url=two2", "/models/none?min_worker=0&synchronous=true"):
            assert server.request("POST" if "url" in path else "PUT", path).status == 200
        yield server


def answered(server: MemoryServer, row: Row) -> Answer:
    """Make a call, and return its code and text."""
    role = Role.INFERENCE if "Predictions" in row.method or row.method == "Ping" else Role.MANAGEMENT
    streams = "Predictions" in row.method and row.message.model_name == "streams"
    [worker] = [each for each in server.provider.workers if each.spec.load.model_name == "streams"]
    worker.holding = streams
    service = INFERENCE if role is Role.INFERENCE else MANAGEMENT
    connection = server.grpc(role)
    call = connection.call(f"/{service}/{row.method}", row.message)
    if streams:
        [[job]] = worker.running
        for part in (b"part0", b"part1"):
            worker.chunk(Item(job.request_id, 200, "", {}, part))
        worker.answer([Item(job.request_id, 200, "", {}, b"last")])
    server.advance(0)
    connection.pump()
    assert call.code is not None
    if call.code:
        assert call.messages == []
        return call.code, call.text
    if "Predictions" in row.method:
        parts = [each.prediction.decode() for each in call.parsed(m.PredictionResponse)]
        return 0, " ".join(parts)
    kind = m.TorchServeHealthResponse if row.method == "Ping" else m.ManagementResponse
    [answer] = call.parsed(kind)
    return 0, answer.health if row.method == "Ping" else answer.msg


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method}-{row.theirs[0]}")
def test_row(server: MemoryServer, row: Row) -> None:
    """A call has TorchServe's answer, or the one that is better on purpose."""
    code, text = row.ours or row.theirs
    got = answered(server, row)
    assert got[0] == code
    if text is not None:
        assert got[1] == text
    else:
        assert json.loads(got[1] or "")
    if row.ours is not None:
        assert row.ours != row.theirs
