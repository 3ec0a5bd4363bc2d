# SPDX-License-Identifier: Apache-2.0
"""
Compile the ``.proto`` files of ``twisted_serve/rpc/protos`` to a descriptor set, and render stubs of its messages.

After a change of one of these files, in the root of the repository::

    python -m docs.generators.protos

The stubs are made from the descriptors, so they do not depend on the version of the compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

_RPC = Path(__file__).resolve().parents[2] / "twisted_serve" / "rpc"

_HEAD = '''\
# SPDX-License-Identifier: Apache-2.0
"""Stubs of the messages, made by `make protos`: change the files in protos/."""

from collections.abc import Iterable, Mapping
from typing import Literal

from google.protobuf.internal.containers import (
    MessageMap,
    RepeatedCompositeFieldContainer,
    RepeatedScalarFieldContainer,
    ScalarMap,
)
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.internal.well_known_types import Any as WellKnownAny
from google.protobuf.message import Message
'''

_SCALARS = {
    FieldDescriptorProto.TYPE_DOUBLE: "float",
    FieldDescriptorProto.TYPE_FLOAT: "float",
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_STRING: "str",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
}

# A well-known type with methods in each language.
_BASES = {"Any": "Message, WellKnownAny"}


def compiled() -> FileDescriptorSet:
    """
    Return the descriptors of all files, each after those that it imports.

    :raise ImportError: grpcio-tools is not installed.
    :raise ValueError: The compiler refuses a file; its reasons are on standard error.
    """
    from grpc_tools import protoc  # noqa: PLC0415 - needed only to compile, not to render stubs

    protos = _RPC / "protos"
    well_known = Path(protoc.__file__).parent / "_proto"
    names = sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))
    with TemporaryDirectory() as place:
        out = Path(place) / "descriptors"
        words = ["protoc", f"-I{protos}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}", *names]
        if protoc.main(words) != 0:
            raise ValueError(f"the compiler refuses one of {', '.join(names)}")
        return FileDescriptorSet.FromString(out.read_bytes())


def stubs(described: FileDescriptorSet) -> str:
    """Return the text of ``messages.pyi``."""
    names: dict[str, str] = {}
    for file in described.file:
        for message in file.message_type:
            _add_names(names, message, f".{file.package}.", "")
    classes = ["\n".join(_class(message, names, "")) for file in described.file for message in file.message_type]
    return "\n\n".join([_HEAD.rstrip("\n"), *classes]) + "\n"


def _add_names(names: dict[str, str], message: DescriptorProto, package: str, outer: str) -> None:
    """Add the Python name of a message, and of those in it, by the full name that fields have."""
    names[f"{package}{outer}{message.name}"] = f"{outer}{message.name}"
    for nested in message.nested_type:
        _add_names(names, nested, package, f"{outer}{message.name}.")


def _class(message: DescriptorProto, names: dict[str, str], indent: str) -> Iterator[str]:
    """Render the class of a message."""
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    yield f"{indent}class {message.name}({_BASES.get(message.name, 'Message')}):"
    indent += "    "
    for nested in message.nested_type:
        if nested.name not in entries:
            yield from _class(nested, names, indent)
    for enum in message.enum_type:
        yield f"{indent}{enum.name}: EnumTypeWrapper"
        yield from (f"{indent}{value.name}: int" for value in enum.value)
    taken = []
    for field in message.field:
        kept, accepted = _types(field, entries, names)
        taken.append(f"{field.name}: {accepted} | None = ...")
        if field.label == field.LABEL_REPEATED or field.type == field.TYPE_MESSAGE:
            yield f"{indent}@property"
            yield f"{indent}def {field.name}(self) -> {kept}: ..."
        else:
            yield f"{indent}{field.name}: {kept}"
    yield f"{indent}def __init__({', '.join(['self', *['*'][: len(taken)], *taken])}) -> None: ..."
    yield from (f"{indent}{line}" for line in _presence(message))


def _presence(message: DescriptorProto) -> Iterator[str]:
    """Render the methods that take names of fields."""
    oneofs = {index: oneof.name for index, oneof in enumerate(message.oneof_decl)}
    for field in message.field:
        if field.proto3_optional:
            del oneofs[field.oneof_index]
    single = [field for field in message.field if field.label != field.LABEL_REPEATED]
    present = [f.name for f in single if f.type == f.TYPE_MESSAGE or f.HasField("oneof_index")]
    if present:
        yield f"def HasField(self, field_name: {_literal([*present, *oneofs.values()])}) -> bool: ..."
    if message.field:
        fields = [*(field.name for field in message.field), *oneofs.values()]
        yield f"def ClearField(self, field_name: {_literal(fields)}) -> None: ..."
    # More than one needs overloads, and no message has two.
    if len(oneofs) > 1:
        raise ValueError(f"{message.name} has {len(oneofs)} oneofs")
    for index, name in oneofs.items():
        choices = [f.name for f in message.field if f.HasField("oneof_index") and f.oneof_index == index]
        yield f"def WhichOneof(self, oneof_group: {_literal([name])}) -> {_literal(choices)} | None: ..."


def _types(field: FieldDescriptorProto, entries: dict[str, DescriptorProto], names: dict[str, str]) -> tuple[str, str]:
    """Return the type of a field, and the one that the constructor takes."""
    if field.type != field.TYPE_MESSAGE:
        scalar = _SCALARS.get(field.type, "int")
        if field.label == field.LABEL_REPEATED:
            return f"RepeatedScalarFieldContainer[{scalar}]", f"Iterable[{scalar}]"
        return scalar, scalar
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        (key, _), (value, _) = (_types(part, {}, names) for part in entry.field)
        container = "MessageMap" if entry.field[1].type == field.TYPE_MESSAGE else "ScalarMap"
        return f"{container}[{key}, {value}]", f"Mapping[{key}, {value}]"
    name = names[field.type_name]
    if field.label == field.LABEL_REPEATED:
        return f"RepeatedCompositeFieldContainer[{name}]", f"Iterable[{name}]"
    return name, name


def _literal(names: list[str]) -> str:
    """Render the type of these strings."""
    return "Literal[" + ", ".join(f'"{name}"' for name in names) + "]"


def main() -> None:
    """Write both files."""
    described = compiled()
    (_RPC / "descriptors.binpb").write_bytes(described.SerializeToString(deterministic=True))
    (_RPC / "messages.pyi").write_text(stubs(described), encoding="utf-8")


if __name__ == "__main__":
    main()
