# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/api.md``: its tables list what is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import twisted_serve
from twisted_serve import endpoints
from twisted_serve.archiver import model_archiver
from twisted_serve.testing import fakes, local_worker, machine, memory, mounted, named_machine, socket_reactor, sockets

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text("utf-8")
ROW = re.compile(r"^\| `(twisted_serve[\w.]*)` \| (.+) \|$", re.MULTILINE)
LISTED = [name for name, _description in ROW.findall(PAGE)]


@pytest.mark.parametrize("name", LISTED)
def test_listed(name: str) -> None:
    """What the page lists can be imported from where it says."""
    module, _, attribute = name.rpartition(".")
    there = import_module(module)
    if not hasattr(there, attribute):
        import_module(name)


def test_rows() -> None:
    """Each row of a table is read, and no name is listed twice."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(LISTED) == len(set(LISTED)) > 30


def test_facade() -> None:
    """The first table is the facade."""
    facade = ROW.findall(PAGE.partition("## Modules")[0])
    assert sorted(name for name, _ in facade) == sorted(f"twisted_serve.{name}" for name in twisted_serve.__all__)


@pytest.mark.parametrize(
    ("module", "internal"),
    [
        (endpoints, {"Kind", "by_segment"}),
        (fakes, {"Respond"}),
        (local_worker, set()),
        (model_archiver, set()),
        (machine, set()),
        (memory, set()),
        (mounted, set()),
        (named_machine, set()),
        (socket_reactor, set()),
        (sockets, set()),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_modules(module: object, internal: set[str]) -> None:
    """Of modules that are public as a whole, the page lists all names but types of annotations and a helper."""
    name: str = module.__name__  # type: ignore[attr-defined]
    public: list[str] = module.__all__  # type: ignore[attr-defined]
    assert {each for each in LISTED if each.startswith(f"{name}.")} == {f"{name}.{each}" for each in public} - {
        f"{name}.{each}" for each in internal
    }
