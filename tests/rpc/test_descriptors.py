# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.rpc.descriptors`, the committed descriptors and stubs, and `docs.generators.protos`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

import twisted_serve.rpc
from docs.generators.protos import compiled, stubs
from twisted_serve.rpc import descriptors, messages, methods
from twisted_serve.rpc.contracts import Kind, kind_of

RPC = Path(twisted_serve.rpc.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs" / "torchserve" / "grpc_workflows_kserve.md"
TORCHSERVE = "org.pytorch.serve.grpc"

SERVICES = {
    f"{TORCHSERVE}.inference.InferenceAPIsService",
    f"{TORCHSERVE}.management.ManagementAPIsService",
    f"{TORCHSERVE}.openinference.GRPCInferenceService",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}

TYPES = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_FLOAT: "float",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_UINT32: "uint32",
    FieldDescriptorProto.TYPE_UINT64: "uint64",
}


def committed() -> FileDescriptorSet:
    """Return the descriptors in the package."""
    return FileDescriptorSet.FromString((RPC / "descriptors.binpb").read_bytes())


def comparable(described: FileDescriptorSet) -> dict[str, FileDescriptorProto]:
    """Return the files by name, without what compilers of other versions write differently."""
    files = {}
    for file in described.file:
        kept = FileDescriptorProto()
        kept.CopyFrom(file)
        kept.ClearField("source_code_info")
        if kept.name.startswith("google/protobuf/"):
            kept.ClearField("options")
        files[kept.name] = kept
    return files


def test_compiled() -> None:
    """The committed descriptors are those of the .proto files; if not: make protos."""
    pytest.importorskip("grpc_tools.protoc", reason="the compiler, grpcio-tools, is not installed")
    now = compiled()
    assert comparable(committed()) == comparable(now)
    assert [file.name for file in committed().file] == [file.name for file in now.file]


def test_stubs() -> None:
    """The committed stubs are those of the committed descriptors; if not: make protos."""
    assert (RPC / "messages.pyi").read_text("utf-8") == stubs(committed())


def test_stubs_name_the_classes() -> None:
    """Each class at run time is in the stubs with its fields, and no other."""
    tree = ast.parse((RPC / "messages.pyi").read_text("utf-8"))
    stubbed = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    present = {name: value for name, value in vars(messages).items() if isinstance(value, type(messages.Any))}
    assert stubbed.keys() == present.keys()
    for name, node in stubbed.items():
        fields = {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        fields |= {part.name for part in node.body if isinstance(part, ast.FunctionDef) and part.decorator_list}
        descriptor = present[name].DESCRIPTOR
        enums = {enum.name: [value.name for value in enum.values] for enum in descriptor.enum_types}
        constants = {name for values in enums.values() for name in values} | enums.keys()
        assert fields == set(descriptor.fields_by_name) | constants, name


def test_files_are_shipped() -> None:
    """Each file that is described is in the package or comes with protobuf, and has a package of names."""
    for file in committed().file:
        assert (RPC / "protos" / file.name).is_file() != file.name.startswith("google/protobuf/"), file.name
        assert file.package
        assert file.syntax == "proto3"


def test_services() -> None:
    """Each service is there by its full name, and the mapping cannot be changed."""
    services = descriptors.service_descriptors()
    assert services.keys() == SERVICES
    assert all(service.full_name == name for name, service in services.items())
    with pytest.raises(TypeError):
        services["x"] = services["grpc.health.v1.Health"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "kind", "request_name"),
    [
        (f"/{TORCHSERVE}.inference.InferenceAPIsService/Ping", Kind.UNARY, "google.protobuf.Empty"),
        (
            f"/{TORCHSERVE}.inference.InferenceAPIsService/StreamPredictions",
            Kind.SERVER_STREAMING,
            "PredictionsRequest",
        ),
        (f"/{TORCHSERVE}.inference.InferenceAPIsService/StreamPredictions2", Kind.BIDIRECTIONAL, "PredictionsRequest"),
        (f"/{TORCHSERVE}.openinference.GRPCInferenceService/ModelInfer", Kind.UNARY, "inference.ModelInferRequest"),
        ("/inference.GRPCInferenceService/ModelInfer", Kind.UNARY, "inference.ModelInferRequest"),
        ("/grpc.health.v1.Health/Watch", Kind.SERVER_STREAMING, "grpc.health.v1.HealthCheckRequest"),
    ],
)
def test_method(path: str, kind: Kind, request_name: str) -> None:
    """A path leads to a method, its kind and the class of its messages."""
    method = descriptors.method_of(path)
    assert f"/{method.containing_service.full_name}/{method.name}" == path
    assert kind_of(method) is kind
    assert method.input_type.full_name.endswith(request_name)
    request = descriptors.class_of(method.input_type)
    assert request is descriptors.class_of(method.input_type)
    assert request is getattr(messages, method.input_type.name)


def test_each_method_has_a_kind() -> None:
    """No method takes a stream and answers with one message."""
    services = descriptors.service_descriptors().values()
    kinds = {method.full_name: kind_of(method) for service in services for method in service.methods}
    assert len(kinds) == 31


class OnlyClientStreams:
    """A method such as none here."""

    full_name = "a.B.C"
    client_streaming, server_streaming = True, False


def test_no_kind() -> None:
    """A method that takes a stream and answers once has no kind."""
    with pytest.raises(ValueError, match=r"a\.B\.C takes a stream"):
        kind_of(OnlyClientStreams())  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/grpc.health.v1.Health/Nothing", "/Nothing/Check"])
def test_unknown_method(path: str) -> None:
    """An unknown service or method is a KeyError."""
    with pytest.raises(KeyError):
        descriptors.method_of(path)


def documented() -> dict[str, dict[str, tuple[int, str]]]:
    """Read the messages of the page about TorchServe's wire: name → field → number and type."""
    found: dict[str, dict[str, tuple[int, str]]] = {}
    text = PAGE.read_text("utf-8").partition("### 1.2")[2].partition("### 1.4")[0]
    name = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or cells[0] in {"Message", "---"}:
            continue
        if len(cells) == 4:  # | message | field | number | type |
            name = cells[0].strip("`") or name
            kind = re.sub(r" \(.*| —.*", "", cells[3]).replace("`", "")
            found.setdefault(name, {})[cells[1].strip("`")] = (int(cells[2]), kind)
            continue
        for name in re.findall(r"`([\w.]+)`", cells[0]):
            fields = re.findall(r"`(\w+)`=(\d+) ((?:repeated )?(?:`[^`]+`|\w+))", cells[1])
            rest = re.search(r"\(all repeated\)", cells[0])
            found[name] = {
                field: (int(number), ("repeated " if rest else "") + kind.replace("`", ""))
                for field, number, kind in fields
            }
    return found


def fields_of(message: DescriptorProto) -> dict[str, tuple[int, str]]:
    """Return the fields of a message as the page has them."""
    entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
    fields = {}
    for field in message.field:
        name = field.type_name.rpartition(".")[2]
        if name in entries:
            key, value = fields_of(entries[name]).values()
            kind = f"map<{key[1]}, {value[1]}>"
        else:
            # The page qualifies only names of other packages.
            qualified = field.type_name.lstrip(".") if field.type_name.startswith(".google.") else name
            kind = ("repeated " if field.label == field.LABEL_REPEATED else "") + (qualified or TYPES[field.type])
        fields[field.name] = (field.number, ("optional " if field.proto3_optional else "") + kind)
    return fields


def test_wire() -> None:
    """Names, numbers and types of fields are those of TorchServe, and those that Triton added to parameters."""
    messages_there: dict[str, DescriptorProto] = {}
    for file in committed().file:
        for message in file.message_type:
            messages_there[message.name] = message
            messages_there.update({f"{message.name}.{nested.name}": nested for nested in message.nested_type})
    pages = documented()
    assert len(pages) == 28
    for name, fields in pages.items():
        ours = fields_of(messages_there[name])
        if name == "InferParameter":
            assert ours.pop("double_param") == (4, "double")
            assert ours.pop("uint64_param") == (5, "uint64")
        assert ours == fields, name


def test_list_of_methods() -> None:
    """The list of methods has each service and each method that is described, and no other."""
    described = {
        name: {method.name for method in each.methods} for name, each in descriptors.service_descriptors().items()
    }
    assert {name: set(service.methods) for name, service in methods.SERVICES.items()} == described
