# SPDX-License-Identifier: Apache-2.0
"""
Load the descriptors of all services and messages, which ``make protos`` compiles from ``protos/``.

The pool is not protobuf's default one: an application that has stubs of the same services can be in the same process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message


def _load() -> tuple[DescriptorPool, tuple[FileDescriptor, ...]]:
    """Return a pool with the committed descriptors, and its files."""
    pool = DescriptorPool()
    described = Path(__file__).with_name("descriptors.binpb").read_bytes()
    return pool, tuple(pool.AddSerializedFile(file) for file in _files(described))


def _files(described: bytes) -> Iterator[bytes]:
    """
    Yield the files of a ``FileDescriptorSet``, which has no other field than the repeated one with number 1.

    Its class would do this, too, but takes 0.7 MB of the server's memory.
    """
    at = 0
    while at < len(described):
        size = shift = 0
        while True:
            at += 1
            size |= (described[at] & 127) << shift
            shift += 7
            if described[at] < 128:
                break
        at += 1
        yield described[at : at + size]
        at += size


#: All files, each after those that it imports.
POOL, FILES = _load()


@cache
def service_descriptors() -> Mapping[str, ServiceDescriptor]:
    """Return each service by its full name."""
    services = (service for file in FILES for service in file.services_by_name.values())
    return MappingProxyType({service.full_name: service for service in services})


def method_of(path: str) -> MethodDescriptor:
    """
    Return the method with a path, ``/package.Service/Method``.

    :raise KeyError: No service has such a method.
    """
    _, service, name = path.split("/")
    return service_descriptors()[service].methods_by_name[name]


def class_of(descriptor: Descriptor) -> type[Message]:
    """Return the class of a message, the same one at each call, with those of nested messages as its attributes."""
    made = GetMessageClass(descriptor)
    for nested in descriptor.nested_types:
        # Only protobuf's implementation in C has them already.
        if not hasattr(made, nested.name):
            setattr(made, nested.name, class_of(nested))
    return made
