# SPDX-License-Identifier: Apache-2.0
"""
Call a server with Triton's client or with KServe's, and print what it finds.

The tests run it with the version of protobuf that they need; both in one process collide in protobuf's default pool.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import grpc
import ml_dtypes
import numpy as np
from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # type: ignore[import-not-found]

SECONDS = 30

# KServe's package imports all that its servers need; its client and messages use nothing of these.
UNUSED = ("cloudevents", "cloudevents.conversion", "cloudevents.http", "httpx", "orjson", "pandas")

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)


class Unused(ModuleType):
    """A module with classes of any name."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def imported_triton() -> Any:
    """Import Triton's client."""
    import tritonclient.grpc  # type: ignore[import-not-found]

    return tritonclient.grpc


def imported_kserve() -> Any:
    """Import KServe's client alone."""
    spec = find_spec("kserve")
    assert spec is not None
    package = sys.modules["kserve"] = ModuleType("kserve")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules.update({name: Unused(name) for name in UNUSED})
    import kserve.inference_client  # type: ignore[import-not-found]
    import kserve.protocol.grpc.grpc_predict_v2_pb2_grpc  # type: ignore[import-not-found]

    return kserve


def arrays() -> dict[str, Any]:
    """Return an array of each type."""
    found = {name: np.array([[1, 0, 1], [0, 1, 1]]).astype(name) for name in DTYPES}
    found["bfloat16"] = np.array([[1.5, -2.0]], dtype=ml_dtypes.bfloat16)
    found["bytes"] = np.array([[b"a", "ä".encode(), b"\xff\x00", b""]], dtype=object)
    return found


def tensor(array: Any) -> Any:
    """Return Triton's tensor."""
    made = imported_triton().InferInput("x", list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def status_of(call: Any) -> list[str]:
    """Return the status and text of a call that fails."""
    try:
        call()
    except InferenceServerException as e:
        return [str(e.status()), str(e.message())]
    return ["OK", ""]


def called_triton(address: str, key: str, management: str) -> dict[str, Any]:
    """Call with Triton's client."""
    triton = imported_triton()
    client = triton.InferenceServerClient(address)
    headers = {"authorization": f"Bearer {key}"}
    own = {"headers": headers, "client_timeout": SECONDS}
    managing = {"headers": {"authorization": f"Bearer {management}"}, "client_timeout": SECONDS}
    found: dict[str, Any] = {
        "live": client.is_server_live(**own),
        "ready": client.is_server_ready(**own),
        "model": client.is_model_ready("echo", **own),
        "server": client.get_server_metadata(**own).name,
        "versions": [*client.get_model_metadata("echo", **own).versions],
        "key": status_of(lambda: client.is_server_live(headers={"authorization": "Bearer wrong"})),
    }
    wrong = []
    for name, array in arrays().items():
        for compression in (None, "gzip", "deflate"):
            result = client.infer(
                "echo",
                [tensor(array)],
                request_id="7",
                outputs=[triton.InferRequestedOutput("out_x")],
                parameters={"truth": True, "number": 3, "text": "words"},
                compression_algorithm=compression,
                **own,
            )
            back = result.as_numpy("out_x")
            given = {
                key: getattr(each, each.WhichOneof("parameter_choice"))
                for key, each in result.get_response().parameters.items()
            }
            if not (back.dtype == array.dtype and back.shape == array.shape and (back == array).all()):
                wrong.append(name)
            if given != {"truth": True, "number": 3, "text": "words"} or result.get_response().id != "7":
                wrong.append(f"{name}: {given}")
    found["wrong"] = wrong
    large = np.random.default_rng(1).random((3, 224, 224), dtype=np.float32)
    found["large"] = bool((client.infer("echo", [tensor(large)], **own).as_numpy("out_x") == large).all())
    small = tensor(np.zeros(2, np.float32))
    found["absent"] = status_of(lambda: client.infer("absent", [small], **own))
    found["fails"] = status_of(lambda: client.infer("fails", [small], **own))
    found["deadline"] = status_of(lambda: client.infer("slow", [small], headers=headers, client_timeout=0.3))[:1]

    answers: queue.Queue[Any] = queue.Queue()

    def keep(result: Any, error: Any) -> None:
        answers.put((result, error))

    for number in range(8):
        client.async_infer("echo", [small], keep, request_id=str(number), **own)
    found["async"] = sorted(answers.get(timeout=SECONDS)[0].get_response().id for _ in range(8))

    client.start_stream(keep, headers=headers)
    prompt = tensor(np.array([b"to be or not"], dtype=object))
    client.async_stream_infer("words", [prompt], request_id="1", enable_empty_final_response=True)
    client.async_stream_infer("absent", [prompt], request_id="2")
    stream: list[Any] = []
    while not any(each[2] for each in stream) or not any(each[0] == "error" for each in stream):
        result, error = answers.get(timeout=SECONDS)
        if error is not None:
            stream.append(["error", error.message(), False])
            continue
        response, text = result.get_response(), result.as_numpy("text")
        final = response.parameters["triton_final_response"].bool_param
        stream.append([response.id, "" if text is None else text[0].decode(), final])
    client.stop_stream()
    found["stream"] = sorted(stream[i : i + 1] for i in range(len(stream)) if stream[i][0] == "error")
    found["words"] = [each for each in stream if each[0] == "1"]
    # Abandoned in its midst: the only worker is free again.
    client.start_stream(keep, headers=headers)
    client.async_stream_infer("words", [tensor(np.array([b"word " * 1000], dtype=object))])
    answers.get(timeout=SECONDS)
    client.stop_stream(cancel_requests=True)
    client.start_stream(keep, headers=headers)
    client.async_stream_infer("words", [tensor(np.array([b"after"], dtype=object))], request_id="after")
    while True:
        result, _error = answers.get(timeout=SECONDS)
        if result is not None and result.get_response().id == "after":
            break
    client.stop_stream()
    found["after"] = result.as_numpy("text")[0].decode()

    found["refused"] = status_of(lambda: client.load_model("spare", **own))[:1]
    client.load_model("spare", **managing)
    found["index"] = [[each.name, each.state] for each in client.get_model_repository_index(**managing).models]
    client.unload_model("spare", **managing)
    found["unloaded"] = status_of(lambda: client.is_model_ready("spare", **own))[:1]
    client.close()
    return found


async def called_kserve(address: str, key: str, management: str) -> dict[str, Any]:
    """Call with KServe's client, and with its stubs where the client has no method."""
    kserve = imported_kserve()
    infer_type, messages = kserve.protocol.infer_type, kserve.protocol.grpc.grpc_predict_v2_pb2
    headers = [("authorization", f"Bearer {key}")]
    found: dict[str, Any] = {}
    async with kserve.inference_client.InferenceGRPCClient(address, timeout=SECONDS) as client:
        found["live"] = await client.is_server_live(headers=headers)
        found["ready"] = await client.is_server_ready(headers=headers)
        found["model"] = await client.is_model_ready("echo", headers=headers)
        wrong = []
        for name, array in arrays().items():
            if name == "bfloat16":
                continue
            datatype = np_to_triton_dtype(array.dtype)
            for raw in (True, False):
                if name == "float16" and not raw:
                    continue
                made = infer_type.InferInput("x", list(array.shape), datatype, data=array.flatten().tolist())
                if raw:
                    made.set_data_from_numpy(array, binary_data=True)
                request = infer_type.InferRequest(model_name="echo", infer_inputs=[made], request_id="9")
                response = await client.infer(request, headers=headers)
                back = response.outputs[0].as_numpy()
                if not ((back == array).all() and response.id == "9"):
                    wrong.append([name, raw])
        found["wrong"] = wrong
        try:
            await client.infer(infer_type.InferRequest(model_name="fails", infer_inputs=[made]), headers=headers)
        except grpc.RpcError as e:
            found["fails"] = [str(e.code()), e.details()]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = kserve.protocol.grpc.grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel)
        managing = {"metadata": [("authorization", f"Bearer {management}")], "timeout": SECONDS}
        load = await stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="spare"), **managing)
        unload = await stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="spare"), **managing)
        found["loaded"] = [load.model_name, load.isLoaded, unload.model_name, unload.isUnloaded]
        # TorchServe's name of the service has the same messages.
        torchserve = channel.unary_unary(
            "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        one = messages.ModelInferRequest.InferInputTensor(name="x", datatype="INT64", shape=[2])
        one.contents.int64_contents.extend([1, -2])
        asked = messages.ModelInferRequest(model_name="echo", inputs=[one])
        answer = await torchserve(asked, metadata=headers, timeout=SECONDS)
        found["torchserve"] = [*answer.outputs[0].contents.int64_contents]
    return found


def main() -> None:
    """Call, and print."""
    plan = json.loads(sys.argv[1])
    where = plan["address"], plan["key"], plan["management"]
    print(json.dumps(called_triton(*where) if plan["client"] == "triton" else asyncio.run(called_kserve(*where))))


if __name__ == "__main__":
    main()
