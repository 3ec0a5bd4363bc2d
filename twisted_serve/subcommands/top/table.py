# SPDX-License-Identifier: Apache-2.0
"""
Render the view of a server as a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

from rich.console import Group
from rich.table import Table
from rich.text import Text

from twisted_serve.subcommands.bench.report import milliseconds, size
from twisted_serve.subcommands.moments import in_words
from twisted_serve.subcommands.output import printable_lines
from twisted_serve.subcommands.top.rows import Row, View

HEADS = ("model", "version", "workers", "running", "queue", "req/s", "p50", "p99", "err/s", "memory")

# More rows than any terminal has lines.
_MOST = 200


def cells_of(row: Row) -> tuple[str, ...]:
    """Return the cells of a row, in the order of `HEADS`."""
    return (
        row.name,
        row.version,
        workers(row),
        str(row.running),
        str(row.queued),
        _number(row.rate),
        _time(row.p50),
        _time(row.p99),
        _number(row.errors),
        "-" if row.memory is None else size(row.memory),
    )


def workers(row: Row) -> str:
    """Return how many workers are ready, of how many that are wanted."""
    if row.wanted is None:
        wanted = ""
    else:
        least, most = row.wanted
        wanted = f"/{least}" if least == most else f"/{least}-{most}"
    more = [f"{count} {what}" for count, what in ((row.starting, "starting"), (row.troubled, "failing")) if count]
    return f"{row.ready}{wanted}" + (f" ({', '.join(more)})" if more else "")


def summary(view: View) -> Iterator[str]:
    """Yield the parts of the line about the server."""
    yield "server " + ("-" if view.processor is None else f"{view.processor:.0%}") + " of a processor"
    yield size(view.memory)
    for kind, seconds in view.seconds_left.items():
        if isfinite(seconds):
            yield f"{kind} key " + (f"expires in {in_words(seconds)}" if seconds > 0 else "has expired")


def table_of(view: View, notes: Sequence[str] = ()) -> Group:
    """
    Return the table, for a terminal.

    :param notes: Lines below it.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(HEADS):
        table.add_column(head, justify="left" if number < 3 else "right", no_wrap=True)
    for row in view.rows[:_MOST]:
        style = "red" if row.troubled or row.errors else "yellow" if row.starting or row.queued else None
        table.add_row(*(Text(printable_lines(cell).replace("\n", " ")) for cell in cells_of(row)), style=style)
    hidden = len(view.rows) - _MOST
    more = [f"and {hidden} more versions"] if hidden > 0 else []
    return Group(Text("  ".join(summary(view))), table, *(Text(printable_lines(line)) for line in [*more, *notes]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else milliseconds(seconds)
