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


def key_file_of(server: RunningServer) -> dict[str, Any]:
    """
    Return the content of a server's key file: for each kind its ``key`` and ``expiration time``.

    :return: Empty if the server has token authorization disabled.
    :raise Failed: when the file cannot be read.
    """
    if server.key_file is None:
        return {}
    try:
        with Path(server.key_file).open("rb") as file:
            said: Any = json.loads(file.read(_MAX_BYTES))
    except OSError as e:
        raise Failed(f"The key file {server.key_file} cannot be read ({e.strerror}): set TS_KEY to a key.") from e
    except (ValueError, RecursionError):
        raise Failed(f"{server.key_file} is no key file: set TS_KEY to a key.") from None
    return {kind: said[kind] for kind in KINDS if isinstance(said, dict) and isinstance(said.get(kind), dict)}


def key_in_file(kind: str, server: RunningServer) -> str | None:
    """
    Return a key of a running server; ``None`` if it has token authorization disabled.

    :param kind: One of `KINDS`.
    :raise Failed: when the key file cannot be read, or lacks the key.
    """
    if server.key_file is None:
        return None
    key = key_file_of(server).get(kind, {}).get("key")
    if not isinstance(key, str) or not _SECRET.fullmatch(key):
        raise Failed(f"The key file {server.key_file} has no {kind} key: set TS_KEY to a key.")
    return key


def own_keys(server: RunningServer) -> list[dict[str, Any]]:
    """
    Return the keys of a server's key file without their secrets: ``name``, ``id``, ``expires``.

    :raise Failed: when the file cannot be read.
    """
    return [
        {
            "name": kind,
            "id": sha256(str(said.get("key")).encode()).hexdigest()[:8],
            "expires": said.get("expiration time"),
        }
        for kind, said in key_file_of(server).items()
    ]
