# SPDX-License-Identifier: Apache-2.0
"""
Find the key for a request: the one that was given, else the server's own in its key file.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted_serve.command.run_file import RunningServer
from twisted_serve.subcommands.outcomes import Failed, NotAuthorized

#: The kinds of keys, as in the key file.
KINDS = ("inference", "management", "API")

# In bytes; a key file has about 400.
_MAX_BYTES = 65536

# RFC 6750's b64token.
_SECRET = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def given_key(text: str | None) -> str | None:
    """
    Return a key that was given with ``--key`` or ``TS_KEY``; ``None`` for none.

    :raise NotAuthorized: when it cannot be a key; the message does not have it.
    """
    key = (text or "").strip()
    if not key:
        return None
    if not _SECRET.fullmatch(key):
        raise NotAuthorized("The key of --key or TS_KEY has characters that no key has: give the key alone.")
    if key.startswith("tsk_"):
        # Imported here, because the import takes longer than most commands.
        from twisted_serve.auth.named.secrets import is_well_formed  # noqa: PLC0415

        if not is_well_formed(key):
            raise NotAuthorized("The key is mistyped or cut off: its checksum is wrong. No request was sent.")
    return key


def key_in_file(kind: str, server: RunningServer) -> str | None:
    """
    Return a key of a running server; ``None`` if it has token authorization disabled.

    :param kind: One of `KINDS`.
    :raise Failed: when the file with the key cannot be read, or lacks it.
    """
    if server.key_file is None:
        return None
    path = server.given_keys.get(kind)
    if path is not None:
        key: object = _read(path).decode(errors="replace").strip()
    else:
        path, key = server.key_file, _in_key_file(server.key_file).get(kind, {}).get("key")
    if not isinstance(key, str) or not _SECRET.fullmatch(key):
        raise Failed(f"{path} has no {kind} key: set TS_KEY to a key.")
    return key


def own_keys(server: RunningServer) -> list[dict[str, Any]]:
    """
    Return the keys of a running server without their secrets: ``name``, ``id``, ``expires``.

    :raise Failed: when a file with a key cannot be read.
    """
    if server.key_file is None:
        return []
    written = {} if set(KINDS) <= server.given_keys.keys() else _in_key_file(server.key_file)
    found = []
    for kind in KINDS:
        # The key of a variable is in no file.
        if kind in server.given_keys or kind in written:
            public = sha256(str(key_in_file(kind, server)).encode()).hexdigest()[:8]
            expires = None if kind in server.given_keys else written[kind].get("expiration time")
            found.append({"name": kind, "id": public, "expires": expires})
    return found


def _in_key_file(path: str) -> dict[str, Any]:
    """Return the members of a key file: for each kind its ``key`` and ``expiration time``."""
    try:
        said: Any = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise Failed(f"{path} is no key file: set TS_KEY to a key.") from None
    return {kind: said[kind] for kind in KINDS if isinstance(said, dict) and isinstance(said.get(kind), dict)}


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as e:
        raise Failed(f"The key in {path} cannot be read ({e.strerror}): set TS_KEY to a key.") from e
