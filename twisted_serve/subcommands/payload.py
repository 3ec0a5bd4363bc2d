# SPDX-License-Identifier: Apache-2.0
"""
Make the body of a prediction, and guess its content type.
"""

from __future__ import annotations

import io
import json
import mimetypes
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlencode

from attrs import frozen

# Of a file, to guess from, in bytes.
_HEAD = 4096

# A JSON text that is larger is guessed from its first character.
_MAX_JSON = 1 << 20

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)

# Python knows no type for these, or another on each machine.
_NAMES = {".json": "application/json", ".txt": "text/plain", ".wav": "audio/wav", ".webp": "image/webp"}

_UNKNOWN = "application/octet-stream"


@frozen
class Payload:
    """
    The body of a request.

    :ivar content_type: The guessed type; ``None`` for an empty body.
    :ivar because: What the type was guessed from.
    :ivar length: In bytes.
    """

    content_type: str | None
    because: str
    body: bytes | IO[bytes]
    length: int


def from_bytes(content: bytes, name: str | None) -> Payload:
    """Return content as a payload; ``name`` is its file's, if it has one."""
    return Payload(*guess(content, name), content, len(content))


def from_file(file: IO[bytes], name: str) -> Payload:
    """Return an open file as a payload, which is not read at once if it is a regular file."""
    if not file.seekable():
        return from_bytes(file.read(), name)
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    kind, because = guess(file.read(_MAX_JSON if length <= _MAX_JSON else _HEAD), name)
    file.seek(0)
    return Payload(kind, because, file, length)


def from_fields(fields: Sequence[str]) -> Payload:
    """
    Return fields as a form: URL-encoded, or ``multipart/form-data`` if one is a file.

    :param fields: ``NAME=VALUE``, or ``NAME=@FILE``.
    :raise ValueError: for a field without a name.
    :raise OSError: for a file that cannot be read.
    """
    pairs = []
    for field in fields:
        name, equals, value = field.partition("=")
        if not equals or not name:
            raise ValueError(f"{field!r} is no field: NAME=VALUE or NAME=@FILE")
        pairs.append((name, value))
    if not any(value.startswith("@") for _name, value in pairs):
        body = urlencode(pairs).encode()
        return Payload("application/x-www-form-urlencoded", "form", body, len(body))
    boundary = secrets.token_hex(16)
    out = io.BytesIO()
    for name, value in pairs:
        disposition, content = f'form-data; name="{_quoted(name)}"', value.encode()
        if value.startswith("@"):
            path = Path(value[1:])
            content = path.read_bytes()
            kind, _because = guess(content, path.name)
            disposition += f'; filename="{_quoted(path.name)}"\r\nContent-Type: {kind}'
        out.write(f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n")
    out.write(f"--{boundary}--\r\n".encode())
    return Payload(f"multipart/form-data; boundary={boundary}", "form", out.getvalue(), out.tell())


def guess(head: bytes, name: str | None) -> tuple[str, str]:
    """Return the content type of content that begins with ``head``, and what it was guessed from."""
    if name is not None:
        known = _NAMES.get(Path(name).suffix.lower()) or mimetypes.guess_type(name, strict=False)[0]
        if known is not None:
            return known, "name"
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind, "content"
    if head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"WEBP"):
        return ("audio/wav" if head[8:12] == b"WAVE" else "image/webp"), "content"
    # A character may be cut at the end of the head.
    text = head.decode(errors="ignore")
    if len(head) - len(text.encode()) > 3 or "\0" in text:
        return _UNKNOWN, "content"
    if text.lstrip()[:1] in ("{", "["):
        try:
            json.loads(head)
        except (ValueError, RecursionError):
            complete = len(head) < _HEAD
            return ("text/plain" if complete else "application/json"), "content"
        return "application/json", "content"
    return "text/plain", "content"


def _quoted(name: str) -> str:
    """Return a name for a quoted parameter, as browsers write it."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
