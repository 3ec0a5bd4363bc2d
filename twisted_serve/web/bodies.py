# SPDX-License-Identifier: Apache-2.0
"""
This module implements the way from a request's body to a handler's inputs (``spec/rest_api.md`` §3).
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from multipart import MultipartError, MultipartSegment, PushMultipartParser
from twisted.web.iweb import IRequest

from twisted_serve.errors import BadRequest
from twisted_serve.web.line_ends import in_crlf
from twisted_serve.wire.messages import Part

# More parts than any form has.
MOST_PARTS = 1000

# One part's headers.
_LONGEST_PART_HEADER = 8192

# The parameters of a content type, one after the other, so that none is looked for within another's value.
_PARAMETER = re.compile(r';\s*([^\s;="]+)=(?:"([^"]*)"|([^\s;,"]*))', re.ASCII)

_LONGEST_BOUNDARY = 200

# What a part with a file name is, if it does not say (RFC 7578 §4.4 leaves it to us).
_FILE_TYPE = "application/octet-stream"


def body_of(request: IRequest) -> bytes:
    """Return the whole body of a request."""
    # Reading it would make a copy, for as long as the request waits for a worker.
    body: bytes = request.content.getvalue()
    return body


def media_type(content_type: str) -> str:
    """Return a content type without its parameters."""
    return content_type.partition(";")[0].strip()


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """
    Read a body as the inputs of a handler.

    :param content_type: The header's value, ``""`` if there was none.
    :raise BadRequest: for a form that cannot be read.
    """
    kind = media_type(content_type)
    if kind.lower() == "application/x-www-form-urlencoded":
        return _urlencoded(body)
    if kind.lower() == "multipart/form-data" and "boundary=" in content_type.lower():
        return _multipart(content_type, body)
    return [Part("body", kind, body)]


def _urlencoded(body: bytes) -> list[Part]:
    """
    Read ``name=value`` pairs; values keep their bytes exactly.

    As with the predecessor, text without any ``=`` or ``&`` is no form at all,
    and a last name without ``=`` does not count.
    """
    pairs = body.split(b"&")
    if b"=" not in pairs[-1]:
        pairs.pop()
    if len(pairs) > MOST_PARTS:
        raise BadRequest(f"The form has more than {MOST_PARTS} fields.")
    parts = []
    for pair in pairs:
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        if name:
            text = unquote_to_bytes(name).decode("utf-8", "replace")
            parts.append(Part(text, "", unquote_to_bytes(value), decode=False))
    return parts


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
    """Return whether a part has a file name as RFC 8187 writes it, which Netty reads, and the parser does not."""
    disposition = segment.header("Content-Disposition") or ""
    return any(name.lower() == "filename*" for name, _quoted, _plain in _PARAMETER.findall(disposition))
