# SPDX-License-Identifier: Apache-2.0
"""
Run ``twisted-serve top``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from twisted_serve.subcommands.outcomes import ExitStatus, NoServer
from twisted_serve.subcommands.session import Session, with_server
from twisted_serve.subcommands.top.rows import View
from twisted_serve.subcommands.top.table import HEADS, cells_of, summary, table_of
from twisted_serve.subcommands.top.watching import Watcher


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds from one look to the next.",
)
@click.option("--once", is_flag=True, help="Print one table, of one interval, and end; so without a terminal.")
@with_server
def top(session: Session, interval: float, once: bool) -> int:
    """
    Show the models as they work: workers, queue, rate, latencies, errors, memory.

    Ctrl-C ends it. A server that goes away is waited for; the exit status is 3 if it has not come back.
    """
    watcher = Watcher(session, time.monotonic)
    # Whether there is a server is found out before anything is shown.
    view = watcher.look()
    if once or session.out.as_json or not session.out.terminal:
        time.sleep(interval)
        view = watcher.look()
        session.out.result(view.as_json(), lambda: _print(session, view))
        if watcher.problem is not None:
            session.out.note(watcher.problem)
        return ExitStatus.DONE
    return _live(watcher, view, interval, time.sleep)


def _print(session: Session, view: View) -> None:
    session.out.line("  ".join(summary(view)))
    session.out.table(HEADS, [cells_of(row) for row in view.rows])


def _live(watcher: Watcher, view: View, interval: float, sleep: Callable[[float], object]) -> int:
    from rich.live import Live  # noqa: PLC0415 - for terminals only

    gone: str | None = None
    with Live(table_of(view), auto_refresh=False, transient=False) as live:
        try:
            while True:
                sleep(watcher.pause(interval))
                try:
                    view, gone = watcher.look(), None
                except NoServer as e:
                    gone = f"{e.format_message()} Waiting for it; Ctrl-C ends."
                notes = [each for each in (gone, watcher.problem) if each is not None]
                live.update(table_of(view, notes), refresh=True)
        except KeyboardInterrupt:
            return ExitStatus.DONE if gone is None else ExitStatus.NO_SERVER
