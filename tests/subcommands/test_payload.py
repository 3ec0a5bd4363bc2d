# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.subcommands.payload`."""

from __future__ import annotations

import email
import os
from email.policy import HTTP
from pathlib import Path

import pytest

from twisted_serve.subcommands.payload import from_bytes, from_fields, from_file, guess

PNG = b"\x89PNG\r\n\x1a\n rest"


@pytest.mark.parametrize(
    ("name", "content", "kind", "because"),
    [
        ("a.json", b"not json", "application/json", "name"),
        ("a.TXT", b"", "text/plain", "name"),
        ("a.jpg", b"", "image/jpeg", "name"),
        ("a.wav", b"", "audio/wav", "name"),
        ("a.webp", b"", "image/webp", "name"),
        ("a", PNG, "image/png", "content"),
        (None, b"\xff\xd8\xff\xe0", "image/jpeg", "content"),
        (None, b"RIFF\0\0\0\0WAVEfmt", "audio/wav", "content"),
        (None, b"RIFF\0\0\0\0AVI fmt", "application/octet-stream", "content"),
        (None, b'{"a": 1}', "application/json", "content"),
        (None, b" [1, 2]\n", "application/json", "content"),
        (None, b"{not json", "text/plain", "content"),
        (None, b"[" * 5000, "application/json", "content"),
        (None, "wörter".encode(), "text/plain", "content"),
        (None, "wörter".encode()[:2], "text/plain", "content"),
        (None, b"a\0b", "application/octet-stream", "content"),
        (None, bytes(range(128, 256)), "application/octet-stream", "content"),
        ("a.unknown", b"text", "text/plain", "content"),
    ],
)
def test_guess(name: str | None, content: bytes, kind: str, because: str) -> None:
    """The name decides if it is known, else the content."""
    assert guess(content, name) == (kind, because)


def test_file(tmp_path: Path) -> None:
    """A file is sent from its beginning, with its length, and not read at once."""
    path = tmp_path / "x"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        payload = from_file(file, str(path))
        assert (payload.content_type, payload.length) == ("image/png", len(PNG))
        assert payload.body is file
        assert file.read() == PNG


def test_pipe() -> None:
    """A pipe has no length before it is read."""
    reading, writing = os.pipe()
    os.write(writing, b"{}")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        payload = from_file(file, "/dev/fd/63")
    assert (payload.content_type, payload.body, payload.length) == ("application/json", b"{}", 2)


def test_empty() -> None:
    """Nothing is text."""
    assert from_bytes(b"", None).content_type == "text/plain"


def test_fields() -> None:
    """Fields are a form as curl -d sends it."""
    payload = from_fields(["name=Ada Lovelace", "a=b=c&d", "e="])
    assert payload.content_type == "application/x-www-form-urlencoded"
    assert payload.body == b"name=Ada+Lovelace&a=b%3Dc%26d&e="
    assert payload.length == len(payload.body)


def test_files(tmp_path: Path) -> None:
    """A field with a file makes the form multipart; names cannot break out of their quotes."""
    path = tmp_path / 'a".png'
    path.write_bytes(PNG)
    payload = from_fields(['n"\r\nX: y=Ada', f"f=@{path}"])
    assert isinstance(payload.body, bytes)
    message = email.message_from_bytes(
        f"Content-Type: {payload.content_type}\r\n\r\n".encode() + payload.body, policy=HTTP
    )
    [first, second] = list(message.iter_parts())
    assert first["Content-Disposition"].params["name"] == "n%22%0D%0AX: y"
    assert first["X"] is None
    assert first.get_payload(decode=True) == b"Ada"
    assert second["Content-Disposition"].params == {"name": "f", "filename": "a%22.png"}
    assert second.get_content_type() == "image/png"
    assert second.get_payload(decode=True) == PNG


@pytest.mark.parametrize("field", ["", "name", "=value"])
def test_no_field(field: str) -> None:
    """A field has a name and a value."""
    with pytest.raises(ValueError, match="is no field: NAME=VALUE"):
        from_fields([field])
