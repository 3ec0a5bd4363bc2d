# SPDX-License-Identifier: Apache-2.0
"""
The search for a server's keys in all that it has written: they belong in its key file and nowhere else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

# In bytes.  No log of a test is so large; weights and what else is unpacked may be.
LARGEST = 32 << 20

# In characters.  What a test writes into a key file of its own may be anything, and be anywhere.
SHORTEST = 20


class KeyWatch:
    """
    The keys that a server has had, as far as its key file was looked at in time.

    :param cwd: Where it has its key files, ``key_file.json`` or names with that beginning.
    """

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd
        self._keys: set[str] = set()
        self._allowed: dict[Path, str] = {}

    def note(self) -> None:
        """Look at the key files."""
        for path in self._key_files():
            # A test may have put something else there.
            with suppress(OSError, ValueError, AttributeError):
                self._keys |= set(_keys_in(json.loads(path.read_text())))

    def allow(self, path: Path, why: str) -> None:
        """Let a file have keys, for a reason: a handler, say, is to write them there."""
        self._allowed[path] = why

    def found(self, places: Iterable[Path]) -> list[Path]:
        """List the files, at or below the places, that have a key and should not."""
        allowed = {*self._key_files(), *self._allowed}
        return [path for path in files_with(self._keys, places) if path not in allowed]

    def _key_files(self) -> Iterator[Path]:
        return self._cwd.glob("key_file*.json")


def files_with(keys: Collection[str], places: Iterable[Path], largest: int = LARGEST) -> list[Path]:
    """
    List the files, at or below the places, that have one of the keys in their names or their contents.

    :param largest: In bytes; what is in a larger file is not looked at.
    """
    if not keys:
        return []
    wanted = re.compile(b"|".join(re.escape(key.encode()) for key in keys))
    return [path for path in _files(places) if wanted.search(os.fsencode(path)) or wanted.search(_read(path, largest))]


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from (Path(directory, name) for directory, _, names in os.walk(place) for name in names)
        else:
            yield place


def _read(path: Path, largest: int) -> bytes:
    # It may be gone, nobody's to read, or a socket.
    with suppress(OSError):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= largest:
            return path.read_bytes()
    return b""


def _keys_in(content: Mapping[str, object]) -> Iterator[str]:
    for member in content.values():
        key = member.get("key") if isinstance(member, dict) else None
        if isinstance(key, str) and len(key) >= SHORTEST:
            yield key
