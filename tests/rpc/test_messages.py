# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.rpc.messages`: real classes, in a pool of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError

import twisted_serve.rpc
from twisted_serve.rpc import messages
from twisted_serve.rpc.descriptors import POOL

if TYPE_CHECKING:
    from typing_extensions import assert_type

    # mypy fails here if the stubs tell other types, or none.
    assert_type(messages.PredictionsRequest().model_name, str)
    assert_type(messages.PredictionsRequest().input["data"], bytes)
    assert_type(messages.ModelInferRequest().inputs.add().shape[:], list[int])
    assert_type(messages.Status.FromString(b"").details[0], messages.Any)

RPC = Path(twisted_serve.rpc.__file__).parent


def test_round_trip() -> None:
    """A message survives its encoding."""
    request = messages.PredictionsRequest(model_name="m", input={"data": b"\0\xff"})
    again = messages.PredictionsRequest.FromString(request.SerializeToString())
    assert again == request
    assert again.input["data"] == b"\0\xff"
    assert not again.HasField("sequence_id")
    again.sequence_id = ""
    assert again.HasField("sequence_id")


def test_bytes_on_the_wire() -> None:
    """The encoding is that of TorchServe's messages."""
    request = messages.PredictionsRequest(model_name="m", model_version="1.0", input={"data": b"x"}, sequence_id="s")
    assert request.SerializeToString() == b'\n\x01m\x12\x031.0\x1a\t\n\x04data\x12\x01x"\x01s'


def test_status_with_details() -> None:
    """An error in a stream carries its details in an Any, which has the methods of that well-known type."""
    status = messages.Status(code=13, message="text", details=[messages.Any()])
    status.details[0].Pack(messages.ErrorInfo(reason="BadRequestException.()"))
    assert status.details[0].type_url == "type.googleapis.com/google.rpc.ErrorInfo"
    info = messages.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "BadRequestException.()"


def test_repository_requests() -> None:
    """KServe's clients and Triton's name a model in different fields; each is told from the other."""
    kserve = messages.RepositoryModelLoadRequest.FromString(b"\n\x05model")
    triton = messages.RepositoryModelLoadRequest.FromString(b"\x12\x05model")
    assert (kserve.model_name, kserve.repository_name) == ("", "model")
    assert (triton.model_name, triton.repository_name) == ("model", "")


def test_no_protobuf() -> None:
    """Bytes that are no message are refused."""
    with pytest.raises(DecodeError):
        messages.PredictionsRequest.FromString(b"\xff\xff\xff")


def test_enumeration() -> None:
    """The states of health have their numbers."""
    states = messages.HealthCheckResponse.ServingStatus.items()
    assert states == [("UNKNOWN", 0), ("SERVING", 1), ("NOT_SERVING", 2), ("SERVICE_UNKNOWN", 3)]
    assert messages.HealthCheckResponse.SERVING == 1


def test_nested() -> None:
    """A nested message is an attribute of the outer one, and the class of its fields."""
    request = messages.ModelInferRequest(inputs=[messages.ModelInferRequest.InferInputTensor(name="a", shape=[1, -1])])
    (tensor,) = messages.ModelInferRequest.FromString(request.SerializeToString()).inputs
    assert type(tensor) is messages.ModelInferRequest.InferInputTensor
    assert (tensor.name, list(tensor.shape)) == ("a", [1, -1])


IN_PYTHON = """
from google.protobuf.internal import api_implementation
assert api_implementation.Type() == "python"
from twisted_serve.rpc import messages
tensor = messages.ModelInferRequest.InferInputTensor(name="a", shape=[1, -1])
request = messages.ModelInferRequest(inputs=[tensor], parameters={"p": messages.InferParameter(int64_param=-1)})
assert messages.ModelInferRequest.FromString(request.SerializeToString()) == request
assert type(request.inputs[0]) is messages.ModelInferRequest.InferInputTensor
assert messages.HealthCheckResponse.NOT_SERVING == 2
print("in Python")
"""


def test_implementation_in_python() -> None:
    """The classes are the same with protobuf's implementation in Python, which machines have for which no other is."""
    environ = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    words = [sys.executable, "-c", IN_PYTHON]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("in Python\n", 0), done.stderr


def test_own_pool() -> None:
    """No name is added to protobuf's default pool."""
    assert POOL is not descriptor_pool.Default()
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("org.pytorch.serve.grpc.inference.PredictionsRequest")


PROGRAM = """
import sys
from pathlib import Path
from google.protobuf import any_pb2, descriptor_pool, empty_pb2, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet

def stubs():
    # What generated modules do when they are imported, with a message that is another one than ours.
    for file in FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes()).file:
        if not file.name.startswith("google/protobuf/"):
            for message in file.message_type:
                message.field.add(name="other", number=99, type=9, label=1)
            descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

if sys.argv[2] == "before":
    stubs()
from twisted_serve.rpc import messages
if sys.argv[2] == "after":
    stubs()
name = "org.pytorch.serve.grpc.inference.PredictionsRequest"
theirs = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
assert theirs is not messages.PredictionsRequest
sent = theirs(model_name="m", other="kept").SerializeToString()
assert messages.PredictionsRequest.FromString(sent).model_name == "m"
assert empty_pb2.Empty is not messages.Empty
print("both")
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_beside_an_application_with_stubs(order: str) -> None:
    """An application's stubs of files with the same names do not collide, whichever are imported first."""
    words = [sys.executable, "-c", PROGRAM, str(RPC / "descriptors.binpb"), order]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("both\n", 0), done.stderr
