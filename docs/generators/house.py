# SPDX-License-Identifier: Apache-2.0
"""
Draw ``docs/house.svg``, the packages of the server from top to bottom.

The order is that of the contract in ``pyproject.toml`` which ``make check`` enforces; the words are the first lines of
the packages' docstrings.  After a change of either, in the root of the repository::

    python -m docs.generators.house > docs/house.svg
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Final, TypeAlias
from xml.sax.saxutils import escape

from attrs import frozen

ROOT: Final = Path(__file__).resolve().parents[2]

PICTURE: Final = ROOT / "docs" / "house.svg"

LAYERS: Final = "Imports go downward only"
WORKER: Final = "A worker process knows no Twisted and nothing of its parent"

# In pixels.
_WIDTH = 980
_MARGIN = 16
_GAP = 8
_PADDING = 9
_LINE = 16
# Of a character of the text, at 12 pixels, so that no line leaves its box whatever the font is.
_CHARACTER = 6.3

# Colours for a light and a dark page, and a background, as a page may be dark where its reader prefers light ones.
_STYLE = """\
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1b2733 }
.name { font-weight: bold; font-size: 13px }
.part { fill: #4a5a6a }
.page { fill: #ffffff }
.server { fill: #eaf1f8; stroke: #7c95ad }
.worker { fill: #fdf0dc; stroke: #c0914a }
@media (prefers-color-scheme: dark) {
text { fill: #e3eaf1 }
.part { fill: #a9b8c6 }
.page { fill: #14191f }
.server { fill: #1f2c39; stroke: #567391 }
.worker { fill: #3a2d18; stroke: #a67c3c }
}"""

_Layers: TypeAlias = Sequence[Sequence[str]]


@frozen
class Box:
    """
    A package or a module at the top of the server.

    :ivar says: The first line of its docstring.
    :ivar parts: The packages in it.
    :ivar worker: Whether it runs in a worker's process.
    """

    name: str
    says: str
    parts: Sequence[str]
    worker: bool

    def lines(self, width: float) -> list[tuple[str, str]]:
        """Return the lines in a box of ``width`` pixels, each with the class of its text."""
        characters = int((width - 2 * _PADDING) / _CHARACTER)
        lines = [("name", self.name), *(("says", line) for line in wrap(self.says, characters))]
        if self.parts:
            lines += [("part", line) for line in wrap("in it: " + ", ".join(self.parts), characters)]
        return lines


def layers(contracts: str) -> _Layers:
    """Return the layers in the text of ``pyproject.toml``, from the top, each with the modules beside each other."""
    [package] = _listed(contracts, LAYERS, "containers")
    return [
        [f"{package}.{name.strip()}" for name in layer.split("|")] for layer in _listed(contracts, LAYERS, "layers")
    ]


def boxes(contracts: str, root: Path = ROOT) -> list[list[Box]]:
    """Return what is drawn, layer by layer."""
    worker = _listed(contracts, WORKER, "source_modules")
    return [[_box(root, name, name in worker) for name in layer] for layer in layers(contracts)]


def picture(rows: Sequence[Sequence[Box]]) -> str:
    """Return the picture as SVG, one row for each layer."""
    drawn: list[str] = []
    top = float(_MARGIN)
    for row in rows:
        width = (_WIDTH - 2 * _MARGIN - _GAP * (len(row) - 1)) / len(row)
        height = 2 * _PADDING + _LINE * max(len(box.lines(width)) for box in row) - 4
        for i, box in enumerate(row):
            drawn += _drawn(box, _MARGIN + i * (width + _GAP), top, width, height)
        top += height + _GAP
    drawn += _legend(top + 4)
    top += 2 * _LINE + _MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:g}" width="{_WIDTH}" height="{top:g}"'
    title = "<title>The packages of twisted_serve, from top to bottom</title>"
    page = f'<rect class="page" width="{_WIDTH}" height="{top:g}" rx="6"/>'
    made = "<!-- Made by `python -m docs.generators.house > docs/house.svg`. -->"
    return "\n".join([f'{head} role="img">', made, title, f"<style>{_STYLE}</style>", page, *drawn, "</svg>", ""])


def _drawn(box: Box, left: float, top: float, width: float, height: float) -> Iterator[str]:
    kind = "worker" if box.worker else "server"
    yield (f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="5"/>')
    for i, (style, line) in enumerate(box.lines(width)):
        yield _text(style, left + _PADDING, top + _PADDING + 11 + i * _LINE, line)


def _legend(top: float) -> Iterator[str]:
    yield f'<rect class="server" x="{_MARGIN}" y="{top:g}" width="14" height="14" rx="3"/>'
    yield _text("says", _MARGIN + 20, top + 11, "the server's process")
    yield f'<rect class="worker" x="{_MARGIN + 180}" y="{top:g}" width="14" height="14" rx="3"/>'
    yield _text("says", _MARGIN + 200, top + 11, "a worker's process, which imports no Twisted")
    yield _text(
        "says", _MARGIN, top + 13 + _LINE, "A package imports from rows below it only, and never from its own row."
    )


def _text(style: str, left: float, top: float, line: str) -> str:
    return f'<text class="{style}" x="{left:g}" y="{top:g}">{escape(line)}</text>'


def _box(root: Path, name: str, worker: bool) -> Box:
    path = root.joinpath(*name.split("."))
    parts = sorted(inner.parent.name for inner in path.glob("*/__init__.py"))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    if not said:
        raise ValueError(f"{name} has no docstring")
    return Box(name.partition(".")[2], said.splitlines()[0].replace("``", ""), parts, worker)


def _listed(contracts: str, contract: str, key: str) -> list[str]:
    # Python 3.10 reads no TOML; a list of strings is the same in both.
    _, _, text = contracts.partition(f'name = "{contract}"')
    found = re.search(rf"^{key} = (\[[^\]]*\])", text.split("[[tool.", 1)[0], re.MULTILINE)
    if found is None:
        raise ValueError(f"no {key} in a contract {contract!r}")
    return [str(name) for name in ast.literal_eval(found[1])]


def house_svg() -> str:
    """Return the picture of this repository."""
    return picture(boxes((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.stdout.write(house_svg())
