# SPDX-License-Identifier: Apache-2.0
"""Hold the import paths of programs in README.md, ``docs/`` and ``examples/``: each of them stays importable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
PROGRAMS = [*sorted((ROOT / "docs").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]

_BLOCK = re.compile(r"^(?P<indent> *)```(?:python|pycon|py)\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)

#: Modules that programs may name whatever the pages show of them.
MODULES = (
    "twisted_serve",
    "twisted_serve.auth.cred",
    "twisted_serve.config.load",
    "twisted_serve.config.options",
    "twisted_serve.endpoints",
    "twisted_serve.errors",
    "twisted_serve.service",
    "twisted_serve.testing.server",
    "twisted_serve.testing.strategies",
)


def texts() -> Iterator[tuple[Path, str]]:
    """Return the Python of all pages and programs, each with its file."""
    for page in PAGES:
        for block in _BLOCK.finditer(page.read_text("utf-8")):
            yield page, dedent(block["text"])
    for program in PROGRAMS:
        yield program, program.read_text("utf-8")


def imported() -> dict[tuple[str, str], Path]:
    """Return the modules and names of ours that programs import, each with a file that does."""
    found: dict[tuple[str, str], Path] = {}
    for path, text in texts():
        if "twisted_serve" not in text:
            continue
        try:
            tree = ast.parse(text)
        except SyntaxError:
            # A session of the interpreter or a fragment: its lines that import.
            lines = [line.removeprefix(">>> ") for line in text.splitlines()]
            tree = ast.parse("\n".join(line for line in lines if re.match(r"(from twisted_serve|import )", line)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [(node.module or "", alias.name) for alias in node.names]
            else:
                continue
            found |= {name: path for name in names if name[0].partition(".")[0] == "twisted_serve"}
    return found


IMPORTED = imported()


@pytest.mark.parametrize(("module", "name"), sorted(IMPORTED), ids=lambda part: part or "-")
def test_importable(module: str, name: str) -> None:
    """What a page or a program imports is there; a class or function that has a home is the same object there."""
    try:
        there = import_module(module)
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "twisted_serve":
            pytest.skip(f"{module} needs {e.name}")
        raise
    if not name:
        return
    if hasattr(there, "__path__") and not hasattr(there, name):
        there = import_module(f"{module}.{name}")
        return
    thing = getattr(there, name)
    home, qualified = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if isinstance(home, str) and home.startswith("twisted_serve.") and qualified.isidentifier():
        assert getattr(import_module(home), qualified) is thing, IMPORTED[module, name]


@pytest.mark.parametrize("module", MODULES)
def test_modules(module: str) -> None:
    """Modules that are public are there."""
    import_module(module)


def test_found() -> None:
    """Names of the pages are found, in prose about embedding as in the examples' programs."""
    assert ("twisted_serve", "ModelServer") in IMPORTED
    assert ("twisted_serve", "ServerOptions") in IMPORTED
    assert len(IMPORTED) >= 15
