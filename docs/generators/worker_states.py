# SPDX-License-Identifier: Apache-2.0
"""
Render the states of a worker: ``docs/worker_states.svg``, and their tables in ``docs/architecture.md``.

Both are made from the machine in :mod:`twisted_serve.scheduling.lifecycle`.  After a change of it, in the root of the
repository::

    python -m docs.generators.worker_states
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from twisted_serve.scheduling.lifecycle import ReplicaInputs, make_machine

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "architecture.md"
PICTURE: Final = ROOT / "docs" / "worker_states.svg"

#: The block of the page that is made here stands between these lines.
BEGIN: Final = "<!-- Made by `python -m docs.generators.worker_states`: change the machine. -->"
END: Final = "<!-- End of what is made. -->"

#: The states from left to right, in the usual order of a worker's life.
ORDER: Final = ("Idle", "Loading", "Ready", "Failing", "Backoff", "GivenUp", "Draining", "Stopped")

# The state that an input leads to, by state and input.
Transitions: TypeAlias = Mapping[tuple[str, str], str]

# In pixels.
_COLUMN = 116
_ROW = 30
_MARGIN = 16
_HEAD = 30

_STYLE = """\
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1b2733; text-anchor: middle }
.name { font-weight: bold }
.page { fill: #ffffff }
.state { fill: #eaf1f8; stroke: #7c95ad }
.column { stroke: #c9d5e0; stroke-dasharray: 3 4 }
.arrow { stroke: #33597d; stroke-width: 1.4 }
.point { fill: #33597d }
@media (prefers-color-scheme: dark) {
text { fill: #e3eaf1 }
.page { fill: #14191f }
.state { fill: #1f2c39; stroke: #567391 }
.column { stroke: #3a4753 }
.arrow { stroke: #8fb4d8 }
.point { fill: #8fb4d8 }
}"""


def transitions() -> Transitions:
    """
    Return the transitions of the machine.

    :raise ValueError: if it has other states than `ORDER`.
    """
    automaton = make_machine().__automat_automaton__  # type: ignore[attr-defined] # `make_machine` says less
    found = {(was.name, name): becomes.name for was, name, becomes, _ in automaton.allTransitions()}
    states = {*(was for was, _ in found), *found.values()}
    if states != {*ORDER}:
        raise ValueError(f"the machine's states are {sorted(states)}, not {sorted(ORDER)}")
    return found


def inputs() -> Mapping[str, str]:
    """Return the inputs of the machine in the order of their definition, with the first lines of their docstrings."""
    described = {name: inspect.getdoc(value) or "" for name, value in vars(ReplicaInputs).items() if callable(value)}
    shown = {name: text.partition("\n")[0] for name, text in described.items() if not name.startswith("__")}
    return {name: text.replace("``", "`") for name, text in shown.items()}


def tables() -> str:
    """Return the block of the page, in Markdown."""
    found, columns = transitions(), inputs()
    lines = ["| input | |", "| --- | --- |", *(f"| `{name}` | {text} |" for name, text in columns.items()), ""]
    lines += ["| state | " + " | ".join(f"`{name}`" for name in columns) + " |", "| --- |" + " --- |" * len(columns)]
    for state in ORDER:
        lines.append(
            f"| **{state}** | " + " | ".join(_cell(state, found.get((state, name))) for name in columns) + " |"
        )
    return "\n".join(lines)


def _cell(state: str, becomes: str | None) -> str:
    if becomes is None:
        return ""
    return "stays" if becomes == state else becomes


def picture() -> str:
    """Return the picture as SVG: a column for each state, and an arrow for each pair of states with a transition."""
    arrows = list(_arrows(transitions()))
    width = 2 * _MARGIN + _COLUMN * len(ORDER)
    height = 2 * _MARGIN + _HEAD + _ROW * len(arrows) + 6
    drawn: list[str] = []
    for i, state in enumerate(ORDER):
        x = _middle(i)
        drawn += [
            f'<path class="column" d="M{x} {_MARGIN + _HEAD}V{height - _MARGIN}"/>',
            f'<rect class="state" x="{x - 46}" y="{_MARGIN}" width="92" height="{_HEAD}" rx="5"/>',
            f'<text class="name" x="{x}" y="{_MARGIN + 20}">{state}</text>',
        ]
    for row, (was, becomes, names) in enumerate(arrows):
        drawn += _arrow(_middle(ORDER.index(was)), _middle(ORDER.index(becomes)), row, ", ".join(names))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' role="img">',
            "<!-- Made by `python -m docs.generators.worker_states`. -->",
            "<title>The states of a worker, and what leads from one to another</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{width}" height="{height}" rx="6"/>',
            *drawn,
            "</svg>",
            "",
        ]
    )


def _arrows(found: Transitions) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Return the pairs of different states with the inputs that lead from one to the other."""
    for was in ORDER:
        for becomes in ORDER:
            names = [name for name in inputs() if found.get((was, name)) == becomes != was]
            if names:
                yield was, becomes, names


def _middle(column: int) -> int:
    return _MARGIN + _COLUMN * column + _COLUMN // 2


def _arrow(begin: int, end: int, row: int, names: str) -> Iterator[str]:
    y = _MARGIN + _HEAD + _ROW * (row + 1) - 4
    back = 7 if end > begin else -7
    yield f'<path class="arrow" d="M{begin} {y}H{end - back}"/>'
    yield f'<path class="point" d="M{end} {y}l{-back} -4v8z"/>'
    yield f'<circle class="point" cx="{begin}" cy="{y}" r="2.5"/>'
    yield f'<text x="{(begin + end) / 2:g}" y="{y - 5}">{names}</text>'


def with_tables(page: str) -> str:
    """
    Return the page with a fresh block.

    :raise ValueError: if it has no place for one.
    """
    before, begin, rest = page.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the tables")
    return f"{before}{begin}\n{tables()}\n{end}{after}"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
