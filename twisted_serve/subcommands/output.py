# SPDX-License-Identifier: Apache-2.0
"""
Write what a command has found: words and tables for people, or JSON.

Standard output has the result alone; all else is on stderr.  Colours, and lines that change, are for terminals only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

# Between the columns of a table.
_GAP = 2


def printable_lines(text: str) -> str:
    """Escape all characters of a server's text that could control a terminal; keep line ends and tabs."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text)


class Output:
    """
    The output of one command.

    :ivar as_json: Whether the result is JSON.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @property
    def terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout.isatty()

    @property
    def interactive(self) -> bool:
        """Whether stderr is a terminal on which a line may change."""
        return not self.as_json and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def result(self, value: Any, human: Callable[[], object]) -> None:
        """
        Write the result.

        :param value: The result for ``--json``.
        :param human: Writes it for people.
        """
        if self.as_json:
            click.echo(json.dumps(value, indent=2))
        else:
            human()

    def line(self, text: str, color: str | None = None) -> None:
        """Write one line of the result."""
        click.secho(printable_lines(text), fg=color)

    def note(self, text: str) -> None:
        """Write a remark, to stderr."""
        click.echo(printable_lines(text), err=True)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[object]], colors: Sequence[str | None] = ()) -> None:
        """
        Write a table with a line for each row.

        :param rows: ``None`` is written as ``-``.
        :param colors: The color of each row's last cell.
        """
        cells = [
            [printable_lines("-" if each is None else str(each)).replace("\n", " ") for each in row] for row in rows
        ]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        click.secho(_joined(heads, widths).rstrip(), bold=True)
        for number, row in enumerate(cells):
            before = _joined(row[:-1], widths)
            color = colors[number] if colors else None
            click.echo(before + click.style(row[-1], fg=color) if row[-1] else before.rstrip())

    @contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """
        Show on stderr, if it is a terminal, that something is going on.

        :return: A function that changes the text.
        """
        if not self.interactive:
            yield lambda _text: None
            return
        from rich.console import Console  # noqa: PLC0415 - for terminals only
        from rich.text import Text  # noqa: PLC0415

        with Console(stderr=True).status(Text(printable_lines(text))) as status:
            yield lambda changed: status.update(Text(printable_lines(changed)))


def _cell(value: object) -> str:
    return "-" if value is None else printable_lines(str(value)).replace("\n", " ")


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.ljust(width + _GAP) for cell, width in zip(cells, widths, strict=False))
