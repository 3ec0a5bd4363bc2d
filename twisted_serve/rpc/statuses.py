# SPDX-License-Identifier: Apache-2.0
"""
Define the status of a call, and the status of each error (``docs/torchserve/grpc_workflows_kserve.md`` §1.6).
"""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from twisted_serve.errors import ServeError, ServiceUnavailable, TooManyRequests


class Code(IntEnum):
    """The status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@frozen
class Status:
    """
    The status with which a call ends.

    :ivar message: Text for the client, not yet encoded for a header.
    :ivar metadata: Trailing metadata, besides the status: lower-case names and values as they are sent.
    """

    code: Code
    message: str = ""
    metadata: tuple[tuple[bytes, bytes], ...] = ()


OK = Status(Code.OK)

# In bytes: clients take 8 KB of metadata, and the text of the error is one of them.
_LONGEST_REASON = 1000

_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F else 0x20 for byte in range(256))

# What TorchServe sends for an HTTP status (``docs/torchserve/grpc_workflows_kserve.md`` §1.6), apart from the ranges.
_OF_HTTP = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    416: Code.OUT_OF_RANGE,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


def code_of_http(status: int) -> Code:
    """
    Return the code of an error of a worker, which has an HTTP status.

    It is never `Code.OK`: TorchServe resets the stream if a handler raises an error with a status of success.
    """
    if status in _OF_HTTP:
        return _OF_HTTP[status]
    if 400 <= status < 500:
        return Code.FAILED_PRECONDITION
    return Code.INTERNAL if 500 <= status < 600 else Code.UNKNOWN


def status_of(error: ServeError) -> Status:
    """
    Return the status of an error: its code and text.

    Its metadata are ``retry-after``, in seconds, if the error names a time, and ``reason`` if the client may know it.
    """
    metadata = []
    if isinstance(error, (ServiceUnavailable, TooManyRequests)) and error.retry_after is not None:
        metadata.append((b"retry-after", b"%d" % error.retry_after))
    if error.reason:
        metadata.append((b"reason", _ascii(error.reason)))
    return Status(Code[error.grpc_status], error.message, tuple(metadata))


def _ascii(text: str) -> bytes:
    """Return the beginning of a text as a value of metadata: with escapes, and blanks for control characters."""
    return text.encode("ascii", "backslashreplace")[:_LONGEST_REASON].translate(_PRINTABLE).strip()
