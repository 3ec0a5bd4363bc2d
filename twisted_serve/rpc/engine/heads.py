# SPDX-License-Identifier: Apache-2.0
"""
Decode header blocks, and check what they say about a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import field, frozen
from hpack import Decoder
from hpack.exceptions import HPACKError

from twisted_serve.errors import BadRequest, CodingNotImplemented, RequestTooLarge, ServeError
from twisted_serve.planes.request_ids import client_id_of
from twisted_serve.rpc.frames import coding_of
from twisted_serve.rpc.metadata import seconds_of

# Header lists up to this many times the limit are decoded, so that they end their call only; larger ones end the
# connection, since decoding then stops in the middle.
_DECODED = 4

# Per field, as RFC 9113 §6.5.2 counts.
_OVERHEAD = 32

# The heads of a connection that are kept, and the size up to which one is.
_KEPT = 16
_KEPT_SIZE = 2048

# A name has none of these (RFC 9113 §8.2.1), apart from the colon that begins one of HTTP/2's.
_NOT_IN_NAME = re.compile(rb"[\x00-\x20A-Z:\x7f-\xff]")
_NOT_IN_VALUE = re.compile(rb"[\x00\r\n]")

# Fields about a connection, which HTTP/2 does not have (RFC 9113 §8.2.2).
_OF_CONNECTIONS = frozenset([b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"])

_NEEDED = frozenset([b":method", b":scheme", b":path"])
_PSEUDO = _NEEDED | {b":authority"}

# The client's fields about its encoding, which are no metadata.
_OF_TRANSPORT = frozenset([b"te", b"content-type", b"content-length"])

_CONTENT_TYPE = re.compile(rb"application/grpc(?:[+;].*)?", re.DOTALL)


class Malformed(Exception):
    """The fields are no request of HTTP/2 (RFC 9113 §8.1.1)."""


class Undecodable(Exception):
    """The block cannot be decoded, nor any later one of the connection."""


@frozen
class Head:
    """
    What the headers of a call say.

    :ivar metadata: In order, without the fields of HTTP/2.
    :ivar http_status: The HTTP status of what is no call of gRPC; 200 for calls.
    :ivar timeout: The seconds that the client waits.
    :ivar coding: The coding of compressed messages.
    :ivar flaw: The error that the call ends with, once it has been allowed.
    :ivar client_id: The client's request id.
    """

    path: bytes
    metadata: tuple[tuple[bytes, bytes], ...]
    authorization: tuple[bytes, ...] = ()
    http_status: int = 200
    timeout: float | None = None
    coding: bytes | None = None
    flaw: ServeError | None = field(default=None, eq=False)
    client_id: str | None = None


def head_of(fields: Iterable[tuple[bytes, bytes]], limit: int) -> Head:
    """
    Return the head of a call.

    :param limit: The size of the largest header list that is accepted.
    :raise Malformed: for fields that are no request of HTTP/2.
    """
    pseudo: dict[bytes, bytes] = {}
    metadata: list[tuple[bytes, bytes]] = []
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + _OVERHEAD
        if name[:1] == b":":
            if metadata or name in pseudo or name not in _PSEUDO:
                raise Malformed
            pseudo[name] = value
        else:
            if not name or name in _OF_CONNECTIONS or _NOT_IN_NAME.search(name):
                raise Malformed
            metadata.append((name, value))
        if _NOT_IN_VALUE.search(value):
            raise Malformed
    if not pseudo.keys() >= _NEEDED or not pseudo[b":path"]:
        raise Malformed
    return _checked(pseudo, metadata, size, limit)


def _checked(pseudo: dict[bytes, bytes], metadata: list[tuple[bytes, bytes]], size: int, limit: int) -> Head:
    first = dict(reversed(metadata))
    http_status = 200
    if pseudo[b":method"] != b"POST":
        http_status = 405
    elif not _CONTENT_TYPE.fullmatch(first.get(b"content-type", b"")):
        http_status = 415
    flaw: ServeError | None = None
    timeout = coding = None
    try:
        if size > limit:
            raise RequestTooLarge(f"The headers have {size} bytes, more than {limit} (max_header_size).")
        if b"grpc-timeout" in first:
            timeout = seconds_of(first[b"grpc-timeout"])
        if b"grpc-encoding" in first:
            coding = coding_of(first[b"grpc-encoding"])
    except (BadRequest, CodingNotImplemented, RequestTooLarge) as error:
        flaw = error
    return Head(
        path=pseudo[b":path"],
        metadata=tuple(pair for pair in metadata if pair[0] not in _OF_TRANSPORT) if size <= limit else (),
        authorization=tuple(value for name, value in metadata if name == b"authorization"),
        http_status=http_status,
        timeout=timeout,
        coding=coding,
        flaw=flaw,
        client_id=client_id_of([value for name, value in metadata if name == b"x-request-id"]),
    )


class HeadDecoder:
    """
    Decode the header blocks of a connection.

    Clients repeat themselves: from the second call on, their blocks are the same bytes.  A block that changed nothing
    in the table means the same again as long as the table is the same, so that its head is kept: to decode a key and a
    path, which clients send as literals, takes ten times as long as the rest of the session's work for a call.

    :ivar most: The most bytes of a block.
    :param limit: The size of the largest header list that is accepted.
    """

    __slots__ = ("_decoder", "_kept", "_limit", "most")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.most = limit * _DECODED
        self._decoder = Decoder(max_header_list_size=limit * _DECODED)
        self._kept: dict[bytes, Head] = {}

    def head(self, block: bytes) -> Head:
        """
        Return the head of a call.

        :raise Malformed: for fields that are no request of HTTP/2.
        :raise Undecodable: for a block that cannot be decoded.
        """
        kept = self._kept.get(block)
        if kept is not None:
            return kept
        fields, changed = self._decoded(block)
        head = head_of(fields, self._limit)
        if not changed and len(block) <= _KEPT_SIZE and _size(head) <= _KEPT_SIZE:
            if len(self._kept) == _KEPT:
                self._kept.clear()
            self._kept[block] = head
        return head

    def skip(self, block: bytes) -> None:
        """
        Decode a block whose fields do not matter, since it may change the table.

        :raise Undecodable: for a block that cannot be decoded.
        """
        self._decoded(block)

    def _decoded(self, block: bytes) -> tuple[Iterable[tuple[bytes, bytes]], bool]:
        """Return the fields, and whether the block has changed the table."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before, first = (table.maxsize, len(entries)), entries[0] if entries else None
        try:
            fields: Iterable[tuple[bytes, bytes]] = self._decoder.decode(block, raw=True)
        except (HPACKError, ValueError, IndexError) as e:
            raise Undecodable(str(e)) from e
        changed = before != (table.maxsize, len(entries)) or first is not (entries[0] if entries else None)
        if changed:
            self._kept.clear()
        return fields, changed


def _size(head: Head) -> int:
    return len(head.path) + sum(len(name) + len(value) for name, value in head.metadata)
