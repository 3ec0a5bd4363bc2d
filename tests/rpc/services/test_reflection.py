# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.rpc.services.reflection`."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from tests.rpc.services.service_case import RecordingCall
from twisted_serve.rpc.descriptors import FILES, service_descriptors
from twisted_serve.rpc.messages import ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse
from twisted_serve.rpc.services.reflection import MOST_REQUEST, reflection_endpoints
from twisted_serve.rpc.statuses import OK, Code

INFERENCE = "org.pytorch.serve.grpc.inference"
SERVICES = [
    "inference.GRPCInferenceService",
    f"{INFERENCE}.InferenceAPIsService",
    "org.pytorch.serve.grpc.openinference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]


def ask(*requests: ServerReflectionRequest, version: str = "v1") -> list[ServerReflectionResponse]:
    """Return the responses of one call."""
    call = RecordingCall()
    endpoints: Any = reflection_endpoints(SERVICES)
    conversation = endpoints[f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"](call)
    for request in requests:
        conversation.received(request)
    conversation.half_closed()
    assert (call.end, call.producer) == (OK, None)
    return call.sent


def files(response: ServerReflectionResponse) -> list[FileDescriptorProto]:
    """Return the files in a response."""
    assert response.WhichOneof("message_response") == "file_descriptor_response"
    return [FileDescriptorProto.FromString(each) for each in response.file_descriptor_response.file_descriptor_proto]


def test_paths() -> None:
    """Both versions are methods that the descriptors have."""
    paths = {
        f"/{service.full_name}/{method.name}"
        for service in service_descriptors().values()
        for method in service.methods
        if service.full_name.startswith("grpc.reflection.")
    }
    assert reflection_endpoints(SERVICES).keys() == paths


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_services(version: str) -> None:
    """The services of the listener are listed, and no other."""
    request = ServerReflectionRequest(host="h", list_services="*")
    (response,) = ask(request, version=version)
    assert [service.name for service in response.list_services_response.service] == sorted(SERVICES)
    assert response.valid_host == "h"
    assert response.original_request == request


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        (f"{INFERENCE}.InferenceAPIsService", "inference.proto"),
        (f"{INFERENCE}.InferenceAPIsService.Predictions", "inference.proto"),
        (f"{INFERENCE}.PredictionsRequest", "inference.proto"),
        (f"{INFERENCE}.PredictionsRequest.model_name", "inference.proto"),
        ("inference.ModelInferRequest.InferInputTensor", "grpc_predict_v2.proto"),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"),
        ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
        ("google.protobuf.Empty", "google/protobuf/empty.proto"),
    ],
)
def test_symbol(symbol: str, file: str) -> None:
    """A service, method, message or field leads to its file."""
    (response,) = ask(ServerReflectionRequest(file_containing_symbol=symbol))
    assert files(response)[0].name == file


@pytest.mark.parametrize("name", SERVICES)
def test_client_can_build_each_service(name: str) -> None:
    """What one response has is enough for a client's pool, under each of two names, too."""
    pool = DescriptorPool()
    (response,) = ask(ServerReflectionRequest(file_containing_symbol=name))
    for file in reversed(files(response)):
        pool.Add(file)
    service = pool.FindServiceByName(name)
    assert [method.name for method in service.methods] == [m.name for m in service_descriptors()[name].methods]
    assert all(method.input_type.fields is not None for method in service.methods)


def test_imports_once() -> None:
    """A file comes with what it imports; a later response of the call leaves out what was sent, but not the file."""
    request = ServerReflectionRequest(file_by_filename="inference.proto")
    first, second = ask(request, request)
    imported = {"google/protobuf/empty.proto", "google/rpc/status.proto", "google/protobuf/any.proto"}
    assert {file.name for file in files(first)[1:]} == imported
    assert [file.name for file in files(second)] == ["inference.proto"]


def test_whole_file() -> None:
    """A file is sent as it was compiled."""
    for file in FILES:
        if file.name == "management.proto":
            continue
        (response,) = ask(ServerReflectionRequest(file_by_filename=file.name))
        assert response.file_descriptor_response.file_descriptor_proto[0] == file.serialized_pb


def test_extensions() -> None:
    """No message has extensions."""
    name = "inference.ModelInferRequest"
    numbers, extension = ask(
        ServerReflectionRequest(all_extension_numbers_of_type=name),
        ServerReflectionRequest(file_containing_extension=ExtensionRequest(containing_type=name, extension_number=3)),
    )
    assert numbers.HasField("all_extension_numbers_response")
    assert numbers.all_extension_numbers_response.base_type_name == name
    assert not numbers.all_extension_numbers_response.extension_number
    assert extension.error_response.error_code == Code.NOT_FOUND
    assert "inference.ModelInferRequest" in extension.error_response.error_message


@pytest.mark.parametrize(
    "request_",
    [
        ServerReflectionRequest(file_by_filename="nothing.proto"),
        ServerReflectionRequest(file_by_filename="management.proto"),
        ServerReflectionRequest(file_by_filename="/etc/passwd"),
        ServerReflectionRequest(file_by_filename=""),
        ServerReflectionRequest(file_containing_symbol="no.such"),
        ServerReflectionRequest(file_containing_symbol=""),
        ServerReflectionRequest(file_containing_symbol=f"{INFERENCE}.InferenceAPIsService.Nothing"),
        ServerReflectionRequest(file_containing_symbol="org.pytorch.serve.grpc.management.ManagementAPIsService"),
        ServerReflectionRequest(
            file_containing_symbol="org.pytorch.serve.grpc.management.ManagementAPIsService.ListModels"
        ),
        ServerReflectionRequest(all_extension_numbers_of_type="org.pytorch.serve.grpc.management.ListModelsRequest"),
        ServerReflectionRequest(all_extension_numbers_of_type="inference.GRPCInferenceService"),
    ],
    ids=lambda request: str(request).strip()[:70],
)
def test_not_served(request_: ServerReflectionRequest) -> None:
    """What the listener does not serve is an error in band, and the call goes on."""
    error, after = ask(request_, ServerReflectionRequest(list_services=""))
    assert error.error_response.error_code == Code.NOT_FOUND
    assert "is not served here" in error.error_response.error_message
    assert error.original_request == request_
    assert after.HasField("list_services_response")


def test_nothing_asked() -> None:
    """A request that asks for nothing is an error in band."""
    (response,) = ask(ServerReflectionRequest(host="h"))
    assert response.error_response.error_code == Code.INVALID_ARGUMENT


def test_large_request() -> None:
    """A request larger than any is refused in band, and not repeated."""
    responses = ask(
        ServerReflectionRequest(file_containing_symbol="x" * MOST_REQUEST),
        ServerReflectionRequest(list_services="*", host="h" * MOST_REQUEST),
    )
    for response in responses:
        assert response.error_response.error_code == Code.INVALID_ARGUMENT
        assert response.ByteSize() < 200


def test_slow_client() -> None:
    """While the client does not read, no request of the client is taken."""
    call = RecordingCall()
    endpoints: Any = reflection_endpoints(SERVICES)
    conversation = endpoints["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"](call)
    paused = []
    for change in (call.reading.pauseProducing, call.reading.resumeProducing):
        change()
        paused.append(call.paused)
    assert paused == [True, False]
    call.reading.stopProducing()
    conversation.cancelled()
    assert (call.end, call.sent) == (None, [])
