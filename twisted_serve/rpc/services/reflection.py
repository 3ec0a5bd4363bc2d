# SPDX-License-Identifier: Apache-2.0
"""
Serve gRPC's server reflection protocol, from which clients learn the services of a listener and their messages.

A listener describes only what it serves.  The descriptors are those in the package; none has extensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.descriptor import FileDescriptor
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_serve.rpc.contracts import Answer, ConversationCall
from twisted_serve.rpc.descriptors import POOL, service_descriptors
from twisted_serve.rpc.messages import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)
from twisted_serve.rpc.statuses import Code

#: Bytes of a request, which a response repeats: more than that of any name.
MOST_REQUEST = 4096

# The detail of errors in streams, which no file imports.
_DETAILS = "google/rpc/error_details.proto"


class Described:
    """
    What a listener shows of the descriptors.

    :ivar services: The full names of the services, sorted.
    :ivar files: The files of these services and those that they import, by name.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self.services = tuple(sorted(services))
        self.files: Mapping[str, FileDescriptor] = _with_imports(
            [POOL.FindFileByName(_DETAILS), *(service_descriptors()[name].file for name in self.services)]
        )

    def file_of(self, symbol: str) -> FileDescriptor:
        """
        Return the file that defines a symbol.

        :raise KeyError: No file does that the listener shows.
        """
        try:
            file = POOL.FindFileContainingSymbol(symbol)
        except KeyError:
            # Implementations of protobuf do not agree on whether a method is a symbol.
            service, _, method = symbol.rpartition(".")
            file = service_descriptors()[service].methods_by_name[method].containing_service.file
        return self.files[file.name]


@implementer(IPushProducer)
class Reflection:
    """
    One call: a response to each request, in their order.

    While the client does not read, no request is taken.
    """

    def __init__(self, described: Described, call: ConversationCall) -> None:
        self._described = described
        self._call = call
        self._sent: set[str] = set()
        call.registerProducer(self, True)

    def received(self, message: ServerReflectionRequest) -> None:
        """Answer a request, in band if it cannot be answered as wanted."""
        if message.ByteSize() > MOST_REQUEST:
            text = f"the request has {message.ByteSize()} bytes; at most {MOST_REQUEST} are allowed"
            self._call.send(ServerReflectionResponse(error_response=_error(Code.INVALID_ARGUMENT, text)))
            return
        try:
            response = self._answer(message)
        except KeyError:
            kind = str(message.WhichOneof("message_request"))
            text = f"{kind} is {' '.join(str(getattr(message, kind)).split())!r}, which is not served here"
            response = ServerReflectionResponse(error_response=_error(Code.NOT_FOUND, text))
        response.valid_host = message.host
        response.original_request.CopyFrom(message)
        self._call.send(response)

    def half_closed(self) -> None:
        """End the call: each request has been answered."""
        self._call.unregisterProducer()
        self._call.finish()

    def cancelled(self) -> None:
        """Do nothing: no work is left behind."""

    def pauseProducing(self) -> None:
        """Take no request."""
        self._call.pause_messages()

    def resumeProducing(self) -> None:
        """Take requests again."""
        self._call.resume_messages()

    def stopProducing(self) -> None:
        """Do nothing: the call is over."""

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        """
        Return the response, without what it repeats of the request.

        :raise KeyError: The listener does not show what the request names.
        """
        described, kind = self._described, request.WhichOneof("message_request")
        if kind == "list_services":
            services = [ServiceResponse(name=name) for name in described.services]
            return ServerReflectionResponse(list_services_response=ListServiceResponse(service=services))
        if kind == "file_by_filename":
            return self._file(described.files[request.file_by_filename])
        if kind == "file_containing_symbol":
            return self._file(described.file_of(request.file_containing_symbol))
        if kind == "all_extension_numbers_of_type":
            name = POOL.FindMessageTypeByName(request.all_extension_numbers_of_type).full_name
            described.file_of(name)
            numbers = ExtensionNumberResponse(base_type_name=name)
            return ServerReflectionResponse(all_extension_numbers_response=numbers)
        if kind == "file_containing_extension":
            raise KeyError(kind)
        text = "message_request is not set, or to what this server does not know"
        return ServerReflectionResponse(error_response=_error(Code.INVALID_ARGUMENT, text))

    def _file(self, file: FileDescriptor) -> ServerReflectionResponse:
        """Return a file, and after it those of its imports that have not been sent in this call."""
        imports = [name for name in _with_imports([file]) if name != file.name and name not in self._sent]
        names = [file.name, *imports]
        self._sent.update(names)
        files = [self._described.files[name].serialized_pb for name in names]
        return ServerReflectionResponse(file_descriptor_response=FileDescriptorResponse(file_descriptor_proto=files))


def reflection_endpoints(services: Iterable[str]) -> dict[str, Answer]:
    """
    Return the methods of both versions of the service.

    :param services: The full names of the services that the listener has.
    """
    described = Described(services)

    def converse(call: ConversationCall) -> Reflection:
        return Reflection(described, call)

    versions = ("v1", "v1alpha")
    return {f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": converse for version in versions}


def _with_imports(files: Iterable[FileDescriptor]) -> dict[str, FileDescriptor]:
    """Return files and all that they import, directly or not, by name."""
    found: dict[str, FileDescriptor] = {}
    for file in files:
        if file.name not in found:
            found[file.name] = file
            found |= _with_imports(file.dependencies)
    return found


def _error(code: Code, text: str) -> ErrorResponse:
    return ErrorResponse(error_code=code, error_message=text)
