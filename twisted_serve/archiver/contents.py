# SPDX-License-Identifier: Apache-2.0
"""
Collect the files of an archive under their names in it.

As in TorchServe, everything is placed at the archive's root: a file under its base name, a directory's children under
theirs.  Files that would get the same name must have the same content, so that none silently replaces another.
"""

from __future__ import annotations

import filecmp
import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from attrs import define, field

from twisted_serve.archiver.config import ArchiverError
from twisted_serve.archives.extraction import MAX_DEPTH, UnpackLimits, components
from twisted_serve.errors import InvalidModel

# Directories of tools that are not part of a model; directories with a leading dot are left out, too.
_EXCLUDED = frozenset({"__MACOSX", "__pycache__"})

_GLOB = frozenset("*?[]")

_MAX_FILES = UnpackLimits().max_entries


def gather(
    named: Iterable[str | Path | None],
    extra_files: Iterable[str],
    manifest: str,
    warn: Callable[[str], object],
    force: bool = False,
) -> Mapping[str, Path]:
    """
    Collect all files of an archive.

    :param named: Files with a role of their own, such as the handler; ``None`` for each that is absent.
    :param extra_files: Files, directories (included by their contents) and globs.
    :param manifest: The manifest's path; its directory is reserved.
    :param warn: Called with each warning for the user.
    :param force: Whether a file of ``named`` takes precedence over one of ``extra_files`` with the same name.
    :return: The file for each name in the archive, sorted by name.
    :raise ArchiverError: for a path that is missing, not a file, of a name that is taken, or that no server unpacks.
    """
    contents = _Contents(manifest.partition("/")[0])
    for path in named:
        if path is not None:
            contents.add(Path(path).name, Path(path))
    protected = dict(contents.files) if force else {}
    for pattern in extra_files:
        found = sorted(glob.glob(pattern)) if _GLOB & set(pattern) and not os.path.lexists(pattern) else [pattern]
        if not found:
            warn(f"No file matches {pattern}.")
        for path in map(Path, found):
            for name, file in _files(path) if path.is_dir() else [(path.name, path)]:
                if name in protected and file.is_file() and not have_same_content(protected[name], file):
                    warn(f"{file} is left out: {protected[name]} is {name} in the archive.")
                else:
                    contents.add(name, file)
    return dict(sorted(contents.files.items()))


def have_same_content(one: Path, other: Path) -> bool:
    """Return whether two files have the same content."""
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)


@define
class _Contents:
    reserved: str
    files: dict[str, Path] = field(factory=dict)
    _directories: set[str] = field(factory=set)

    def add(self, name: str, path: Path) -> None:
        """Add a file under a name."""
        try:
            found = stat.S_ISREG(path.stat().st_mode)
        except OSError as e:
            raise ArchiverError(f"File does not exist: {path}" if isinstance(e, FileNotFoundError) else str(e)) from e
        if not found:
            raise ArchiverError(f"Not a file: {path}")
        try:
            parts = components(name)
        except InvalidModel as e:
            raise ArchiverError(f"{e.message} ({path})") from e
        if parts[0] == self.reserved:
            raise ArchiverError(f"{path} would be {name} in the archive, where its manifest is.")
        other = self.files.setdefault(name, path)
        if other is not path and not have_same_content(other, path):
            raise ArchiverError(
                f"{other} and {path} would both be {name} in the archive; "
                "with --force the one that has a flag of its own counts more than one of --extra-files."
            )
        above = {"/".join(parts[:end]) for end in range(1, len(parts))}
        self._directories |= above
        both = {name} & self._directories | above & self.files.keys()
        if both:
            raise ArchiverError(f"{min(both)} would be a file and a directory in the archive.")
        if len(self.files) + len(self._directories) > _MAX_FILES:
            raise ArchiverError(f"More than {_MAX_FILES} files and directories.")


def _files(directory: Path, prefix: str = "", above: tuple[Path, ...] = ()) -> Iterator[tuple[str, Path]]:
    """Yield the files below a directory, following links, with their names in the archive."""
    real = directory.resolve()
    if real in above:
        raise ArchiverError(f"The link {directory} leads to a directory above itself.")
    if len(above) >= MAX_DEPTH:
        raise ArchiverError(f"{directory} is more than {MAX_DEPTH} directories deep.")
    for path in sorted(directory.iterdir()):
        if not path.is_dir():
            yield prefix + path.name, path
        elif path.name not in _EXCLUDED and not path.name.startswith("."):
            yield from _files(path, f"{prefix}{path.name}/", (*above, real))
