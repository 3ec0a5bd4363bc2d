# SPDX-License-Identifier: Apache-2.0
"""Tests for ``CONTRIBUTING.md``: the files that it names are there; and for the map of the packages."""

from __future__ import annotations

import re
from pathlib import Path

import twisted_serve
from docs.generators.house import layers

SOURCE = Path(twisted_serve.__file__).parent
PAGE = (SOURCE.parent / "CONTRIBUTING.md").read_text("utf-8")


def section(title: str) -> str:
    """Return the text of a section."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_packages() -> None:
    """The map in the docstring of `twisted_serve` has all packages, in an order of the layers."""
    named = re.findall(r"^``(\w+)``  ", twisted_serve.__doc__ or "", re.MULTILINE)
    rows = layers((SOURCE.parent / "pyproject.toml").read_text("utf-8"))
    depth = {name.partition(".")[2]: number for number, row in enumerate(rows) for name in row}
    del depth["__main__"]
    assert sorted(named) == sorted(depth)
    assert [depth[name] for name in named] == sorted(depth.values())


def test_files() -> None:
    """The files of the reading order, and those where the words live, are there."""
    order = section("Where things go").partition("reading order:")[2].partition(".\n\n")[0]
    words = re.findall(r"^\| ([^|`]+) \| [^|]+ \| ([^|]+) \|$", section("Words"), re.MULTILINE)[2:]
    assert len(words) >= 40
    assert [word for word, _ in words] == sorted(word for word, _ in words)
    paths = [*re.findall(r"`([^`]+)`", order), *(path for _, cell in words for path in re.findall(r"`([^`]+)`", cell))]
    assert len(paths) > 50
    assert [path for path in paths if not (SOURCE / path).exists()] == []
