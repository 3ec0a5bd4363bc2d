# SPDX-License-Identifier: Apache-2.0
"""
Plant bugs in what a start does with the keys of the last run.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

from attrs import evolve

from tests.testing.planted.bug import Concern, Planted, replacing
from twisted_serve.assembly import keys
from twisted_serve.auth import kept
from twisted_serve.auth.kept import Kept, parse_keys, read_kept
from twisted_serve.auth.key_file import KeyFile
from twisted_serve.auth.tokens import Token, TokenKind

KEEP = {"token_on_restart": "keep", "token_expiration_min": 5}

_begin = KeyFile.__init__


def _nothing(path: Path, now: datetime, lifetime: timedelta) -> Kept:
    """Keep no key."""
    return Kept()


def _expired_too(path: Path, now: datetime, lifetime: timedelta) -> Kept:
    """Keep keys whatever their dates are."""
    found = read_kept(path, now, lifetime)
    return evolve(found, tokens=parse_keys(path.read_bytes())) if found.tokens else found


def _again(token: Token, expires: datetime) -> Token:
    return token if token.expires is None else evolve(token, expires=expires)


def _renewed(path: Path, now: datetime, lifetime: timedelta) -> Kept:
    """Give kept keys another whole life."""
    found = read_kept(path, now, lifetime)
    return evolve(found, tokens=tuple(_again(each, now + lifetime) for each in found.tokens))


def _parts(content: bytes) -> tuple[Token, ...]:
    """Take what can be read of a torn file."""
    try:
        return parse_keys(content)
    except ValueError:
        found = re.findall(rb'"API": \{\s*"key": "([^"]+)"', content)
        return tuple(Token(TokenKind.API, secret.decode()) for secret in found[:1])


def _removed(self: KeyFile, path: Path, kept: bool = False) -> None:
    """Remove the file at the stop."""
    _begin(self, path)


BUGS = (
    Planted(
        "keys not kept",
        Concern.KEPT,
        r"^the (management|inference|API) key, which had not ended, was not kept$",
        replacing(keys, read_kept=_nothing),
        KEEP,
    ),
    Planted(
        "expired keys kept",
        Concern.KEPT,
        r"^the (management|inference) key, which had ended, was kept$",
        replacing(keys, read_kept=_expired_too),
        KEEP,
    ),
    Planted(
        "kept keys renewed",
        Concern.KEPT,
        r"^(key_file.json says that the (management|inference) key expires at|the (management|inference) key opened)",
        replacing(keys, read_kept=_renewed),
        KEEP,
    ),
    Planted(
        "torn file believed",
        Concern.KEPT,
        r"^a key outlived the server's last run$",
        replacing(kept, parse_keys=_parts),
        KEEP,
    ),
    Planted(
        "file of anybody believed",
        Concern.KEPT,
        r"^a key outlived the server's last run$",
        replacing(kept, _read=Path.read_bytes),
        KEEP,
    ),
    Planted(
        "file removed although it is kept",
        Concern.KEPT,
        r"^(key_file.json was removed when|the (management|inference|API) key, which had not ended, was not kept$)",
        replacing(KeyFile, __init__=_removed),
        KEEP,
    ),
)
