# SPDX-License-Identifier: Apache-2.0
"""Tests that what source, tests and pages cite exists: sections of pages on TorchServe, and pages of ``docs/``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]
TORCHSERVE = ROOT / "docs" / "torchserve"

SECTION = r"§(\d+(?:\.\d+)*)"
# A page or an RFC, the marks that end its name, and its sections: ``rest_api.md`` §3 and §4.1; [text](rest_api.md) §3.
CITATION = re.compile(
    r"(?:torchserve/(?P<page>\w+)\.md|RFC \d+)[`\]]*(?:\([^)]*\)|\))?(?P<sections>(?:,? (?:and )?§\d+(?:\.\d+)*)+)"
)
# On the pages on TorchServe themselves, a section is of the same page unless a link says otherwise.
OTHER_PAGE = re.compile(rf"\[{SECTION} there\]\((\w+)\.md\)")
HEADING = re.compile(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", re.MULTILINE)
LINE_END = re.compile(r"\n[ \t]*(?:#:? ?)?")
DOCUMENT = re.compile(r"\bdocs/[\w/-]+\.md\b")


def sources() -> list[Path]:
    """Return the files that may cite: modules, tests, pages."""
    paths = [*ROOT.glob("*.md")]
    for pattern in ("twisted_serve/**/*.py", "tests/**/*.py", "docs/**/*.md", "docs/**/*.py"):
        paths += ROOT.glob(pattern)
    return sorted(path for path in paths if path != Path(__file__).resolve() and "_build" not in path.parts)


def flattened(path: Path) -> str:
    """Return a file's text as one line, without the marks of comments at the beginning of lines."""
    return LINE_END.sub(" ", path.read_text(encoding="utf-8"))


def headings(page: str) -> set[str]:
    """Return the numbers of the sections that a page on TorchServe has; none if there is no such page."""
    path = TORCHSERVE / f"{page}.md"
    return set(HEADING.findall(path.read_text(encoding="utf-8"))) if path.exists() else set()


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Yield page and section of each citation of a page on TorchServe."""
    for found in CITATION.finditer(text):
        if found["page"]:
            for section in re.findall(SECTION, found["sections"]):
                yield found["page"], section


class CitationTests(SynchronousTestCase):
    """Tests for the citations in modules, tests and pages."""

    def test_pattern(self) -> None:
        """A citation may name several sections, link to the page, and go on in the next line of a comment."""
        for text, expected in (
            ("(``docs/torchserve/a_b.md`` §3)", [("a_b", "3")]),
            ("``docs/torchserve/a.md`` §3.1, §4 and §5.2.", [("a", "3.1"), ("a", "4"), ("a", "5.2")]),
            ("([`torchserve/a.md`](torchserve/a.md) §18)", [("a", "18")]),
            ("``docs/torchserve/a.md``\n    #: §6): and", [("a", "6")]),
            ("RFC 9110 §5.5, and docs/torchserve/a.md §1", [("a", "1")]),
        ):
            self.assertEqual(list(citations(LINE_END.sub(" ", text))), expected, text)

    def test_sections(self) -> None:
        """Each section that is cited is a heading of the page that is named."""
        known = {page.stem: headings(page.stem) for page in TORCHSERVE.glob("*.md")}
        cited = [(path, *citation) for path in sources() for citation in citations(flattened(path))]
        self.assertGreater(len(cited), 80)
        wrong = [(str(path.relative_to(ROOT)), page, n) for path, page, n in cited if n not in known.get(page, ())]
        self.assertEqual(wrong, [])

    def test_no_bare_section(self) -> None:
        """Each section in a module or a test says of which page or RFC it is."""
        bare = {
            str(path.relative_to(ROOT)): found
            for path in sources()
            if path.suffix == ".py" and (found := re.findall(SECTION, CITATION.sub("", flattened(path))))
        }
        self.assertEqual(bare, {})

    def test_between_pages(self) -> None:
        """The pages on TorchServe cite sections of themselves and of each other that exist."""
        for path in TORCHSERVE.glob("*.md"):
            text = path.read_text(encoding="utf-8")
            own = set(re.findall(SECTION, OTHER_PAGE.sub("", text)))
            self.assertEqual(own - headings(path.stem), set(), path.name)
            for section, page in OTHER_PAGE.findall(text):
                self.assertIn(section, headings(page), f"{path.name}: {page}")

    def test_pages_named(self) -> None:
        """Each page of docs that a module or a page beside README.md names exists."""
        named = {
            (str(path.relative_to(ROOT)), name)
            for path in sources()
            if path.parent == ROOT or path.parts[len(ROOT.parts)] == "twisted_serve"
            for name in DOCUMENT.findall(path.read_text(encoding="utf-8"))
        }
        self.assertIn("docs/tokens.md", {name for _, name in named})
        self.assertEqual({(path, name) for path, name in named if not (ROOT / name).exists()}, set())

    def test_nothing_unpublished(self) -> None:
        """Nothing cites the documents from which the pages on TorchServe were made."""
        paths = [str(path.relative_to(ROOT)) for path in sources() if re.search(r"\bspec/", flattened(path))]
        self.assertEqual(paths, [])
