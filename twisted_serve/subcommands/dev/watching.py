# SPDX-License-Identifier: Apache-2.0
"""
Decide which files have changed since a model was loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

#: Equal while a file is unchanged: its time, size and inode; of a directory, the names of the Python files in it;
#: ``None`` for a path at which nothing is.
Stamp: TypeAlias = tuple[int | str, ...] | None

#: Seconds for which files must be still: an editor may write in several steps.
SETTLING = 0.2


def stamps_of(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """Return the stamps of files and directories; blocking."""
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> Stamp:
    try:
        if path.is_dir():
            return tuple(sorted(each.name for each in path.glob("*.py")))
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Watch:
    """
    The stamps of the files that were loaded, or were tried.

    :ivar known: The stamps, from before the files were read.
    """

    def __init__(self) -> None:
        self.known: Mapping[Path, Stamp] = {}
        self._seen: Mapping[Path, Stamp] = {}
        self._since = 0.0

    def begin(self, known: Mapping[Path, Stamp]) -> None:
        """Begin to watch these files."""
        self.known, self._seen = known, {}

    def look(self, seen: Mapping[Path, Stamp], now: float) -> tuple[Path, ...]:
        """
        Return the files that have changed, once all are still.

        :param seen: The present stamps of the known files.
        :param now: In seconds.
        """
        changed = tuple(path for path, stamp in self.known.items() if seen.get(path) != stamp)
        if seen != self._seen:
            self._seen, self._since = seen, now
        return changed if now - self._since >= SETTLING else ()
