# SPDX-License-Identifier: Apache-2.0
"""Tests for all pages of the documentation together: their links, and the configurations that they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from twisted_serve.config.arguments import CommandLine
from twisted_serve.config.load import load_options

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])

_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as they are linked to."""
    headings = re.findall(r"^#+ (.*)$", _CODE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """Every link between pages leads to a file that is there, and to a heading in it."""
    for file, anchor in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        target = page.parent / file if file else page
        assert target.exists(), f"{page}: {file}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {file}#{anchor}"


def test_every_page_is_in_the_index() -> None:
    """Every page of docs can be reached from the index."""
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index


def test_configurations(read_blocks: ReadBlocks, tmp_path: Path) -> None:
    """Every configuration that a page shows is accepted, without a warning."""
    shown = [
        block
        for page in (ROOT / "docs").rglob("*.md")
        for block in read_blocks(str(page.relative_to(ROOT / "docs")), "properties")
    ]
    assert len(shown) >= 2
    for block in shown:
        (tmp_path / "config.properties").write_text(block.text)
        loaded = load_options(CommandLine(model_store=tmp_path), {}, tmp_path)
        assert loaded.warnings == (), block.place
        assert loaded.sources, block.place
