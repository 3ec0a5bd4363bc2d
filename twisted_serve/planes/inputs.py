# SPDX-License-Identifier: Apache-2.0
"""
Parse request bodies into the inputs of a handler (``docs/torchserve/rest_api.md`` §3).
"""

from __future__ import annotations

import re
from binascii import unhexlify

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from twisted_serve.errors import BadRequest
from twisted_serve.planes.multipart_lines import in_crlf
from twisted_serve.wire.messages import Part

# The most parts of a form; real forms have fewer.
MOST_PARTS = 1000

# In bytes. A larger form is parsed in a thread: the worst form of this size takes a few milliseconds.
MOST_AT_ONCE = 1 << 16

#: The content type of a form without files.
URLENCODED = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_FORMS = frozenset({URLENCODED, _MULTIPART})

_PLUS_AS_BLANK = bytes.maketrans(b"+", b" ")

# The bytes decoded per call.
_PIECE = 1 << 14

_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")

# A run of adjacent escapes.
_ESCAPES = re.compile(rb"(?:%[0-9A-Fa-f]{2})+")

# In bytes, for the headers of one part.
_LONGEST_PART_HEADER = 8192

# Matches the parameters of a content type one by one, so that no name is found inside another parameter's value.
_PARAMETER = re.compile(r';\s*([^\s;="]+)=(?:"([^"]*)"|([^\s;,"]*))', re.ASCII)

_LONGEST_BOUNDARY = 200

# The content type of a part with a file name but no content type (RFC 7578 §4.4 leaves it open).
_FILE_TYPE = "application/octet-stream"


def media_type(content_type: str) -> str:
    """Return a content type without its parameters."""
    return content_type.partition(";")[0].strip()


def is_form(content_type: str) -> bool:
    """Return whether a body with this content type is a form, with several inputs."""
    return media_type(content_type).lower() in _FORMS


def takes_long(content_type: str, body: bytes) -> bool:
    """Return whether a body is a form so large that `parts_of` must run in a thread."""
    return len(body) > MOST_AT_ONCE and is_form(content_type)


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """
    Parse a body into the inputs of a handler.

    :param content_type: The header's value, ``""`` if the header is absent.
    :raise BadRequest: for a malformed form.
    """
    kind = media_type(content_type)
    if kind.lower() == URLENCODED:
        return _urlencoded(body)
    if kind.lower() == _MULTIPART and "boundary=" in content_type.lower():
        return _multipart(content_type, body)
    return [Part("body", kind, body)]


def _urlencoded(body: bytes) -> list[Part]:
    """
    Parse ``name=value`` pairs; values keep their bytes exactly.

    As in TorchServe, text without ``=`` and ``&`` has no fields, and a last name without ``=`` is ignored.
    """
    counted = body.count(b"&") + (body.find(b"=", body.rfind(b"&") + 1) >= 0)
    if counted > MOST_PARTS:
        raise BadRequest(f"The form has more than {MOST_PARTS} fields.")
    parts = []
    for pair in body.split(b"&")[:counted]:
        name, _, value = pair.translate(_PLUS_AS_BLANK).partition(b"=")
        if name:
            parts.append(Part(_unescaped(name).decode("utf-8", "replace"), "", _unescaped(value), decode=False))
    return parts


def _unescaped(text: bytes) -> bytes:
    """Decode percent escapes and keep malformed ones; ``unquote_to_bytes`` takes seconds for megabytes of escapes."""
    if b"%" not in text:
        return text
    # In pieces: one call for megabytes would hold the GIL and block the reactor's thread.
    pieces, begin = [], 0
    while begin < len(text):
        end = begin + _PIECE
        # Do not split an escape.
        end -= next((back for back in (1, 2) if _ESCAPE.match(text, end - back)), 0)
        pieces.append(_ESCAPES.sub(_bytes_of, text[begin:end]))
        begin = end
    return b"".join(pieces)


def _bytes_of(escapes: re.Match[bytes]) -> bytes:
    return unhexlify(escapes[0].replace(b"%", b""))


def _multipart(content_type: str, body: bytes) -> list[Part]:
    boundary = _boundary_of(content_type)
    body = in_crlf(boundary.encode("utf-8"), body, MOST_PARTS)
    parser = PushMultipartParser(
        boundary,
        content_length=len(body),
        max_header_size=_LONGEST_PART_HEADER,
        max_segment_count=MOST_PARTS,
    )
    parts = []
    try:
        segment: MultipartSegment | None = None
        value = bytearray()
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                segment, value = event, bytearray()
            elif event is None:
                if segment is not None:
                    parts.append(_part_of(segment, bytes(value)))
                segment = None
            else:
                value += event
        parser.close()
    except MultipartError as e:
        raise BadRequest(f"The multipart body cannot be read: {e}.") from None
    return parts


def _boundary_of(content_type: str) -> str:
    for name, quoted, plain in _PARAMETER.findall(content_type):
        if name.lower() == "boundary" and 0 < len(quoted or plain) <= _LONGEST_BOUNDARY:
            return str(quoted or plain)
    raise BadRequest(f"The multipart boundary in the content type {content_type!r} cannot be used.")


def _part_of(segment: MultipartSegment, value: bytes) -> Part:
    if segment.filename is None and not _has_extended_name(segment):
        return Part(segment.name, "", value, decode=False)
    return Part(segment.name, segment.content_type or _FILE_TYPE, value)


def _has_extended_name(segment: MultipartSegment) -> bool:
    """Return whether a part has an RFC 8187 file name, which Netty supports and the parser does not."""
    disposition = segment.header("Content-Disposition") or ""
    return any(name.lower() == "filename*" for name, _quoted, _plain in _PARAMETER.findall(disposition))
