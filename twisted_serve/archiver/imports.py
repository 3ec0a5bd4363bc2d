# SPDX-License-Identifier: Apache-2.0
"""
Find local modules that an archive's Python files import but the archive lacks.

Nothing is imported: import statements are parsed and resolved beside the importing files and in the working directory,
where they would have been found when the model was tested.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

# Maximum number of files inspected, and bytes read of each.
_MAX_FILES = 1000
_MAX_BYTES = 1 << 20


@frozen
class Missing:
    """
    A module that an archive lacks.

    :ivar module: Its dotted name.
    :ivar path: Its file.
    :ivar name: The name of the file in the archive.
    :ivar importer: The file that imports it.
    """

    module: str
    path: Path
    name: str
    importer: Path


def missing_modules(files: Mapping[str, Path], here: Path) -> list[Missing]:
    """
    List the local modules that are imported but not packed, each once.

    :param files: The file for each name in the archive.
    :param here: The working directory.
    """
    found: dict[str, Missing] = {}
    sources = [(name, path) for name, path in files.items() if name.endswith(".py")]
    for name, path in sources[:_MAX_FILES]:
        # The directory that contains the importing file's top-level package.
        top = path.absolute().parents[name.count("/")]
        for module, level in _imports(path):
            if level:
                base = path.absolute().parents[min(level, len(path.absolute().parents)) - 1]
                roots, packed = [base], _packed_below(name, level)
            else:
                roots, packed = list(dict.fromkeys([top, path.absolute().parent, here])), ""
            local = _missing_module(module, roots, packed, files)
            if local is not None:
                found.setdefault(local[0], Missing(*local, path))
    return list(found.values())


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the modules that a file may import: the dotted name, and the number of leading dots."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file:
                tree = ast.parse(file.read(_MAX_BYTES), str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = f"{node.module}." if node.module else ""
            # Each imported name may itself be a module.
            yield from ((prefix + alias.name.replace("*", ""), node.level) for alias in node.names)


def _packed_below(name: str, level: int) -> str:
    """Return the directory in the archive from which a file's relative import is resolved."""
    parts = name.split("/")[:-level] if level else []
    return "".join(f"{part}/" for part in parts)


def _missing_module(
    module: str, roots: list[Path], packed: str, files: Mapping[str, Path]
) -> tuple[str, Path, str] | None:
    """
    Return the shortest prefix of a dotted name that is a local file and not packed, with that file and its name.
    """
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
                    return ".".join(parts[:end]), root / form, packed + form
    return None
