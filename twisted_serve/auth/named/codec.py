# SPDX-License-Identifier: Apache-2.0
"""
Read and write the format of the file of named keys.

It is JSON, with one line for each key.  The line of a key that has not changed is neither parsed nor rendered again:
so a change of one key among thousands costs little, and a key that another server has not changed stays the same
object.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from attrs import field, frozen
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.named.records import Former, NamedKey
from twisted_serve.auth.named.scopes import KeyScopes

__all__ = ["FORMAT", "Content", "parse", "render"]

#: The number of the format; a reader refuses a greater one, which a newer version has written.
FORMAT: Final = 1

# In characters; what is quoted from a file that is not ours may be of any length.
_LONGEST_QUOTE: Final = 300

_Moment = Annotated[datetime, Meta(tz=True)]


class _Former(Struct, forbid_unknown_fields=True):
    sha256: str
    until: _Moment


class _Key(Struct, forbid_unknown_fields=True):
    name: str
    id: str
    sha256: str
    scopes: tuple[str, ...]
    created: _Moment
    expires: _Moment | None = None
    disabled: bool = False
    rate: int | None = None
    concurrent: int | None = None
    former: _Former | UnsetType = UNSET


class _Named(Struct):
    name: str


@frozen
class Content:
    """
    What a file holds.

    :ivar lines: The line of each key, in the same order.
    """

    records: KeyRecords = field(factory=KeyRecords)
    lines: Sequence[bytes] = field(default=(), repr=False)


# Also of texts that are no UTF-8, and of arrays in arrays in arrays.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_members = msgspec.json.Decoder(dict[str, Raw])
_number = msgspec.json.Decoder(int)
_lines = msgspec.json.Decoder(list[Raw])
_key = msgspec.json.Decoder(_Key)
_named = msgspec.json.Decoder(_Named)
_encoder = msgspec.json.Encoder()

# Many keys have the same scopes.
_scopes = lru_cache(256)(KeyScopes)


def parse(data: bytes, known: Content) -> Content:
    """
    Parse a file.

    :param known: What the file held before; the keys whose lines are the same are those of it.
    :raise ValueError: naming what is wrong, with the name of the key and the field.
    """
    before = dict(zip(known.lines, known.records, strict=True))
    lines = [bytes(raw) for raw in _split(data)]
    records = [before.get(line) or _record(line, number) for number, line in enumerate(lines, 1)]
    return Content(KeyRecords(records), lines)


def render(records: KeyRecords, known: Content) -> tuple[bytes, Content]:
    """
    Return a file with these keys, and what it holds.

    :param known: What the file held before.
    """
    before = {id(record): line for record, line in zip(known.records, known.lines, strict=True)}
    lines = [before.get(id(record)) or _line(record) for record in records]
    return b'{"format": 1, "keys": [\n' + b",\n".join(lines) + b"\n]}\n", Content(records, lines)


def _split(data: bytes) -> list[Raw]:
    """Return the keys, each as it is in the file."""
    try:
        members = _members.decode(data)
    except _UNREADABLE as e:
        raise ValueError(f"it is no JSON object: {_quoted(e)}") from None
    if "format" not in members:
        raise ValueError("format is missing, so it is no file of named keys")
    try:
        number = _number.decode(members.pop("format"))
    except _UNREADABLE as e:
        raise ValueError(f"format: {_quoted(e)}") from None
    if number != FORMAT:
        raise ValueError(f"format is {number}, which another version has written; this one reads {FORMAT}")
    lines = members.pop("keys", None)
    if members:
        raise ValueError(f"there is an unknown member, {_quoted(repr(next(iter(members))))}")
    if lines is None:
        raise ValueError("keys is missing")
    try:
        return _lines.decode(lines)
    except _UNREADABLE as e:
        raise ValueError(f"keys: {_quoted(e)}") from None


def _record(line: bytes, number: int) -> NamedKey:
    """
    Return a key from its line.

    :param number: The place of the key in the file, from 1, for one without a name.
    """
    try:
        read = _key.decode(line)
        former = None if read.former is UNSET else Former(read.former.sha256, read.former.until)
        record = NamedKey(
            name=read.name,
            sha256=read.sha256,
            scopes=_scopes(read.scopes),
            created=read.created,
            expires=read.expires,
            disabled=read.disabled,
            rate=read.rate,
            concurrent=read.concurrent,
            former=former,
        )
        if read.id != record.id:
            raise ValueError(f"id is {read.id!r}, but sha256 begins with {record.id!r}")
    except _UNREADABLE as e:
        raise ValueError(f"key {_name_of(line, number)}: {_quoted(e)}") from None
    return record


def _name_of(line: bytes, number: int) -> str:
    try:
        return _quoted(repr(_named.decode(line).name))
    except _UNREADABLE:
        return f"number {number}"


def _line(record: NamedKey) -> bytes:
    former = record.former
    return _encoder.encode(
        _Key(
            name=record.name,
            id=record.id,
            sha256=record.sha256,
            scopes=record.scopes.texts,
            created=record.created,
            expires=record.expires,
            disabled=record.disabled,
            rate=record.rate,
            concurrent=record.concurrent,
            former=UNSET if former is None else _Former(former.sha256, former.until),
        )
    )


def _quoted(text: object) -> str:
    """Return a text that may hold parts of a file, on one line of bounded length."""
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text)[:_LONGEST_QUOTE])
    return shown if len(str(text)) <= _LONGEST_QUOTE else f"{shown}..."
