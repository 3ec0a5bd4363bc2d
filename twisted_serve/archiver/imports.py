# SPDX-License-Identifier: Apache-2.0
"""
Find the local modules that the Python files of an archive import and the archive lacks.

Nothing is imported: import statements are read, and looked for beside the files and in the working directory, where
they were found when the model was tried out.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

# Files of an archive that are looked at, and bytes of each.
_MOST_FILES = 1000
_MOST_BYTES = 1 << 20


@frozen
class Missing:
    """
    A module that an archive lacks.

    :ivar module: Its dotted name.
    :ivar path: Where it is.
    :ivar importer: The file that imports it.
    """

    module: str
    path: Path
    importer: Path


def missing_modules(files: Mapping[str, Path], here: Path) -> list[Missing]:
    """
    List the local modules that are imported and not packed, each once.

    :param files: The file of each name in the archive.
    :param here: The working directory.
    """
    found: dict[str, Missing] = {}
    sources = [(name, path) for name, path in files.items() if name.endswith(".py")]
    for name, path in sources[:_MOST_FILES]:
        # The directory in which the importing file's package lies.
        top = path.absolute().parents[name.count("/")]
        for module, level in _imports(path):
            if level:
                base = path.absolute().parents[min(level, len(path.absolute().parents)) - 1]
                roots, packed = [base], _packed_below(name, level)
            else:
                roots, packed = list(dict.fromkeys([top, path.absolute().parent, here])), ""
            local = _lacking(module, roots, packed, files)
            if local is not None:
                found.setdefault(local[0], Missing(*local, path))
    return list(found.values())


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """List the modules that a file may import: the dotted name, and how many dots there are before it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file:
                tree = ast.parse(file.read(_MOST_BYTES), str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            before = f"{node.module}." if node.module else ""
            # Each name may be a module as well.
            yield from ((before + alias.name.replace("*", ""), node.level) for alias in node.names)


def _packed_below(name: str, level: int) -> str:
    """Return where in the archive a relative import of a file begins to look."""
    parts = name.split("/")[:-level] if level else []
    return "".join(f"{part}/" for part in parts)


def _lacking(module: str, roots: list[Path], packed: str, files: Mapping[str, Path]) -> tuple[str, Path] | None:
    """Return the first part of a dotted name that is a local file and is not packed, with that file."""
    parts = [part for part in module.split(".") if part]
    if parts and not packed and parts[0] in sys.stdlib_module_names:
        return None
    for end in range(1, len(parts) + 1):
        place = "/".join(parts[:end])
        forms = (f"{place}.py", f"{place}/__init__.py")
        if any(packed + form in files for form in forms):
            continue
        for root in roots:
            for form in forms:
                if (root / form).is_file():
                    return ".".join(parts[:end]), root / form
    return None
