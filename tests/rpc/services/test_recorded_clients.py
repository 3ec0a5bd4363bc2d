# SPDX-License-Identifier: Apache-2.0
"""
Tests for the Open Inference Protocol with requests that Triton's and KServe's clients have sent.

The bytes are those of tritonclient 2.73 and kserve 0.21, but for the name of one output.
``tests/integration/test_grpc_clients.py`` runs both.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.rpc.services.open_inference_case import same
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.rpc.messages import (
    ModelInferResponse,
    ModelStreamInferResponse,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadResponse,
)
from twisted_serve.rpc.methods import KSERVE, OPEN_INFERENCE
from twisted_serve.rpc.statuses import Code
from twisted_serve.testing.server import MemoryServer

ECHO = "0a046563686f"

# The request in hexadecimal after the name of the model; the datatype and the data that the handler gets.
REQUESTS: dict[str, tuple[str, str, list[Any]]] = {
    "triton bool": ("2a0d0a01781204424f4f4c1a0202033a06010001000101", "BOOL", [True, False, True, False, True, True]),
    "triton int8": ("2a0d0a01781204494e54381a0202033a06010001000101", "INT8", [1, 0, 1, 0, 1, 1]),
    "triton uint64": (
        "2a0f0a0178120655494e5436341a0202033a30010000000000000000000000000000000100000000000000"
        "000000000000000001000000000000000100000000000000",
        "UINT64",
        [1, 0, 1, 0, 1, 1],
    ),
    "triton float16": ("2a0d0a01781204465031361a0202033a0c003c0000003c0000003c003c", "FP16", [1, 0, 1, 0, 1, 1]),
    "triton bfloat16": ("2a0d0a01781204424631361a0201023a04c03f00c0", "BF16", [1.5, -2]),
    "triton bytes": (
        "2a0e0a0178120542595445531a0201043a15010000006102000000c3a402000000ff0000000000",
        "BYTES",
        ["YQ==", "w6Q=", "/wA=", ""],
    ),
    "kserve bool": (
        "1a013922070a01621202100222080a016312031a017822070a0161120208012a170a01781204424f4f4c1a0202032a080a06010001000101",
        "BOOL",
        [True, False, True, False, True, True],
    ),
    "kserve int8": (
        "1a013922070a01621202100222080a016312031a017822070a0161120208012a170a01781204494e54381a0202032a081206010001000101",
        "INT8",
        [1, 0, 1, 0, 1, 1],
    ),
    "kserve uint64": (
        "1a013922070a01621202100222080a016312031a017822070a0161120208012a190a0178120655494e5436341a0202032a08"
        "2a06010001000101",
        "UINT64",
        [1, 0, 1, 0, 1, 1],
    ),
    "kserve float32": (
        "1a013922070a01621202100222080a016312031a017822070a0161120208012a290a01781204465033321a0202032a1a3218"
        "0000803f000000000000803f000000000000803f0000803f",
        "FP32",
        [1, 0, 1, 0, 1, 1],
    ),
    "kserve bytes": (
        "2a260a0178120542595445531a02010422160a1062696e6172795f646174615f73697a65120210153a15010000006102000000c3a4"
        "02000000ff0000000000",
        "BYTES",
        ["YQ==", "w6Q=", "/wA=", ""],
    ),
    "kserve float16": (
        "2a250a01781204465031361a02020322160a1062696e6172795f646174615f73697a651202100c32160a017812110a0b62696e6172795f64"
        "617461120208013a0c003c0000003c0000003c003c",
        "FP16",
        [1, 0, 1, 0, 1, 1],
    ),
}

TRITON_FULL = (
    "1a0137220f0a047465787412071a05776f72647322140a0e73657175656e63655f73746172741202080122120a0c73657175656e63655f656e64"
    "1202080022110a047265616c120921000000000000e03f220c0a066e756d62657212021003220b0a0574727574681202080122110a0b73657175"
    "656e63655f6964120210052a0d0a01781204465033321a02020332030a01783a180000803f000000000000803f000000000000803f0000803f"
)
TRITON_STREAM = (
    "22280a22747269746f6e5f656e61626c655f656d7074795f66696e616c5f726573706f6e7365120208012a0d0a01781204494e54381a0202033a"
    "06010001000101"
)
TRITON_SHARED = (
    "2a4d0a01781204465033321a0101221d0a177368617265645f6d656d6f72795f627974655f73697a651202100422200a147368617265645f6d65"
    "6d6f72795f726567696f6e12081a06726567696f6e"
)
TRITON_CLASSES = "2a0d0a01781204494e54381a02020332190a017812140a0e636c617373696669636174696f6e120210023a06010001000101"

TRITON_LOAD, KSERVE_LOAD = "12046563686f", "0a046563686f"
TRITON_LOAD_CONFIG = "12046563686f1a0e0a06636f6e66696712041a027b7d"
TRITON_UNLOAD = "12046563686f1a170a11756e6c6f61645f646570656e64656e747312020800"


class RecordedTests(SynchronousTestCase):
    """What the clients send, through a connection with keys."""

    def setUp(self) -> None:
        self.server = MemoryServer({"ts_open_inference_protocol": True}, respond=same, models={"echo": {}})
        self.addCleanup(self.server.close)
        self.connection = self.server.grpc()
        self.keys = {kind: self.server.key(kind) for kind in (TokenKind.INFERENCE, TokenKind.MANAGEMENT)}

    def call(self, method: str, message: str, kind: TokenKind = TokenKind.INFERENCE, service: str = KSERVE) -> Any:
        return self.connection.call(f"/{service}/{method}", bytes.fromhex(message), self.keys[kind])

    def infer(self, message: str, service: str = KSERVE) -> Any:
        call = self.call("ModelInfer", ECHO + message, service=service)
        self.assertEqual((call.code, call.text), (0, ""))
        [response] = call.parsed(ModelInferResponse)
        return response

    @property
    def body(self) -> Any:
        return json.loads(self.server.provider.batches[-1][0].parts[0].value)

    def test_requests(self) -> None:
        """Each is what the handler gets; the answer is of the same kind, under both names of the service."""
        for name, (message, datatype, data) in REQUESTS.items():
            for service in (KSERVE, OPEN_INFERENCE):
                response = self.infer(message, service)
                [given] = self.body["inputs"]
                self.assertEqual((given["datatype"], given["data"]), (datatype, data), name)
                self.assertNotIn("binary_data_size", given.get("parameters", {}))
                [output] = response.outputs
                self.assertEqual((output.datatype, [*output.shape]), (datatype, given["shape"]))
                sent = bytes.fromhex(message)
                raw = [*response.raw_output_contents]
                self.assertEqual(bool(raw), not output.HasField("contents"))
                # The data come back byte by byte, as what they are: the last field of the request, or the last but one.
                self.assertIn(raw[0] if raw else output.contents.SerializeToString(), sent, name)

    def test_all(self) -> None:
        """A request with everything that Triton's client can say."""
        response = self.infer(TRITON_FULL)
        self.assertEqual((response.id, [each.name for each in response.outputs]), ("7", ["x"]))
        self.assertEqual(
            self.body["parameters"],
            {
                "truth": True,
                "number": 3,
                "text": "words",
                "real": 0.5,
                "sequence_id": 5,
                "sequence_start": True,
                "sequence_end": False,
            },
        )
        self.assertEqual(self.body["outputs"], [{"name": "x"}])

    def test_stream(self) -> None:
        """A stream of Triton's client."""
        call = self.connection.begin(f"/{KSERVE}/ModelStreamInfer", self.keys[TokenKind.INFERENCE])
        call.send(bytes.fromhex(ECHO + TRITON_STREAM))
        [response] = call.parsed(ModelStreamInferResponse)
        self.assertEqual(response.infer_response.raw_output_contents[0], b"\x01\x00\x01\x00\x01\x01")
        self.assertTrue(response.infer_response.parameters["triton_final_response"].bool_param)
        call.half_close()
        self.assertEqual(call.code, 0)

    def test_unsupported(self) -> None:
        """Shared memory and classes, which only Triton has, are refused by their names."""
        for message, name in ((TRITON_SHARED, "shared_memory_region"), (TRITON_CLASSES, "classification")):
            call = self.call("ModelInfer", ECHO + message)
            self.assertEqual(call.code, Code.INVALID_ARGUMENT)
            self.assertIn(name, call.text)

    def test_repository(self) -> None:
        """Both clients load and unload, with the management key."""
        management = TokenKind.MANAGEMENT
        for load in (TRITON_LOAD, KSERVE_LOAD):
            self.assertEqual(self.call("RepositoryModelUnload", load).code, Code.PERMISSION_DENIED)
            call = self.call("RepositoryModelUnload", TRITON_UNLOAD, management)
            [unloaded] = call.parsed(RepositoryModelUnloadResponse)
            self.assertEqual((unloaded.model_name, unloaded.isUnloaded), ("echo", True))
            self.assertEqual(self.call("ModelReady", ECHO).code, Code.NOT_FOUND)
            self.assertEqual(self.call("RepositoryModelLoad", load).code, Code.PERMISSION_DENIED)
            [loaded] = self.call("RepositoryModelLoad", load, management).parsed(RepositoryModelLoadResponse)
            self.assertEqual((loaded.model_name, loaded.isLoaded), ("echo", True))
        call = self.call("RepositoryModelLoad", TRITON_LOAD_CONFIG, management)
        self.assertEqual((call.code, "'config'" in call.text), (Code.INVALID_ARGUMENT, True))

    def test_torchserves_errors(self) -> None:
        """Under TorchServe's name errors have TorchServe's two lines; an unknown model is not found all the same."""
        call = self.call("ModelInfer", "0a0161", service=OPEN_INFERENCE)
        name = "org.pytorch.serve.archive.model.ModelNotFoundException"
        self.assertEqual((call.code, call.text), (Code.NOT_FOUND, f"Model not found: a\n{name}"))
        call = self.call("ModelReady", "", service=OPEN_INFERENCE)
        self.assertEqual((call.code, call.text), (Code.INTERNAL, "Parameter name is required.\nBadRequestException.()"))
        call = self.call("ModelInfer", "0a0161")
        self.assertEqual((call.code, call.text), (Code.NOT_FOUND, "Model not found: a"))
