# SPDX-License-Identifier: Apache-2.0
"""
Read the keys that an earlier run of the server has left in its key file (``token_on_restart=keep``).

The file decides which keys open the server, so only a file that the server itself has written is believed: a regular
file of this user that no other user may read or write, in exactly the format that the server writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from datetime import datetime, timedelta, timezone
from errno import EEXIST
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from twisted_serve.auth.key_file import MAX_BYTES, KeyFileInUse, instant
from twisted_serve.auth.owner_files import open_unfollowed
from twisted_serve.auth.tokens import Token, TokenKind

# Fresh secrets are like this (`fresh_token`); any other was not made by a server.
_SECRET = re.compile(r"[A-Za-z0-9_\-]{32}", re.ASCII)

_KINDS = {kind.value: kind for kind in TokenKind}


@frozen
class Kept:
    """
    The keys of an earlier run.

    :ivar tokens: Those that have not expired; at most one of each kind.
    :ivar reason: Why the file is not believed; ``None`` if it is, or if there is none.
    """

    tokens: tuple[Token, ...] = ()
    reason: str | None = None


def read_kept(path: Path, now: datetime, lifetime: timedelta) -> Kept:
    """
    Read the keys that have not expired, with their dates.

    A date that is farther away than a new key's is brought nearer: the clock was set back, or the file was edited.

    :raise KeyFileInUse: when the file belongs to another running server.
    """
    try:
        content = _read(path)
    except FileNotFoundError:
        return Kept()
    except KeyFileInUse:
        raise
    except OSError as e:
        return Kept(reason=e.strerror or str(e))
    try:
        tokens = parse_keys(content)
    except ValueError as e:
        return Kept(reason=str(e))
    return Kept(tuple(_nearer(each, now + lifetime) for each in tokens if not each.expired(now)))


def _nearer(token: Token, latest: datetime) -> Token:
    return token if token.expires is None else evolve(token, expires=min(token.expires, latest))


def parse_keys(content: bytes) -> tuple[Token, ...]:
    """
    Parse the content of a key file: its keys, at least one and at most one of each kind.

    :raise ValueError: without any of the content, for bytes that no server has written.
    """
    try:
        members = json.loads(content.decode("ascii"), object_pairs_hook=_members)
    except (ValueError, RecursionError):
        raise ValueError("it is not whole, or not JSON") from None
    if not isinstance(members, dict) or not members or not members.keys() <= _KINDS.keys():
        raise ValueError("it is not a key file: its members are not management, inference and API")
    tokens = tuple(_token(_KINDS[name], member) for name, member in members.items())
    if len({token.secret for token in tokens}) < len(tokens):
        raise ValueError("two of its keys are the same")
    return tokens


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member twice")
    return members


def _token(kind: TokenKind, member: object) -> Token:
    dated = kind is not TokenKind.API
    names = {"key", "expiration time"} if dated else {"key"}
    if not isinstance(member, dict) or member.keys() != names:
        raise ValueError(f"its {kind.value} key does not have the members {', '.join(sorted(names))}")
    secret = member["key"]
    if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
        raise ValueError(f"its {kind.value} key is not one that a server makes")
    return Token(kind, secret, _date(kind, member["expiration time"]) if dated else None)


def _date(kind: TokenKind, text: object) -> datetime:
    try:
        date = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    except ValueError:
        date = None
    if date is None or instant(date) != text:
        raise ValueError(f"the expiration time of its {kind.value} key is not one that a server writes")
    return date


def _read(path: Path) -> bytes:
    """
    Return the content of a file that no other user can have written or read.

    :raise KeyFileInUse: when a running server holds it.
    :raise OSError: for any other file.
    """
    if path.is_symlink():
        raise OSError("it is a symbolic link")
    descriptor = open_unfollowed(path)
    try:
        # Of the open file, which cannot be exchanged for another one any more.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if status.st_uid != os.geteuid():
            raise OSError("it belongs to another user")
        if status.st_mode & 0o077:
            raise OSError(f"its mode is {stat.S_IMODE(status.st_mode):04o}, so that other users may have read it")
        try:
            # As for the replacement: NFS grants no exclusive lock on a file opened for reading.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeyFileInUse(EEXIST, "the key file belongs to another running server", str(path)) from None
        content = os.read(descriptor, MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise OSError(f"it is larger than {MAX_BYTES} bytes")
    return content
