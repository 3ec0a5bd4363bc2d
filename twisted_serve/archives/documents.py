# SPDX-License-Identifier: Apache-2.0
"""
Parse small JSON and YAML documents from archives within limits.

The authors of archives are not trusted: size, depth, number of values and expansion through YAML aliases are limited
before memory is spent, and only values that can be sent to a worker are accepted.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# Real model configurations have a few hundred bytes; with chat templates, a few thousand.
MAX_DOCUMENT_SIZE = 256 * 1024

# Number of values in a document; a value repeated through an alias counts each time.
MAX_VALUES = 10_000

MAX_DEPTH = 32

# Maximum length of an error's detail in characters: it quotes the document and is sent to the client.
_MAX_DETAIL = 300


class DocumentError(ValueError):
    """A document cannot be parsed, or exceeds the limits."""


def load_json(path: Path) -> Any:
    """
    Parse a JSON document.

    :raise DocumentError: if the file is not valid JSON or exceeds the limits.
    :raise OSError: if the file cannot be opened.
    """
    try:
        value = json.loads(_text(path))
    except RecursionError:
        raise DocumentError(f"nested more than {MAX_DEPTH} deep") from None
    except ValueError as e:
        raise DocumentError(str(e)) from e
    return _check_portable(value)


def load_yaml(path: Path) -> Any:
    """
    Parse a YAML document with plain values only; an empty document is ``None``.

    :raise DocumentError: if the file is not valid YAML or exceeds the limits.
    :raise OSError: if the file cannot be opened.
    """
    text = _text(path)
    try:
        _check_limits(yaml.parse(text, Loader=yaml.SafeLoader))
        value = yaml.safe_load(text)
    # A date such as 2001-13-01 raises ValueError; a mapping used as a key raises TypeError in some PyYAML versions.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as e:
        raise DocumentError(" ".join(str(e).split())[:_MAX_DETAIL]) from e
    return _check_portable(value)


def _text(path: Path) -> str:
    """Read a regular UTF-8 file of at most `MAX_DOCUMENT_SIZE` bytes."""
    # Non-blocking, because opening a FIFO in the archive would otherwise wait for a writer indefinitely.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as document:
        if not stat.S_ISREG(os.fstat(document.fileno()).st_mode):
            raise DocumentError("not a regular file")
        data = document.read(MAX_DOCUMENT_SIZE + 1)
    if len(data) > MAX_DOCUMENT_SIZE:
        raise DocumentError(f"larger than {MAX_DOCUMENT_SIZE} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DocumentError(f"not UTF-8 at byte {e.start}") from e


def _check_limits(events: Iterator[yaml.Event]) -> None:
    """
    Check the events of a YAML document against the limits before any value is constructed.

    An alias counts as many values as the node it repeats, so a few lines of aliases to aliases ("billion laughs") are
    refused by the number of values they expand to.
    """
    sizes: dict[str, int] = {}
    open_collections: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            open_collections.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_collections.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise DocumentError(f"the alias *{event.anchor} stands for nothing before it, or contains itself")
            total += sizes[event.anchor]
        if len(open_collections) > MAX_DEPTH:
            raise DocumentError(f"nested more than {MAX_DEPTH} deep")
        if total > MAX_VALUES:
            raise DocumentError(f"more than {MAX_VALUES} values")


def _check_portable(document: Any) -> Any:
    """Return ``document`` if all its values can be sent to a worker, rendered as JSON and logged."""
    pending: list[tuple[Any, int]] = [(document, 0)]
    seen = 0
    while pending:
        value, depth = pending.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise DocumentError(f"nested more than {MAX_DEPTH} deep")
        if seen > 2 * MAX_VALUES:
            raise DocumentError(f"more than {MAX_VALUES} values")
        if isinstance(value, dict):
            pending += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, (list, tuple, set)):
            pending += [(each, depth + 1) for each in value]
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise DocumentError("an integer has more than 64 bits")
        elif isinstance(value, str) and not _is_text(value):
            raise DocumentError("a string has half of a surrogate pair")
    return document


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
