# SPDX-License-Identifier: Apache-2.0
"""
Hold that no modules import each other in a circle, not even for their types.

The package itself is left out: it names the public classes of modules below it, and these import its version.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import twisted_serve

PACKAGE = Path(twisted_serve.__file__).parent


def modules() -> dict[str, str]:
    """Return the source of each module below the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    del found[PACKAGE.name]
    return found


def imports(source: str, known: Collection[str]) -> set[str]:
    """Return the modules of ``known`` that a source imports anywhere: at its top, in functions, and for types only."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            paths = {f"{node.module}.{alias.name}" for alias in node.names}
            # A name that is no module is one of the module's own.
            found |= {path if path in known else node.module for path in paths}
    return found & set(known)


def test_no_circle() -> None:
    """The modules can be put in an order in which each imports only earlier ones."""
    sources = modules()
    graph = {name: imports(source, sources) for name, source in sources.items()}
    assert sum(map(len, graph.values())) > len(graph)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("imports in a circle: " + " <- ".join(error.args[1]))


def test_imports_are_seen() -> None:
    """Imports are found in all places and spellings."""
    source = """
import a.b
from a import c, name
if TYPE_CHECKING:
    from a.d import Thing
def function():
    from a.e import f
"""
    known = {"a", "a.b", "a.c", "a.d", "a.e", "a.e.f", "a.g"}
    assert imports(source, known) == {"a", "a.b", "a.c", "a.d", "a.e.f"}
